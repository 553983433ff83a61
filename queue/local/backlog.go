package local

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"slices"

	bolt "go.etcd.io/bbolt"

	"github.com/mayfly/mayfly/queue"
)

// ErrNotFound says that no waiting message has the id.
var ErrNotFound = errors.New("no waiting message has this id")

// Depth counts the messages that wait in each lane, by its name "<pool>.<band>"; delayed ones are not among them.
func (q *Queue) Depth(context.Context) (map[string]int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	depth := map[string]int{}
	for _, pool := range q.options.Pools {
		for _, band := range queue.Bands {
			depth[laneName(pool, band)] = 0
		}
	}
	for name, l := range q.lanes {
		depth[name] = l.ready
	}
	return depth, nil
}

// Holds reports whether there are messages of the pools that are served, also those whose time has not come.
func (q *Queue) Holds() (some bool) {
	served := map[string]bool{}
	for _, pool := range q.options.Pools {
		for _, band := range queue.Bands {
			served[laneName(pool, band)] = true
		}
	}
	_ = q.db.View(func(tx *bolt.Tx) error {
		for name := range served {
			if b := tx.Bucket(lanesBucket).Bucket([]byte(name)); b != nil {
				if k, _ := b.Cursor().First(); k != nil {
					some = true
				}
			}
		}
		c := tx.Bucket(delayedBucket).Cursor()
		for k, lane := c.First(); k != nil && !some; k, lane = c.Next() {
			some = served[string(lane)]
		}
		return nil
	})
	return some
}

// Waiting calls visit for the messages that were not handed out, lane by lane, then for those that are delayed: from the place from to the place to (from 0, exclusive)
// of all, until it returns false. One body is in memory at a time, and tasks are handed out meanwhile. visit must not use the queue.
func (q *Queue) Waiting(ctx context.Context, from, to int, visit func(queue.Message) bool) error {
	tx, list, err := q.waiting(from, to)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	for _, n := range list {
		if err := ctx.Err(); err != nil {
			return err
		}
		m, _, err := unseal(tx.Bucket(messagesBucket).Get(n))
		if err != nil {
			return err
		}
		if !visit(m) {
			return nil
		}
	}
	return nil
}

// waiting returns the numbers of the messages in these places, and the view of the database in which they are there.
func (q *Queue) waiting(from, to int) (tx *bolt.Tx, list [][]byte, err error) {
	q.mu.Lock() // first, as everywhere: who looks into the database may have to wait for those who do already
	defer q.mu.Unlock()
	if tx, err = q.db.Begin(false); err != nil {
		return nil, nil, err
	}
	at := 0
	add := func(n []byte) {
		if at >= from {
			list = append(list, n)
		}
		at++
	}
	for _, name := range slices.Sorted(maps.Keys(q.lanes)) { // always in the same order: who asks for more finds what follows
		l := q.lanes[name]
		if l.ready == 0 {
			continue
		}
		b := tx.Bucket(lanesBucket).Bucket([]byte(name))
		if b == nil {
			continue
		}
		for _, order := range l.back {
			if n := b.Get(number(order)); n != nil && at < to {
				add(n)
			}
		}
		c := b.Cursor()
		for k, n := c.Seek(number(l.position + 1)); k != nil && at < to; k, n = c.Next() {
			if !l.picked[parse(k)] {
				add(n)
			}
		}
	}
	c := tx.Bucket(delayedBucket).Cursor()
	for k, _ := c.First(); k != nil && at < to; k, _ = c.Next() {
		add(k[8:])
	}
	return tx, list, nil
}

// find locates a waiting message by its id. The lock is held.
func (q *Queue) find(tx *bolt.Tx, id string) (n uint64, at place, ok bool) {
	c := tx.Bucket(idsBucket).Cursor()
	prefix := append([]byte(id), 0)
	for k, _ := c.Seek(prefix); k != nil && bytes.HasPrefix(k, prefix) && len(k) == len(prefix)+8; k, _ = c.Next() {
		n = parse(k[len(prefix):])
		at, ok = placeOf(tx, n)
		if ok && (at.delayed != nil || q.waits(at)) {
			return n, at, true
		}
	}
	return 0, place{}, false
}

// waits reports whether a message of a lane was not handed out. The lock is held.
func (q *Queue) waits(at place) bool {
	l := q.lane(at.lane)
	return at.order > l.position && !l.picked[at.order] || slices.Contains(l.back, at.order)
}

// Find returns a waiting or delayed message by its id.
func (q *Queue) Find(_ context.Context, id string) (m queue.Message, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	err := q.db.View(func(tx *bolt.Tx) error {
		n, _, found := q.find(tx, id)
		if !found {
			return nil
		}
		var err error
		m, _, err = unseal(tx.Bucket(messagesBucket).Get(number(n)))
		ok = err == nil
		return err
	})
	return m, ok && err == nil
}

// Pick takes a waiting or delayed message out of its turn, whatever the demand. It returns ErrNotFound where there is none.
func (q *Queue) Pick(_ context.Context, id string) (queue.Delivery, error) {
	q.Source()
	// A delayed message is moved into its lane first: a delivery always belongs to a lane.
	var moved string
	err := q.commits.Update(func(tx *bolt.Tx) error {
		moved = ""
		q.mu.Lock()
		n, at, ok := q.find(tx, id)
		q.mu.Unlock()
		if !ok || at.delayed == nil {
			return nil
		}
		if err := tx.Bucket(delayedBucket).Delete(at.delayed); err != nil {
			return err
		}
		moved = at.lane
		return enqueue(tx, at.lane, n)
	})
	if err != nil {
		return nil, err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if moved != "" {
		q.lane(moved).ready++
	}
	var at place
	ok := false
	if err := q.db.View(func(tx *bolt.Tx) error { _, at, ok = q.find(tx, id); return nil }); err != nil {
		return nil, err
	}
	if !ok || q.source == nil {
		return nil, ErrNotFound
	}
	l := q.lane(at.lane)
	if i, back := slices.BinarySearch(l.back, at.order); back {
		l.back = slices.Delete(l.back, i, i+1)
	} else {
		l.picked[at.order] = true
	}
	return q.source.hand(l, at.lane, at.order)
}
