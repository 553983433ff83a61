package rabbit

import (
	"context"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/mayfly/mayfly/queue"
)

// source hands out deliveries of all lanes. See regulate.go for how it keeps to the demand.
type source struct {
	client *Client
	lanes  []*lane // the high bands of all pools, then the normal ones, then the low ones

	wake   chan struct{} // holds a token while a waiting Receive may find something
	kick   chan struct{} // holds a token while the regulator has something to do
	closed chan struct{}
	ended  chan struct{} // closed when run has returned
	once   sync.Once
	wg     sync.WaitGroup // goroutines of the lanes' channels

	mu       sync.Mutex
	demand   int
	grown    bool // since the regulator last looked
	received int  // handed out and not settled
	buffered int  // fetched and not handed out
	narrow   bool // some lane is narrower than the demand: the regulator wants to hear of room
	reg      regulator
}

func newSource(c *Client) *source {
	s := &source{
		client: c, wake: make(chan struct{}, 1), kick: make(chan struct{}, 1),
		closed: make(chan struct{}), ended: make(chan struct{}),
	}
	for _, band := range queue.Bands {
		for _, pool := range c.pools {
			s.lanes = append(s.lanes, &lane{pool: pool, band: band, queue: poolQueue(pool, band)})
		}
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

// take hands out the first of the buffered deliveries, higher bands first, unless the demand is met.
func (s *source) take() *delivery {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.received >= s.demand || s.buffered == 0 {
		return nil
	}
	for _, l := range s.lanes {
		if len(l.buffer) == 0 {
			continue
		}
		d := l.buffer[0]
		l.buffer[0] = nil
		l.buffer = l.buffer[1:]
		d.received = true
		s.buffered--
		s.received++
		s.stir()
		return d
	}
	return nil
}

// stir lets a waiting Receive look again where there is something for it. It is called with mu held.
func (s *source) stir() {
	if s.buffered > 0 && s.received < s.demand {
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
		for _, l := range s.lanes {
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
		msg: decode(raw, l.pool, l.band, ln.user)}
	worn := number(raw.Headers, deliveryCount) >= refreshAt
	s.mu.Lock()
	defer s.mu.Unlock()
	if l.line != ln {
		return // the channel is gone, and the broker delivers the message again
	}
	l.unsettled[d] = struct{}{}
	if worn {
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
	l := d.lane
	if _, ours := l.unsettled[d]; !ours {
		return false
	}
	delete(l.unsettled, d)
	if d.received {
		s.received--
	}
	s.stir()
	if s.narrow {
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
