package rabbit

import (
	"context"
	"encoding/hex"
	"maps"
	"sync"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/mayfly/mayfly/queue"
)

type fingerprint = [16]byte

// owned are the messages of tasks that have been running here for long. The broker routes questions about each of them to this host's control queue alone,
// by a binding, so that who gets such a message when it is delivered again need not ask a whole fleet.
type owned struct {
	changed chan struct{} // holds a token where the broker does not know all

	mu   sync.Mutex
	here map[fingerprint]bool
}

// Own implements [queue.Fleet].
func (c *Client) Own(message [16]byte, owns bool) {
	o := &c.owned
	o.mu.Lock()
	defer o.mu.Unlock()
	if owns {
		o.here[message] = true
	} else {
		delete(o.here, message)
	}
	signal(o.changed)
}

// bind has the broker know what bound does not hold yet, and forget what is not owned any more. The broker's answers to bindings are not waited for: a
// manager that was started again may own thousands at once, and is to hear the others meanwhile; where it refuses one, it closes the channel.
func (o *owned) bind(ch *amqp.Channel, queue string, bound map[fingerprint]bool) error {
	o.mu.Lock()
	here := maps.Clone(o.here)
	o.mu.Unlock()
	for message := range here {
		if bound[message] {
			continue
		}
		if err := ch.QueueBind(queue, ownerKey(message[:]), controlExchange, true, nil); err != nil {
			return err
		}
		bound[message] = true
	}
	for message := range bound {
		if here[message] {
			continue
		}
		if err := ch.QueueUnbind(queue, ownerKey(message[:]), controlExchange, nil); err != nil {
			return err
		}
		delete(bound, message)
	}
	return nil
}

// askOwner puts a question to the host that owns its message.
func (c *Client) askOwner(ctx context.Context, q queue.Question) error {
	msg, err := control(questionType, q)
	if err != nil {
		return err
	}
	msg.Headers = amqp.Table{}
	return c.publish.publish(ctx, nil, &publication{exchange: controlExchange, key: ownerKey(q.Fingerprint), many: true, msg: msg,
		make: func(*session) error { return queue.ErrNoHost }})
}

func ownerKey(message []byte) string { return ownerPrefix + hex.EncodeToString(message) }
