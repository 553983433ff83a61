package rabbit

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/mayfly/mayfly/internal/pause"
	"github.com/mayfly/mayfly/queue"
)

// The waits between two tries, jittered.
const (
	backoffMin = 100 * time.Millisecond
	backoffMax = 10 * time.Second
	// awayMax is the longest between two tries to connect where nobody is there, which costs no broker anything: hosts that come back long after their broker, and at very different
	// times, keep those waiting that want to know from all of them what they have begun.
	awayMax = 2 * time.Second
)

// answerLimit is how long a broker may leave a request or a message without an answer before this side goes to another of its nodes, or makes a new
// connection. A node that sees no majority of its cluster goes on with its clients from RabbitMQ 4.3 on, and answers nothing; and some nodes of
// versions before lose what they owe to a channel when a queue gets another leader. It is longer than a disk takes that is busy.
const answerLimit = 30 * time.Second

// backoff is a growing wait.
type backoff time.Duration

// next returns the next wait: twice the last one, between its half and its whole so that hosts spread out.
func (b *backoff) next() time.Duration { return b.upTo(backoffMax) }

// upTo is next with another longest wait.
func (b *backoff) upTo(longest time.Duration) time.Duration {
	*b = min(max(*b*2, backoff(backoffMin)), backoff(longest))
	return time.Duration(*b)/2 + rand.N(time.Duration(*b)/2)
}

// held makes the next wait shorter by as long as what was tried has held: it may be ours what ends it, and what ends at once is not to be tried again and again.
func (b *backoff) held(since time.Time) { *b = max(0, *b-backoff(time.Since(since))) }

// session is one connection, from its opening to its end.
type session struct {
	conn *amqp.Connection
	addr string
	user string // empty where the client does not know it
	done chan struct{}
	// fault is why this side has given the connection up; nil where it has not.
	fault atomic.Pointer[error]
}

// giveUp ends a connection that is open and does no good.
func (s *session) giveUp(cause error) {
	if s.fault.CompareAndSwap(nil, &cause) {
		_ = s.conn.CloseDeadline(time.Now().Add(closeLimit))
	}
}

// link keeps a connection to the broker: after each loss it makes a new one.
type link struct {
	role    string
	dialer  *dialer
	prepare func(context.Context, *session) error // runs on each new connection before anybody else
	report  func(role string, s *session, addr string, err error)

	mu   sync.Mutex
	cur  *session
	up   chan struct{} // closed while cur is set
	done bool
}

func newLink(role string, d *dialer) *link {
	return &link{role: role, dialer: d, up: make(chan struct{})}
}

// session returns the current connection, waiting for one where there is none.
func (l *link) session(ctx context.Context) (*session, error) {
	for {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		l.mu.Lock()
		s, up, done := l.cur, l.up, l.done
		l.mu.Unlock()
		if s != nil {
			return s, nil
		}
		if done {
			return nil, queue.ErrClosed
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-up:
		}
	}
}

// run keeps the connection until ctx ends. first is a connection already made, or nil.
func (l *link) run(ctx context.Context, first *session, addr string) {
	defer l.finish()
	var wait backoff
	for ctx.Err() == nil {
		s := first
		first = nil
		if s == nil {
			var err error
			if s, addr, err = l.connect(ctx); err != nil {
				if ctx.Err() == nil {
					l.report(l.role, nil, addr, err)
				}
				_ = pause.For(ctx, wait.upTo(longest(err)))
				continue
			}
		}
		began := time.Now()
		l.report(l.role, nil, addr, l.serve(ctx, s, addr))
		wait.held(began)
		_ = pause.For(ctx, wait.next())
	}
}

// longest is the longest wait after a connection that could not be made.
func longest(err error) time.Duration {
	if no := (refused{}); errors.As(err, &no) {
		return backoffMax
	}
	return awayMax
}

// connect makes one connection.
func (l *link) connect(ctx context.Context) (*session, string, error) {
	conn, e, err := l.dialer.dial(ctx, l.role)
	if err != nil {
		return nil, e.addr, err
	}
	return &session{conn: conn, addr: e.addr, user: e.user, done: make(chan struct{})}, e.addr, nil
}

// serve offers the connection until it ends, and returns why it ended; nil when ctx did.
func (l *link) serve(ctx context.Context, s *session, addr string) error {
	closed := s.conn.NotifyClose(make(chan *amqp.Error, 1))
	limit := time.AfterFunc(answerLimit, func() {
		l.dialer.avoid(addr)
		s.giveUp(fmt.Errorf("it did not answer for %s", answerLimit))
	})
	err := l.prepare(ctx, s)
	limit.Stop()
	if fault := s.fault.Load(); fault != nil {
		err = *fault
	}
	if err != nil {
		_ = s.conn.CloseDeadline(time.Now().Add(closeLimit))
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	l.mu.Lock()
	l.cur = s
	close(l.up)
	l.mu.Unlock()
	l.report(l.role, s, addr, nil)

	var cause error
	select {
	case <-ctx.Done():
	case fault, ok := <-closed:
		cause = errors.New("the connection was closed")
		if ok {
			cause = fault
		}
		if fault := s.fault.Load(); fault != nil {
			cause = *fault
		}
	}
	l.mu.Lock()
	l.cur = nil
	l.up = make(chan struct{})
	l.mu.Unlock()
	close(s.done)
	_ = s.conn.CloseDeadline(time.Now().Add(closeLimit))
	return cause
}

// finish lets those who wait for a connection know that there will be none.
func (l *link) finish() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.done = true
	close(l.up)
}
