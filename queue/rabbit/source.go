package rabbit

import (
	"context"
	"slices"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/mayfly/mayfly/queue"
)

// source hands out deliveries of all lanes. See regulate.go for how it keeps to the demand.
type source struct {
	client *Client
	lanes  []*lane   // what is handed over, if that is taken; the high bands of all pools, then the normal ones, then the low ones
	bands  [][]*lane // the same by band

	wake   chan struct{} // holds a token while a waiting Receive may find something
	kick   chan struct{} // holds a token while the regulator has something to do
	closed chan struct{}
	ended  chan struct{} // closed when run has returned
	once   sync.Once
	wg     sync.WaitGroup // goroutines of the lanes' channels

	mu       sync.Mutex
	demand   int
	grown    bool // since the regulator last looked
	held     int  // all unsettled deliveries
	received int  // handed out and not settled, but for those beyond the demand
	buffered int  // fetched and not handed out
	narrow   bool // some lane is narrower than the demand, or fetches nothing: the regulator wants to hear of room
	reg      regulator
}

func newSource(c *Client) *source {
	s := &source{
		client: c, wake: make(chan struct{}, 1), kick: make(chan struct{}, 1),
		closed: make(chan struct{}), ended: make(chan struct{}),
	}
	for _, band := range queue.Bands {
		var lanes []*lane
		for _, pool := range c.pools {
			lanes = append(lanes, &lane{pool: pool, band: band, queue: poolQueue(pool, band),
				make: func(sess *session) error { return c.topology.pool(sess, pool) }})
		}
		s.lanes, s.bands = append(s.lanes, lanes...), append(s.bands, lanes)
	}
	return s
}

// Receive waits for the next delivery; see [queue.Source].
func (s *source) Receive(ctx context.Context) (queue.Delivery, error) {
	for {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if d := s.take(); d != nil {
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

// take hands out the first of the buffered deliveries, unless the demand is met: of a band that was passed too often, whatever the
// demand, or else of the highest band, and of the pool in it that has got the least.
func (s *source) take() *delivery {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.demand == 0 || s.buffered == 0 {
		return nil
	}
	var l *lane
	for _, other := range s.lanes {
		switch {
		case len(other.buffer) == 0:
		case other.due():
			return s.hand(other)
		case l == nil || other.band == l.band && other.received < l.received:
			l = other
		}
	}
	if l == nil || s.received >= s.demand {
		return nil
	}
	return s.hand(l)
}

// hand hands out a lane's next delivery. It is called with mu held.
func (s *source) hand(l *lane) *delivery {
	d := l.buffer[0]
	l.buffer[0] = nil
	l.buffer = l.buffer[1:]
	s.buffered--
	d.handed = true
	if d.received = s.received < s.demand; d.received { // else it is beyond the demand
		l.received++
		s.received++
	}
	lower := false
	for _, lanes := range s.bands {
		for _, other := range lanes {
			switch {
			case lower:
				if other.passed++; other.passed == queue.PassMax {
					signal(s.kick) // it may fetch now
				}
			case other.band == l.band && other.due():
				signal(s.kick) // no more
				fallthrough
			case other.band == l.band:
				other.passed = 0
			}
		}
		lower = lower || lanes[0].band == l.band
	}
	s.stir()
	return d
}

// stir lets a waiting Receive look again where there is something for it. It is called with mu held.
func (s *source) stir() {
	if s.buffered > 0 && (s.received < s.demand || slices.ContainsFunc(s.lanes, func(l *lane) bool { return len(l.buffer) > 0 && l.due() })) {
		signal(s.wake)
	}
}

// Demand bounds the unsettled deliveries; see [queue.Source].
func (s *source) Demand(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n = min(max(n, 0), maxDemand)
	if n == s.demand {
		return
	}
	s.grown = s.grown || n > s.demand
	s.demand = n
	s.stir()
	signal(s.kick)
}

// Close ends all deliveries; see [queue.Source].
func (s *source) Close() error {
	s.once.Do(func() { close(s.closed) })
	<-s.ended
	return nil
}

// run serves one connection after the other until the source is closed.
func (s *source) run(ctx context.Context) {
	defer close(s.ended)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		select {
		case <-s.closed:
			cancel()
		case <-ctx.Done():
		}
	}()
	for {
		sess, err := s.client.receive.session(ctx)
		if err != nil {
			break
		}
		s.serve(ctx, sess)
	}
	s.once.Do(func() { close(s.closed) })
	<-watched
}

// serve keeps the lanes of one connection until it ends.
func (s *source) serve(ctx context.Context, sess *session) {
	defer s.wg.Wait()
	defer func() {
		s.mu.Lock()
		lanes := slices.Clone(s.lanes)
		s.mu.Unlock()
		for _, l := range lanes {
			s.shut(l)
		}
	}()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-sess.done:
			return
		case <-s.kick:
		case <-timer.C:
		}
		next := s.regulate(ctx, sess, time.Now())
		if next > 0 {
			timer.Reset(next)
		} else {
			timer.Stop()
		}
	}
}

// arrived takes a delivery from a lane's channel.
func (s *source) arrived(l *lane, ln *line, raw amqp.Delivery) {
	d := &delivery{source: s, lane: l, line: ln, raw: raw, lost: make(chan struct{}),
		msg: l.decode(raw, ln.user)}
	if d.msg.Redelivered && d.msg.Unbegun(s.client.given.turns(d.msg.Fingerprint())) {
		d.msg.Redelivered = false // nobody but us had it
	}
	worn := number(raw.Headers, deliveryCount) >= refreshAt
	s.mu.Lock()
	defer s.mu.Unlock()
	if ln.gone {
		return // the broker delivers the message again
	}
	if len(ln.unsettled) == 0 {
		ln.since = time.Now()
		signal(s.kick) // to see how old it becomes
	}
	ln.unsettled[d] = struct{}{}
	if s.held++; s.held >= s.demand {
		s.reg.room = false // what there was has been filled
	}
	if worn {
		d.handed = true // to a copy
		s.wg.Go(func() { s.refresh(d) })
		return
	}
	l.buffer = append(l.buffer, d)
	s.buffered++
	s.stir()
	if s.received+s.buffered > s.demand && !s.reg.over {
		signal(s.kick)
	}
}

// settled ends the duty of a delivery, and reports false where it was lost.
func (s *source) settled(d *delivery) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	ln := d.line
	if _, ours := ln.unsettled[d]; !ours {
		return false
	}
	delete(ln.unsettled, d)
	s.held--
	if d.received {
		s.received--
		d.lane.received--
	}
	s.stir()
	if s.narrow || ln.prefetch == 0 && len(ln.unsettled) == 0 {
		signal(s.kick)
	}
	return true
}

// signal puts a token into a channel that holds one.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
