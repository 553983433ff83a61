package local

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/mayfly/mayfly/queue"
)

// source is a queue.Source. The queue's lock guards it.
type source struct {
	q      *Queue
	wake   chan struct{} // holds a token while a waiting Receive may find something
	closed chan struct{}
	once   sync.Once

	demand int
	passed map[queue.Band]int // how many of higher bands were handed out since one of this was, though it had some
	out    map[*delivery]bool // handed out and not settled
	turn   uint64             // counts what was handed out
}

// Source opens the queue's source. There is one at a time: a source that is open is returned again.
func (q *Queue) Source() queue.Source {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.source == nil {
		q.source = &source{q: q, wake: make(chan struct{}, 1), closed: make(chan struct{}), out: map[*delivery]bool{}, passed: map[queue.Band]int{}}
	}
	return q.source
}

// Receive implements queue.Source.
func (s *source) Receive(ctx context.Context) (queue.Delivery, error) {
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		d, err := s.take()
		if err != nil {
			return nil, err
		}
		if d != nil {
			return d, nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-s.closed:
			return nil, queue.ErrClosed
		case <-s.wake:
		}
	}
}

// take hands out the first message there is, or nil.
func (s *source) take() (*delivery, error) {
	q := s.q
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.source != s {
		return nil, queue.ErrClosed
	}
	if len(s.out) >= s.demand {
		return nil, nil
	}
	bands := slices.Clone(queue.Bands)
	slices.SortStableFunc(bands, func(a, b queue.Band) int { // those first that were passed too often
		return cmp.Compare(s.passed[b]/queue.PassMax, s.passed[a]/queue.PassMax)
	})
	for _, band := range bands {
		d, err := s.takeFrom(band)
		if err != nil {
			return nil, fmt.Errorf("cannot read the embedded queue: %w", err)
		}
		if d != nil {
			s.pass(band)
			return d, nil
		}
		s.passed[band] = 0 // it has none
	}
	return nil, nil
}

// takeFrom hands out the first message of a band, or nil: of the pool in it that has got the least, so that a long queue of one does not starve the others. The queue's lock is held.
func (s *source) takeFrom(band queue.Band) (*delivery, error) {
	var names []string
	for _, pool := range s.q.options.Pools {
		if name := laneName(pool, band); s.q.lanes[name] != nil && s.q.lanes[name].ready > 0 {
			names = append(names, name)
		}
	}
	slices.SortStableFunc(names, func(a, b string) int {
		x, y := s.q.lanes[a], s.q.lanes[b]
		return cmp.Or(cmp.Compare(x.out, y.out), cmp.Compare(x.turn, y.turn))
	})
	for _, name := range names {
		l := s.q.lanes[name]
		order, err := s.q.next(l, name)
		if err != nil {
			return nil, err
		}
		if order != 0 {
			return s.hand(l, name, order)
		}
	}
	return nil, nil
}

// pass notes that a message of a band was handed out before those of lower ones.
func (s *source) pass(band queue.Band) {
	s.passed[band] = 0
	for _, lower := range queue.Bands[slices.Index(queue.Bands, band)+1:] {
		s.passed[lower]++
	}
}

// next finds the order of the lane's next message and moves the lane's position; 0 where there is none. The lock is held.
func (q *Queue) next(l *lane, name string) (order uint64, err error) {
	if len(l.back) > 0 {
		order = l.back[0]
		l.back = slices.Delete(l.back, 0, 1)
		return order, nil
	}
	err = q.db.View(func(tx *bolt.Tx) error {
		b := tx.Bucket(lanesBucket).Bucket([]byte(name))
		if b == nil {
			return nil
		}
		c := b.Cursor()
		for k, _ := c.Seek(number(l.position + 1)); k != nil; k, _ = c.Next() {
			l.position = parse(k)
			if l.picked[l.position] {
				delete(l.picked, l.position)
				continue
			}
			order = l.position
			return nil
		}
		return nil
	})
	return order, err
}

// hand makes a delivery of a message in a lane. The lock is held.
func (s *source) hand(l *lane, name string, order uint64) (*delivery, error) {
	d := &delivery{source: s, lane: name, order: order, lost: make(chan struct{})}
	err := s.q.db.View(func(tx *bolt.Tx) error {
		n := tx.Bucket(lanesBucket).Bucket([]byte(name)).Get(number(order))
		if n == nil {
			return errors.New("a message is gone")
		}
		d.number = parse(n)
		var err error
		d.message, _, err = unseal(tx.Bucket(messagesBucket).Get(n))
		return err
	})
	if err != nil {
		return nil, err
	}
	d.message.Redelivered = order <= l.suspect
	l.ready--
	l.out++
	s.turn++
	l.turn = s.turn
	s.out[d] = true
	return d, nil
}

// Demand implements queue.Source.
func (s *source) Demand(n int) {
	s.q.mu.Lock()
	defer s.q.mu.Unlock()
	s.demand = n
	s.q.stir()
}

