package rabbit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/mayfly/mayfly/queue"
)

// errUnheard says that a wait for a result ended with its connection.
var errUnheard = errors.New("cannot wait for the result any longer: the connection to RabbitMQ ended, and the result may have been " +
	"published meanwhile; ask the host that runs the task")

// AwaitResult listens for the result of a task. It returns once the broker would hand over the result, so that a task
// published afterwards cannot be missed. wait returns the result, ctx's error, or that the connection was lost; it must
// be called, once, or ctx of AwaitResult must end: either frees the listening.
func (c *Client) AwaitResult(ctx context.Context, pool, id string) (wait func(context.Context) (queue.Result, error), err error) {
	s, err := c.receive.session(ctx)
	if err != nil {
		return nil, err
	}
	ch, err := s.conn.Channel()
	if err != nil {
		return nil, fmt.Errorf("cannot listen for the result of task %s: %w", id, err)
	}
	messages, err := listenFor(ch, short(pool+"."+id))
	if err != nil {
		_ = ch.Close()
		return nil, fmt.Errorf("cannot listen for the result of task %s: %w", id, err)
	}
	free := context.AfterFunc(ctx, func() { _ = ch.Close() })
	return func(ctx context.Context) (queue.Result, error) {
		defer func() {
			free()
			_ = ch.Close()
		}()
		for {
			select {
			case <-ctx.Done():
				return queue.Result{}, ctx.Err()
			case m, ok := <-messages:
				if !ok {
					return queue.Result{}, errUnheard
				}
				var r queue.Result
				if err := json.Unmarshal(m.Body, &r); err != nil {
					return queue.Result{}, fmt.Errorf("cannot read the result of task %s: %w", id, err)
				}
				if r.ID == id {
					return r, nil
				}
			}
		}
	}, nil
}

// listenFor consumes what is published to the results' exchange under a key, by a queue that ends with its consumer.
func listenFor(ch *amqp.Channel, key string) (<-chan amqp.Delivery, error) {
	q, err := ch.QueueDeclare("", false, true, true, false, nil)
	if err != nil {
		return nil, err
	}
	if err := ch.QueueBind(q.Name, key, resultsExchange, false, nil); err != nil {
		return nil, err
	}
	return ch.Consume(q.Name, "", true, true, false, false, nil)
}
