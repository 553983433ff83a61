package rabbit

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/mayfly/mayfly/queue"
)

// A cancellation goes into a stream, which all hosts read: as it is written, and from when they were away. What is read by both ways does no harm. It does
// not go to the hosts' control queues: one that is gone with its node of the broker would have the broker refuse it (see [ear]).
const (
	// cancelAge is how long cancellations are kept: as long as hosts remember them.
	cancelAge = 24 * time.Hour
	// cancelMargin is how much earlier than the last one that it has read a host reads on: clocks differ.
	cancelMargin = 5 * time.Minute
	// cancelRetry is the time between two tries to read a stream that is not there, or may not be read.
	cancelRetry = 30 * time.Second
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
		exchange: controlExchange, key: cancelKey, make: c.topology.cancelQueue,
		msg: amqp.Publishing{ContentType: jsonType, DeliveryMode: amqp.Persistent, Timestamp: what.At, Headers: amqp.Table{}, Body: body},
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

// stream is what a host reads of cancellations: those that are made now, and those that were made while it was away. The channels are closed together.
type stream struct {
	ch         *amqp.Channel // nil where it cannot be read
	live, kept <-chan amqp.Delivery
	again      <-chan time.Time // when to try again
}

// readCancels opens the stream, or says why it cannot be read.
func (c *Client) readCancels(s *session) stream {
	var r stream
	ch, err := s.conn.Channel()
	if err == nil {
		r.ch = ch
		err = ch.Qos(100, 0, false) // a stream is not read without
	}
	read := func(from any) (deliveries <-chan amqp.Delivery) {
		if err == nil {
			deliveries, err = ch.Consume(cancelStream, "", false, false, false, false, amqp.Table{"x-stream-offset": from})
		}
		return deliveries
	}
	since := time.Now().Add(-cancelAge)
	if from := c.hearing.read.Add(-cancelMargin); from.After(since) {
		since = from
	}
	r.live, r.kept = read("next"), read(since)
	if err == nil {
		c.hearing.deaf = ""
		return r
	}
	if r.ch != nil {
		_ = r.ch.Close()
	}
	if !s.conn.IsClosed() && c.hearing.deaf != err.Error() {
		c.hearing.deaf = err.Error()
		c.log.Error("could not listen for cancellations, trying again", keyQueue, cancelStream, keyErr, err)
	}
	return stream{again: time.After(cancelRetry)}
}

// heard notes of when a cancellation was that was read in its turn: all before it were read, too. How long this host was away it may not know itself.
func (h *hearing) heard(at time.Time) {
	if now := time.Now(); at.After(now) {
		at = now
	}
	if at.After(h.read) {
		h.read = at
	}
}

func (r *stream) close() {
	if r.ch != nil {
		_ = r.ch.Close()
	}
}