// Close implements queue.Source.
func (s *source) Close() error {
	s.once.Do(func() {
		close(s.closed)
		s.q.mu.Lock()
		defer s.q.mu.Unlock()
		s.giveUp()
		s.q.source = nil
	})
	return nil
}

// Break loses all deliveries that are out, as a broken connection would: they are delivered again. It is for tests.
func (q *Queue) Break() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.source != nil {
		q.source.giveUp()
		q.stir()
	}
}

// giveUp puts back all that is out. The lock is held.
func (s *source) giveUp() {
	for d := range s.out {
		close(d.lost)
		s.putBack(d)
	}
	clear(s.out)
}

// putBack lets a message that was handed out be handed out again. The lock is held.
func (s *source) putBack(d *delivery) {
	l := s.q.lane(d.lane)
	l.out--
	i, _ := slices.BinarySearch(l.back, d.order)
	l.back = slices.Insert(l.back, i, d.order)
	l.ready++
	l.suspect = max(l.suspect, d.order)
}

// delivery is a queue.Delivery.
type delivery struct {
	source  *source
	lane    string
	order   uint64
	number  uint64
	message queue.Message
	lost    chan struct{}
}

// Message implements queue.Delivery.
func (d *delivery) Message() queue.Message { return d.message }

// Lost implements queue.Delivery.
func (d *delivery) Lost() <-chan struct{} { return d.lost }

// Settle implements queue.Delivery.
func (d *delivery) Settle(ctx context.Context, v queue.Verdict, confirmed func() error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if !d.ours() {
		return queue.ErrLost
	}
	if confirmed == nil {
		confirmed = func() error { return nil }
	}
	switch v.Action {
	case queue.Return:
		q := d.source.q
		q.mu.Lock()
		defer q.mu.Unlock()
		if !d.source.out[d] {
			return queue.ErrLost
		}
		delete(d.source.out, d)
		d.source.putBack(d)
		q.stir()
		return nil
	case queue.Retry:
		return d.retry(v, confirmed)
	case queue.Bury:
		if err := d.bury(v); err != nil {
			return err
		}
	}
	if v.Result != nil && d.source.q.options.OnResult != nil {
		d.source.q.options.OnResult(d.message, *v.Result)
	}
	if err := confirmed(); err != nil {
		return err
	}
	if !d.ours() {
		return queue.ErrLost
	}
	if err := d.change(func(tx *bolt.Tx) error { return nil }); err != nil {
		return err
	}
	d.settled()
	return nil
}

func (d *delivery) ours() bool {
	d.source.q.mu.Lock()
	defer d.source.q.mu.Unlock()
	return d.source.out[d]
}

func (d *delivery) settled() {
	q := d.source.q
	q.mu.Lock()
	defer q.mu.Unlock()
	if d.source.out[d] {
		q.lane(d.lane).out--
	}
	delete(d.source.out, d)
	delete(q.lane(d.lane).picked, d.order) // it is not in the lane any more
	q.stir()
}

// change removes the message together with another change.
func (d *delivery) change(also func(tx *bolt.Tx) error) error {
	err := d.source.q.commits.Update(func(tx *bolt.Tx) error {
		if _, err := remove(tx, d.number); err != nil {
			return err
		}
		return also(tx)
	})
	if err != nil {
		return fmt.Errorf("cannot settle a message: %w", err)
	}
	return nil
}

// retry replaces the message by its copy in one change: there is no moment with both or none.
func (d *delivery) retry(v queue.Verdict, confirmed func() error) error {
	m := d.message
	m.History = v.History
	if m.MessageID == "" {
		m.MessageID = v.TaskID
	}
	var ready time.Time
	if v.Delay > 0 {
		ready = time.Now().Add(v.Delay)
	}
	if err := d.change(func(tx *bolt.Tx) error { _, err := store(tx, m, ready); return err }); err != nil {
		return err
	}
	d.settled()
	_ = confirmed() // the copy tells what it would
	q := d.source.q
	if ready.IsZero() {
		q.arrived(laneName(m.Pool, m.Band))
		return nil
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.schedule()
	return nil
}

// bury stores the dead letter. To do it again stores the same one.
func (d *delivery) bury(v queue.Verdict) error {
	m := d.message
	m.History = v.History
	if m.MessageID == "" {
		m.MessageID = v.TaskID
	}
	end := &burial{Reason: v.Reason, BuriedAt: time.Now()}
	if r := v.Result; r != nil {
		end.TaskID, end.Host, end.Cause = r.ID, r.Host, r.Cause
	}
	value, err := seal(m, end)
	if err != nil {
		return err
	}
	err = d.source.q.commits.Update(func(tx *bolt.Tx) error { return tx.Bucket(deadBucket).Put(number(d.number), value) })
	if err != nil {
		return fmt.Errorf("cannot store a dead letter: %w", err)
	}
	return nil
}
