package rabbit

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/mayfly/mayfly/queue"
)

// nameTakenAfter is how long the control queue may be held by somebody else before that is taken for another manager of
// the same name rather than for our own last connection, which the broker has not yet given up: two missed heartbeats
// and a margin.
const nameTakenAfter = 3 * heartbeat

// cancellation is the body of a control message under the key "cancel".
type cancellation struct {
	Cancel string `json:"cancel"`
}

// Cancel asks all hosts to cancel the task; nil means that the broker has confirmed the request, not that any host knows
// the task.
func (c *Client) Cancel(ctx context.Context, id string) error {
	body, err := json.Marshal(cancellation{id})
	if err != nil {
		return fmt.Errorf("cannot encode the cancellation of task %s: %w", id, err)
	}
	return c.publish.publish(ctx, nil, &publication{
		exchange: controlExchange, key: cancelKey,
		msg: amqp.Publishing{ContentType: jsonType, Timestamp: time.Now(), Body: body},
	})
}

// Cancels gives the ids of the tasks that somebody wants cancelled, whether this host knows them or not. Requests made
// while the broker is out of reach are not seen, and a reader must keep up: beyond 64 waiting ids, later ones are dropped
// with a log line. The channel is never closed.
func (c *Client) Cancels() <-chan string { return c.cancels }

// ReplyTo is the address at which Replies listens; empty for a client that is no host.
func (c *Client) ReplyTo() string {
	if c.host == "" {
		return ""
	}
	return controlQueue(c.host)
}

// Replies gives the results of tasks that were published with ReplyTo as their reply address. A reader that is slow holds up
// cancellations too. Results that come while the connection is lost are not seen. The channel is never closed.
func (c *Client) Replies() <-chan queue.Result { return c.replies }

// reply hands on a result.
func (c *Client) reply(ctx context.Context, s *session, m amqp.Delivery) {
	var r queue.Result
	if err := json.Unmarshal(m.Body, &r); err != nil {
		c.log.Warn("ignored a malformed reply", keyErr, err)
		return
	}
	select {
	case c.replies <- r:
	case <-ctx.Done():
	case <-s.done:
	}
}

// hear receives control messages until ctx ends.
func (c *Client) hear(ctx context.Context) {
	var taken time.Time // since when the queue's name is taken
	warned, complaint := false, ""
	var wait backoff
	for ctx.Err() == nil {
		s, err := c.receive.session(ctx)
		if err != nil {
			return
		}
		var messages <-chan amqp.Delivery
		ch, err := s.conn.Channel()
		if err == nil {
			messages, err = c.controlQueue(ch)
		}
		if err == nil {
			taken, warned, complaint = time.Time{}, false, ""
			began := time.Now()
			c.listen(ctx, s, messages)
			_ = ch.Close()
			if time.Since(began) > backoffMax {
				wait = 0
			}
			_ = sleep(ctx, wait.next())
			continue
		}
		if ch != nil {
			_ = ch.Close()
		}
		if isCode(err, amqp.ResourceLocked) {
			if taken.IsZero() {
				taken = time.Now()
			}
			if !warned && time.Since(taken) >= nameTakenAfter {
				warned = true
				c.log.Error("another manager uses this host name: set MAYFLY_HOST to a name of its own", keyHost, c.host, keyErr, err)
			}
		} else if !s.conn.IsClosed() && err.Error() != complaint {
			complaint = err.Error()
			c.log.Error("could not listen for cancellations, trying again", keyHost, c.host, keyErr, err)
		}
		_ = sleep(ctx, wait.next())
	}
}

// controlQueue makes this host's own queue, which ends with the connection, and consumes it.
func (c *Client) controlQueue(ch *amqp.Channel) (<-chan amqp.Delivery, error) {
	name := controlQueue(c.host)
	if _, err := ch.QueueDeclare(name, false, true, true, false, nil); err != nil {
		return nil, err
	}
	if err := ch.QueueBind(name, cancelKey, controlExchange, false, nil); err != nil {
		return nil, err
	}
	return ch.Consume(name, "", true, true, false, false, nil)
}

// listen hands on the cancellations of one connection.
func (c *Client) listen(ctx context.Context, s *session, messages <-chan amqp.Delivery) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.done:
			return
		case m, ok := <-messages:
			if !ok {
				return
			}
			if m.Exchange == "" { // sent to this queue by name: the reply to a task that was submitted here
				c.reply(ctx, s, m)
				continue
			}
			var wanted cancellation
			if err := json.Unmarshal(m.Body, &wanted); err != nil || wanted.Cancel == "" {
				c.log.Warn("ignored a malformed cancellation", keyErr, err)
				continue
			}
			select {
			case c.cancels <- wanted.Cancel:
			default:
				c.log.Warn("dropped a cancellation: too many are waiting", keyTask, wanted.Cancel)
			}
		}
	}
}
