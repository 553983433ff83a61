// Package groupcommit lets many goroutines share the commits of one bbolt database.
//
// # Theory of operation
//
// A commit costs the same for one change as for a hundred. The first caller commits at once; whoever comes while a commit is
// under way waits for the next one, which takes all of them together. So a lone change has the latency of one commit, and
// under load the cost of a commit is shared, without any timer. There is no goroutine while nobody commits.
//
// Where a commit is quick it shares little. A pace between two commits makes up for that: a lone change has its commit at once, and one that comes
// right after another waits until the pace is over.
package groupcommit

import (
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"
)

// Group shares the commits of one database.
type Group struct {
	db   *bolt.DB
	pace time.Duration

	mu      sync.Mutex
	pending []*change
	busy    bool // somebody commits, and will take what is pending next
}

type change struct {
	apply func(*bolt.Tx) error
	err   error
	done  chan struct{}
}

// New returns the group of a database. All writers must use it. pace is the least time between the beginnings of two commits; 0 lets them follow one another.
func New(db *bolt.DB, pace time.Duration) *Group { return &Group{db: db, pace: pace} }

// Update applies a change and returns when it is committed. The change may be applied more than once: it must not keep
// anything from a call that was followed by another. An error of one change does not touch the others.
func (g *Group) Update(apply func(*bolt.Tx) error) error { return g.Begin(apply)() }

// Begin is Update for who has something else to do before it waits: changes are applied in the order in which they were begun.
func (g *Group) Begin(apply func(*bolt.Tx) error) (committed func() error) {
	c := g.add(apply)
	return func() error {
		<-c.done
		return c.err
	}
}

// Later has a change applied with the next commit and does not wait for it. Its error is lost.
func (g *Group) Later(apply func(*bolt.Tx) error) { g.add(apply) }

func (g *Group) add(apply func(*bolt.Tx) error) *change {
	c := &change{apply: apply, done: make(chan struct{})}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.pending = append(g.pending, c)
	if !g.busy {
		g.busy = true
		go g.work()
	}
	return c
}

// work commits until nothing is pending.
func (g *Group) work() {
	for {
		g.mu.Lock()
		batch := g.pending
		g.pending = nil
		if len(batch) == 0 {
			g.busy = false
			g.mu.Unlock()
			return
		}
		g.mu.Unlock()
		begin := time.Now()
		g.commit(batch)
		if g.pace > 0 {
			time.Sleep(g.pace - time.Since(begin))
		}
	}
}

// commit applies the batch in one transaction. Where a change fails, the rest is committed without it.
func (g *Group) commit(batch []*change) {
	for len(batch) > 0 {
		failed := -1
		err := g.db.Update(func(tx *bolt.Tx) error {
			for i, c := range batch {
				if err := c.apply(tx); err != nil {
					failed = i
					return err
				}
			}
			return nil
		})
		if failed >= 0 {
			batch[failed].err = err
			close(batch[failed].done)
			batch = append(batch[:failed:failed], batch[failed+1:]...)
			continue
		}
		for _, c := range batch {
			c.err = err
			close(c.done)
		}
		return
	}
}

// Flush returns when all that was added before is committed.
func (g *Group) Flush() { _ = g.Update(func(*bolt.Tx) error { return nil }) }
