package local

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/mayfly/mayfly/internal/groupcommit"
	"github.com/mayfly/mayfly/internal/logkey"
	"github.com/mayfly/mayfly/queue"
)

// Options of a queue.
type Options struct {
	// Pools are served by the source. Messages of other pools are stored and wait.
	Pools []string
	// OnResult is told each result before Settle confirms it; may be nil.
	OnResult func(queue.Message, queue.Result)
	Log      *slog.Logger
}

// Queue is an embedded queue. Its methods may be called from many goroutines at once.
type Queue struct {
	options Options
	db      *bolt.DB
	commits *groupcommit.Group

	mu     sync.Mutex
	lanes  map[string]*lane
	source *source // the open one, or nil
	timer  *time.Timer
	due    time.Time // when the timer fires; zero while it does not
	closed bool
}

var (
	_ queue.Publisher = (*Queue)(nil)
	_ queue.Cemetery  = (*Queue)(nil)
)

// lane is what is known in memory of one pool's band.
type lane struct {
	// position is the order of the last message that was handed out in its turn.
	position uint64
	// suspect is the greatest order that may have been handed out before, in this life or an earlier one.
	suspect uint64
	// back are the orders of messages that were handed out and came back, ascending.
	back []uint64
	// picked are orders beyond position that were handed out of their turn.
	picked map[uint64]bool
	// ready counts the messages that can be handed out, out those that were and are not settled; turn is when one was last, among all.
	ready, out int
	turn       uint64
}

// Open opens or makes the queue in a file.
func Open(path string, o Options) (q *Queue, err error) {
	var db *bolt.DB
	defer func() {
		// bbolt panics on some kinds of spoilt pages.
		if p := recover(); p != nil {
			err = fmt.Errorf("its pages are spoilt: %v", p)
		}
		if err != nil {
			if db != nil {
				db.Close()
			}
			q = nil
			if errors.Is(err, bolterrors.ErrTimeout) {
				err = fmt.Errorf("cannot open the embedded queue %s: another manager uses it", path)
				return
			}
			err = fmt.Errorf("cannot open the embedded queue %s, restore it or move it away to begin with an empty one: %w", path, err)
		}
	}()
	db, err = bolt.Open(path, 0o600, &bolt.Options{Timeout: time.Second, NoFreelistSync: true, FreelistType: bolt.FreelistMapType})
	if err != nil {
		return nil, err
	}
	q = &Queue{options: o, db: db, commits: groupcommit.New(db, 0), lanes: map[string]*lane{}}
	if err := db.Update(q.load); err != nil {
		return nil, err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.schedule()
	return q, nil
}

// load makes missing buckets and counts what is there.
func (q *Queue) load(tx *bolt.Tx) error {
	for _, name := range [][]byte{messagesBucket, lanesBucket, delayedBucket, placesBucket, idsBucket, deadBucket} {
		if _, err := tx.CreateBucketIfNotExists(name); err != nil {
			return err
		}
	}
	lanes := tx.Bucket(lanesBucket)
	return lanes.ForEachBucket(func(name []byte) error {
		b := lanes.Bucket(name)
		l := q.lane(string(name))
		l.suspect = b.Sequence()
		return b.ForEach(func(_, _ []byte) error { l.ready++; return nil })
	})
}

// lane returns a lane, making it. The lock is held, or nobody else knows of q.
func (q *Queue) lane(name string) *lane {
	l := q.lanes[name]
	if l == nil {
		l = &lane{picked: map[uint64]bool{}}
		q.lanes[name] = l
	}
	return l
}

// Publish implements queue.Publisher.
func (q *Queue) Publish(ctx context.Context, m queue.Message) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if m.QueuedAt.IsZero() {
		m.QueuedAt = time.Now()
	}
	err := q.commits.Update(func(tx *bolt.Tx) error {
		_, err := store(tx, m, time.Time{})
		return err
	})
	if err != nil {
		return fmt.Errorf("cannot store a message: %w", err)
	}
	q.arrived(laneName(m.Pool, m.Band))
	return nil
}

// arrived counts a message that can now be handed out.
func (q *Queue) arrived(lane string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.lane(lane).ready++
	q.stir()
}

// stir lets a waiting Receive look again. The lock is held.
func (q *Queue) stir() {
	if q.source != nil {
		select {
		case q.source.wake <- struct{}{}:
		default:
		}
	}
}

// schedule sets the timer for the first of the delayed messages. It fires only when there is one. The lock is held.
func (q *Queue) schedule() {
	var due time.Time
	err := q.db.View(func(tx *bolt.Tx) error {
		if k, _ := tx.Bucket(delayedBucket).Cursor().First(); k != nil {
			due = time.Unix(0, int64(parse(k[:8])))
		}
		return nil
	})
	if err != nil || q.closed || due.Equal(q.due) {
		return
	}
	if q.timer != nil {
		q.timer.Stop()
	}
	if q.due = due; !due.IsZero() {
		q.timer = time.AfterFunc(time.Until(due), q.promote)
	}
}

// promote moves the delayed messages whose time has come into their lanes.
func (q *Queue) promote() {
	now := time.Now()
	var moved []string
	err := q.commits.Update(func(tx *bolt.Tx) error {
		moved = nil
		delayed := tx.Bucket(delayedBucket)
		c := delayed.Cursor()
		for k, v := c.First(); k != nil && !time.Unix(0, int64(parse(k[:8]))).After(now); k, v = c.First() {
			lane, n := string(v), parse(k[8:])
			if err := c.Delete(); err != nil {
				return err
			}
			if err := enqueue(tx, lane, n); err != nil {
				return err
			}
			moved = append(moved, lane)
		}
		return nil
	})
	if err != nil {
		if !errors.Is(err, bolterrors.ErrDatabaseNotOpen) {
			q.options.Log.Error("delayed tasks not moved, trying again in a minute", logkey.Err, err)
		}
		moved = nil
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, name := range moved {
		q.lane(name).ready++
	}
	q.stir()
	q.due = time.Time{}
	if err != nil && !q.closed {
		q.timer = time.AfterFunc(time.Minute, q.promote)
		return
	}
	q.schedule()
}

// Close closes the source and the file. What was not settled is delivered again when the file is opened again.
func (q *Queue) Close() error {
	q.mu.Lock()
	q.closed = true
	if q.timer != nil {
		q.timer.Stop()
	}
	s := q.source
	q.mu.Unlock()
	if s != nil {
		s.Close()
	}
	q.commits.Flush()
	return q.db.Close()
}

// State says in one line what the queue is.
func (q *Queue) State() string { return "embedded queue " + q.db.Path() }
