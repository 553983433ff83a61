package rabbit

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/mayfly/mayfly/queue"
)

// A cancellation goes to all hosts that listen, and into a stream in which hosts that were away find it. It is heard by both ways: that the same is
// said twice does no harm, and a broker without streams still has one.
const (
	// cancelAge is how long cancellations are kept: as long as hosts remember them.
	cancelAge = 24 * time.Hour
	// cancelMargin is how much earlier than it left a host reads on: clocks differ.
	cancelMargin = 5 * time.Minute
	// labelMost is more than a label and its value can have, in bytes: what is cancelled is remembered.
	labelMost = 2 << 10
)

// Cancel asks all hosts to cancel a task, or all with a label; nil means that the broker has confirmed the request, not that any host knows
// of such a task.
func (c *Client) Cancel(ctx context.Context, what queue.Cancellation) error {
	body, err := json.Marshal(what)
	if err != nil {
		return fmt.Errorf("cannot encode a cancellation: %w", err)
	}
	return c.publish.publish(ctx, nil, &publication{
		exchange: controlExchange, key: cancelKey, many: true, keep: cancelStream,
		msg: amqp.Publishing{ContentType: jsonType, DeliveryMode: amqp.Persistent, Timestamp: what.At, Body: body},
	})
}

// Cancels gives what somebody wants cancelled, whether this host knows it or not. A reader that is slow holds up all control messages. The channel is
// never closed.
func (c *Client) Cancels() <-chan queue.Cancellation { return c.cancels }

// hearCancel hands on a cancellation: one that was made just now, or was kept.
func (c *Client) hearCancel(ctx context.Context, s *session, m *amqp.Delivery, kept bool) {
	var what queue.Cancellation
	if err := json.Unmarshal(m.Body, &what); err != nil || (what.ID == "") == (what.Label == "") || what.ID != "" && !queue.ValidID(what.ID) || len(what.Label)+len(what.Value) > labelMost {
		c.log.Warn("ignored a malformed cancellation", keyErr, err)
		return
	}
	now := time.Now()
	if what.At.IsZero() && !m.Timestamp.IsZero() {
		what.At = m.Timestamp.Add(time.Second - 1) // it has no fractions
	}
	if what.At.IsZero() && !kept || what.At.After(now) {
		what.At = now
	}
	hand(ctx, s, c.cancels, what)
}

// cancelQueue makes the stream of cancellations. A stream forgets by whole segments: they are small.
func (t *topology) cancelQueue(s *session) error {
	return t.queue(s, cancelStream, controlExchange, cancelArguments(), cancelKey)
}

func cancelArguments() amqp.Table {
	return amqp.Table{
		"x-queue-type":                    "stream",
		"x-max-age":                       "1D",
		"x-stream-max-segment-size-bytes": int64(1 << 20),
	}
}

// keptCancels reads what was cancelled while this host was away, and goes on until it is closed; nil where that cannot be.
func (c *Client) keptCancels(s *session) (kept <-chan amqp.Delivery, closed func()) {
	since := time.Now().Add(-cancelAge)
	if c.hearing.left.After(since) {
		since = c.hearing.left.Add(-cancelMargin)
	}
	ch, err := s.conn.Channel()
	if err == nil {
		err = ch.Qos(100, 0, false) // a stream is not read without
	}
	if err == nil {
		kept, err = ch.Consume(cancelStream, "", false, false, false, false, amqp.Table{"x-stream-offset": since})
	}
	if err != nil {
		if !s.conn.IsClosed() {
			c.log.Warn("cancellations that were made while this host was away not heard", keyQueue, cancelStream, keyErr, err)
		}
		kept = nil
	}
	return kept, func() {
		if ch != nil {
			_ = ch.Close()
		}
	}
}
