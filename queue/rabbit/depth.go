package rabbit

import (
	"context"
	"fmt"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/mayfly/mayfly/queue"
)

// Depth counts the messages that wait in the queues of the client's pools and that no host has fetched, by
// "<pool>.<band>". A queue that does not exist is left out. It waits for a connection for as long as ctx lives.
func (c *Client) Depth(ctx context.Context) (map[string]int, error) {
	s, err := c.receive.session(ctx)
	if err != nil {
		return nil, err
	}
	depth := make(map[string]int, len(c.pools)*len(queue.Bands))
	var ch *amqp.Channel
	defer func() {
		if ch != nil {
			_ = ch.Close()
		}
	}()
	for _, pool := range c.pools {
		for _, band := range queue.Bands {
			if ch == nil {
				if ch, err = s.conn.Channel(); err != nil {
					return nil, fmt.Errorf("cannot ask for the depth of the queues: %w", err)
				}
			}
			q, err := ch.QueueDeclarePassive(poolQueue(pool, band), true, false, false, false, nil)
			switch {
			case err == nil:
				depth[pool+"."+string(band)] = q.Messages
			case isCode(err, amqp.NotFound):
				ch = nil // the broker has closed it over that
			default:
				return nil, fmt.Errorf("cannot ask for the depth of the queue %s: %w", poolQueue(pool, band), err)
			}
		}
	}
	return depth, nil
}
