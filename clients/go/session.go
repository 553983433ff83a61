package mayfly

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

const (
	// inFlight bounds the messages that are published at once, each on a channel of its own.
	inFlight = 64
	// fetched bounds the results that the broker sends ahead.
	fetched = 256
)

var (
	// errUnknown says that the connection ended before the confirm came: the message may be stored or not.
	errUnknown = errors.New("the connection ended before RabbitMQ confirmed the message")
	// errRefused says that the broker did not take the message.
	errRefused = errors.New("RabbitMQ did not take it: its queue is full, or the broker fails")
	// errUnroutable says that no queue took the message.
	errUnroutable = errors.New("no queue takes it")
)

// queue is where a client's results go.
type queue struct {
	name   string
	expiry time.Duration
}

// session is one connection. It is never repaired: with its first fault it ends, and the next one takes its place.
type session struct {
	conn    *amqp.Connection
	raw     net.Conn // what conn runs on
	sub     *amqp.Channel
	results <-chan amqp.Delivery // closed with the connection, or when the queue is gone
	faults  chan *amqp.Error
	losses  int           // the client's, when the session was made
	gone    chan struct{} // closed when it has ended
	slots   chan struct{} // holds a token for each message in flight

	wg      sync.WaitGroup
	mu      sync.Mutex
	idle    []*lane
	closing bool
	free    chan struct{} // closed while the broker takes publications
	alarm   string        // why it does not; empty while it does
}

// lane is a channel in confirm mode with at most one message in flight, so that whatever the broker says is about that one.
type lane struct {
	ch      *amqp.Channel
	returns chan amqp.Return
	faults  chan *amqp.Error
}

// open makes a connection and consumes the client's queue. Where the client had one before, renewed says that it was gone.
func (c *Client) open(ctx context.Context, had bool) (s *session, renewed bool, err error) {
	conn, raw, err := c.dialer.dial(ctx)
	if err != nil {
		return nil, false, err
	}
	s = &session{conn: conn, raw: raw, gone: make(chan struct{}), slots: make(chan struct{}, inFlight), free: make(chan struct{})}
	close(s.free)
	s.faults = conn.NotifyClose(make(chan *amqp.Error, 1))
	alarms := conn.NotifyBlocked(make(chan amqp.Blocking, 8))
	s.wg.Go(func() { s.watch(alarms) })
	stop := context.AfterFunc(ctx, func() { _ = raw.Close() })
	renewed, err = s.consume(c.queue, had)
	if !stop() || err != nil {
		s.close()
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		err = fmt.Errorf("cannot receive results from RabbitMQ at %s: %w", c.dialer.addr(), err)
		c.dialer.next()
		return nil, false, err
	}
	return s, renewed, nil
}

// consume makes the queue unless it is there, and begins to receive from it.
func (s *session) consume(q queue, had bool) (renewed bool, err error) {
	there := false
	if had {
		ch, err := s.conn.Channel()
		if err != nil {
			return false, err
		}
		_, err = ch.QueueDeclarePassive(q.name, true, false, false, false, nil)
		if fault := (*amqp.Error)(nil); err != nil && (!errors.As(err, &fault) || fault.Code != amqp.NotFound) {
			return false, err
		}
		_ = ch.Close() // the broker closes it where it finds nothing
		there = err == nil
	}
	if s.sub, err = s.conn.Channel(); err != nil {
		return false, err
	}
	if !there { // else it is not declared: that would hide its end between the look and now
		args := amqp.Table{"x-queue-type": "quorum", "x-expires": q.expiry.Milliseconds()}
		if _, err := s.sub.QueueDeclare(q.name, true, false, false, false, args); err != nil {
			return false, err
		}
	}
	if err := s.sub.Qos(fetched, 0, false); err != nil {
		return false, err
	}
	s.results, err = s.sub.Consume(q.name, "", false, false, false, false, nil)
	return had && !there, err
}

// watch follows whether the broker takes publications, until the connection ends.
func (s *session) watch(alarms <-chan amqp.Blocking) {
	for b := range alarms {
		s.mu.Lock()
		was := s.alarm != ""
		switch {
		case b.Active && !was:
			s.free = make(chan struct{})
		case !b.Active && was:
			close(s.free)
		}
		s.alarm = ""
		if b.Active {
			s.alarm = "RabbitMQ blocks publishing: " + b.Reason
		}
		s.mu.Unlock()
	}
}

