package rabbit

import (
	"context"
	"encoding/json"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/mayfly/mayfly/queue"
)

const (
	// eventsHeld is how many events may wait to be published; what is more is dropped.
	eventsHeld = 1024
	// unheard is how long none is published after one that nobody was bound for: so they cost next to nothing where nobody listens.
	unheard = 200 * time.Millisecond
	// forbidden is how long none is published after the broker has refused one.
	forbidden = time.Minute
)

// announcer publishes events: unconfirmed, not kept on a disk, and not at all while nobody listens or the broker is out of reach.
type announcer struct {
	events chan queue.Event
	// quiet is until when nothing is published, in nanoseconds since 1970.
	quiet atomic.Int64
}

func newAnnouncer() *announcer { return &announcer{events: make(chan queue.Event, eventsHeld)} }

// Announce tells those who listen at mayfly.events of a change, under the key "<pool>.<state>.<task id>". It does not wait, and may drop it.
func (c *Client) Announce(e queue.Event) {
	a := c.announcer
	if a.silent() {
		return
	}
	select {
	case a.events <- e:
	default:
	}
}

func (a *announcer) silent() bool { return time.Now().UnixNano() < a.quiet.Load() }

func (a *announcer) hush(d time.Duration) { a.quiet.Store(time.Now().Add(d).UnixNano()) }

// announce publishes events until ctx ends.
func (c *Client) announce(ctx context.Context) {
	a := c.announcer
	var on *outlet
	var ch *amqp.Channel
	for {
		var e queue.Event
		select {
		case <-ctx.Done():
			return
		case e = <-a.events:
		}
		o := c.publish.now()
		if o == nil || a.silent() { // blocked, or out of reach
			continue
		}
		if ch == nil || on != o || ch.IsClosed() {
			if ch != nil {
				_ = ch.Close() // the outlet before may have been of the same connection
			}
			var err error
			if ch, err = a.open(o.sess); err != nil {
				a.hush(unheard)
				continue
			}
			on = o
		}
		body, err := json.Marshal(e)
		if err != nil {
			continue // plain fields: cannot fail
		}
		// Mandatory: what nobody is bound for comes back, and says so.
		_ = ch.PublishWithContext(ctx, eventsExchange, short(e.Pool+"."+e.State+"."+e.ID), true, false, amqp.Publishing{
			ContentType: jsonType, DeliveryMode: amqp.Transient, MessageId: short(e.ID), Timestamp: e.At, Body: body})
	}
}

// open opens a channel for events.
func (a *announcer) open(s *session) (*amqp.Channel, error) {
	ch, err := s.conn.Channel()
	if err != nil {
		return nil, err
	}
	returns := ch.NotifyReturn(make(chan amqp.Return, 16))
	closed := ch.NotifyClose(make(chan *amqp.Error, 1))
	go func() { // until the channel closes, which its connection's end does
		for range returns {
			a.hush(unheard)
		}
		if fault := <-closed; fault != nil && (isCode(fault, amqp.AccessRefused) || isCode(fault, amqp.NotFound)) {
			a.hush(forbidden)
		}
	}()
	return ch, nil
}

// now returns the outlet, nil while there is none.
func (p *publisher) now() *outlet {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cur
}
