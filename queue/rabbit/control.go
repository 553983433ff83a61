package rabbit

import (
	"context"
	"encoding/json"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/mayfly/mayfly/internal/pause"
	"github.com/mayfly/mayfly/queue"
)

// Replies gives the results of tasks that were published with ReplyTo as their reply address. A reader that is slow holds up
// cancellations too. Results that come while the connection is lost are not seen. The channel is never closed.
func (c *Client) Replies() <-chan queue.Result { return c.replies }

// reply hands on a result.
func (c *Client) reply(ctx context.Context, s *session, m amqp.Delivery) {
	var r queue.Result
	if err := json.Unmarshal(m.Body, &r); err != nil || !queue.ValidID(r.ID) || r.Attempt < 0 || r.Attempt > attemptMost { // anybody may write to the queue
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
	complaint := ""
	var wait backoff
	for ctx.Err() == nil {
		s, err := c.receive.session(ctx)
		if err != nil {
			return
		}
		ear, err := c.openEar(s)
		if err == nil {
			complaint = ""
			began := time.Now()
			if err := c.source.wakeAgain(s); err != nil {
				c.log.Warn("tasks that were handed to this host not looked for", keyErr, err)
			}
			signal(c.joined)
			c.listen(ctx, ear)
			ear.close()
			wait.held(began)
		} else if !s.conn.IsClosed() && err.Error() != complaint {
			complaint = err.Error()
			c.log.Error("could not listen to other hosts, trying again", keyHost, c.host, keyErr, err)
		}
		_ = pause.For(ctx, wait.next())
	}
}

// listen hands on the control messages and the cancellations of one connection.
func (c *Client) listen(ctx context.Context, ear *ear) {
	s := ear.session
	cancels := c.readCancels(s)
	defer func() { cancels.close() }()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.done:
			return
		case <-ear.again:
			ear.retry()
		case <-c.owned.changed:
			if err := c.owned.bind(ear.ch, ear.name, ear.bound); err != nil {
				return // with the control queue, all is bound anew
			}
		case <-cancels.again:
			cancels = c.readCancels(s)
		case m, ok := <-cancels.live:
			if !ok {
				return // with the control queue, all is heard anew
			}
			c.hearCancel(ctx, s, &m, false)
			_ = m.Ack(false) // a stream counts by it what it may send
		case m, ok := <-cancels.kept:
			if !ok {
				return
			}
			c.hearCancel(ctx, s, &m, true)
			c.hearing.heard(m.Timestamp)
			_ = m.Ack(false)
		case m, ok := <-ear.messages:
			if !ok {
				return
			}
			c.hearControl(ctx, s, &m)
		case m, ok := <-ear.replies:
			if !ok {
				return
			}
			c.hearControl(ctx, s, &m)
		}
	}
}

// hearControl hands on one message of a control queue.
func (c *Client) hearControl(ctx context.Context, s *session, m *amqp.Delivery) {
	switch {
	case c.hearFleet(ctx, s, m):
	case m.Exchange == "": // sent to the queue by name: the reply to a task that was submitted here
		c.reply(ctx, s, *m)
	default:
		c.log.Warn("ignored a control message of no known type, or that no host may have sent", "type", m.Type, "key", m.RoutingKey)
	}
}