// blocked returns why the broker takes no publications, or nil.
func (s *session) blocked() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.alarm == "" {
		return nil
	}
	return errors.New(s.alarm)
}

// publish publishes a message and waits for its confirm, until ctx ends. A write cannot be interrupted: it is left alone then.
func (s *session) publish(ctx context.Context, exchange, key string, m amqp.Publishing) error {
	s.mu.Lock()
	free := s.free
	s.mu.Unlock()
	select {
	case <-free:
	case <-s.gone:
		return errUnknown
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case s.slots <- struct{}{}:
	case <-s.gone:
		return errUnknown
	case <-ctx.Done():
		return ctx.Err()
	}
	out := make(chan error, 1)
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		return errUnknown
	}
	s.wg.Go(func() {
		defer func() { <-s.slots }()
		out <- s.send(exchange, key, m)
	})
	s.mu.Unlock()
	select {
	case err := <-out:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// send publishes a message on a lane and waits for its confirm.
func (s *session) send(exchange, key string, m amqp.Publishing) error {
	l, err := s.lane()
	if err != nil {
		return s.fail()
	}
	confirm, err := l.ch.PublishWithDeferredConfirm(exchange, key, true, false, m)
	if err != nil {
		return s.fail()
	}
	<-confirm.Done() // the end of the channel is one
	if confirm.Acked() {
		err = nil
		select {
		case _, returned := <-l.returns: // the broker returns a message before it confirms it
			if returned { // else the channel has closed since
				err = errUnroutable
			}
		default:
		}
		s.mu.Lock()
		s.idle = append(s.idle, l)
		s.mu.Unlock()
		return err
	}
	if !l.ch.IsClosed() {
		_ = l.ch.Close()
		return errRefused
	}
	select {
	case fault := <-l.faults:
		switch {
		case fault == nil:
		case fault.Code == amqp.NotFound:
			return errUnroutable // there is no such exchange: no host has ever made it
		case fault.Code == amqp.AccessRefused, fault.Code == amqp.PreconditionFailed:
			return fmt.Errorf("RabbitMQ refused it: %s", fault.Reason)
		}
	default:
	}
	return s.fail()
}

// lane returns a channel that nobody uses.
func (s *session) lane() (*lane, error) {
	s.mu.Lock()
	if n := len(s.idle); n > 0 {
		l := s.idle[n-1]
		s.idle = s.idle[:n-1]
		s.mu.Unlock()
		return l, nil
	}
	s.mu.Unlock()
	ch, err := s.conn.Channel()
	if err != nil {
		return nil, err
	}
	l := &lane{ch: ch, returns: ch.NotifyReturn(make(chan amqp.Return, 1)), faults: ch.NotifyClose(make(chan *amqp.Error, 1))}
	return l, ch.Confirm(false)
}

// fail ends the connection after a fault that it may not have noticed. A broker that blocks publishing does not answer, and
// with its heartbeats lifts every deadline that the library sets: so in the end the ground is taken away.
func (s *session) fail() error {
	impatience := time.AfterFunc(closeLimit, func() { _ = s.raw.Close() })
	defer impatience.Stop()
	_ = s.conn.Close()
	return errUnknown
}

// cause returns why no more results come.
func (s *session) cause() error {
	select {
	case fault := <-s.faults:
		if fault != nil {
			return fault
		}
	default:
	}
	return errors.New("RabbitMQ ended the consumer of the results, or the connection")
}

// remove removes the client's queue. It does not wait for a broker that does not answer.
func (s *session) remove(q queue) {
	impatience := time.AfterFunc(closeLimit, func() { _ = s.raw.Close() })
	defer impatience.Stop()
	_, _ = s.sub.QueueDelete(q.name, false, false, false) // else it expires
}

// close ends the connection. It returns when nothing of it runs any more.
func (s *session) close() {
	s.mu.Lock()
	s.closing = true
	s.mu.Unlock()
	_ = s.fail()
	s.wg.Wait()
	close(s.gone)
}
