package rabbit

import (
	"context"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// A node that is cut off from most of its cluster goes on with its clients from RabbitMQ 4.3 on: it sends heartbeats, and nothing else. A host on it
// would wait there while the others take its tasks for lost. So a client with several nodes to choose from has a small message confirmed now and then, which
// takes most nodes of a cluster; one that is not confirmed sends it on to the next node ([publisher.late]).
const (
	// pulseBusy is the time between two such messages while the host holds something: they are well within the two minutes after which the others are
	// given what it holds (net_ticktime, 60 s by default, and consumer_disconnected_timeout, 60 s).
	pulseBusy = heartbeat
	// pulseIdle is the same while it holds nothing, when it only takes no part.
	pulseIdle = 5 * time.Minute
)

// pulse sends those messages until ctx ends.
func (c *Client) pulse(ctx context.Context) {
	ticker := time.NewTicker(pulseBusy)
	defer ticker.Stop()
	last, lacking := time.Now(), false
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if (lacking || !c.source.holds()) && time.Since(last) < pulseIdle || !c.publish.open() {
			continue
		}
		last = time.Now()
		c.pulsing.Store(last.UnixNano())
		err := c.publish.publish(ctx, nil, &publication{exchange: controlExchange, key: pulseKey, make: c.topology.pulseQueue, msg: amqp.Publishing{Headers: amqp.Table{}}})
		c.pulsing.Store(0)
		lacking = err != nil // which was reported when the connection was made; somebody may make it
	}
}

// unconfirmed is since when the broker owes the confirm of a pulse, and has not said that it takes no messages; zero where it owes none.
func (c *Client) unconfirmed() time.Time {
	if sent := c.pulsing.Load(); sent != 0 && !c.publish.blocked.Load() {
		return time.Unix(0, sent)
	}
	return time.Time{}
}

// pulseQueue makes the queue that they go to, which keeps the last one.
func (t *topology) pulseQueue(s *session) error {
	return t.queue(s, pulseQueue, controlExchange, pulseArguments(), pulseKey)
}

func pulseArguments() amqp.Table {
	return amqp.Table{"x-max-length": int64(1), "x-overflow": "drop-head"}
}

// open says whether messages can be published now: the connection is there, and the broker is not short of something.
func (p *publisher) open() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cur != nil
}

// holds says whether there are unsettled deliveries.
func (s *source) holds() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.held > 0
}
