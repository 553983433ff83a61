package rabbit

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/mayfly/mayfly/queue"
)

var _ queue.Fleet = (*Client)(nil)

// askMax is the largest body that a question carries along, in bytes: every host of the pool gets it. A task that is larger is rare, and waits
// for its host.
const askMax = 256 << 10

// Ask implements [queue.Fleet].
func (c *Client) Ask(ctx context.Context, q queue.Question, host string) error {
	if q.Message != nil && len(q.Message.Body) > askMax {
		return fmt.Errorf("cannot ask other hosts about a task of %d bytes: at most %d are sent", len(q.Message.Body), askMax)
	}
	q.From = c.host
	switch {
	case host != "":
		return c.say(ctx, questionType, q, toHostPrefix+host)
	case q.Owner && len(q.Fingerprint) == len(fingerprint{}):
		return c.askOwner(ctx, q)
	}
	return c.say(ctx, questionType, q, askKey(q.Pool, q.Part))
}

// Answer implements [queue.Fleet].
func (c *Client) Answer(ctx context.Context, q queue.Question, o queue.Offer) error {
	if !o.Lacks { // nothing is handed to a host that has offered nothing
		if err := c.source.awake(ctx); err != nil {
			return err
		}
		o.Young = c.topology.known.young(hostQueue(c.host))
	}
	return c.offer(ctx, &q, o)
}

func (c *Client) offer(ctx context.Context, q *queue.Question, o queue.Offer) error {
	o.Question, o.Host = q.ID, c.host
	return c.say(ctx, offerType, o, toHostPrefix+q.From)
}

// Hello implements [queue.Fleet].
func (c *Client) Hello(ctx context.Context, h queue.Hello, host string) error {
	h.Host, h.Pools = c.host, c.pools
	if host != "" {
		return c.say(ctx, helloType, h, toHostPrefix+host)
	}
	keys := make([]string, len(c.pools))
	for i, pool := range c.pools {
		keys[i] = helloPrefix + pool
	}
	return c.say(ctx, helloType, h, keys...)
}

// say publishes a control message to the queues of some keys, once to each queue. Nobody need hear it.
func (c *Client) say(ctx context.Context, kind string, what any, keys ...string) error {
	msg, err := control(kind, what)
	if err != nil {
		return err
	}
	if len(keys) > 1 { // https://www.rabbitmq.com/docs/sender-selected
		copies := make([]any, len(keys)-1)
		for i, key := range keys[1:] {
			copies[i] = key
		}
		msg.Headers = amqp.Table{"BCC": copies}
	}
	return c.publish.publish(ctx, nil, &publication{exchange: controlExchange, key: keys[0], many: true, msg: msg})
}

// control is a control message.
func control(kind string, what any) (amqp.Publishing, error) {
	body, err := json.Marshal(what)
	if err != nil {
		return amqp.Publishing{}, fmt.Errorf("cannot encode a control message: %w", err)
	}
	return amqp.Publishing{ContentType: jsonType, Type: kind, Body: body}, nil
}

// Joined holds a token each time that other hosts can reach this one (again): what they have said before was not heard.
func (c *Client) Joined() <-chan struct{} { return c.joined }

// Questions gives what other hosts ask. As with Offers and Hellos, a reader that is slow holds up all control messages. The channels are never closed.
func (c *Client) Questions() <-chan queue.Question { return c.questions }

// Offers gives the answers to what was asked here.
func (c *Client) Offers() <-chan queue.Offer { return c.offers }

// Hellos gives the greetings of other hosts.
func (c *Client) Hellos() <-chan queue.Hello { return c.hellos }

// hearFleet hands on what other hosts say; false where it is something else. Its key has to be one of theirs, too: RabbitMQ before 4.0.3 lets who may publish by
// some keys only add any others in a header (rabbitmq-server's pull request 12553).
func (c *Client) hearFleet(ctx context.Context, s *session, m *amqp.Delivery) bool {
	if !slices.ContainsFunc([]string{helloPrefix, askPrefix, ownerPrefix, toHostPrefix}, func(prefix string) bool { return strings.HasPrefix(m.RoutingKey, prefix) }) {
		return false
	}
	switch m.Type {
	case questionType:
		var q queue.Question
		if !c.understood(m.Body, &q) {
			break
		}
		c.answerGiven(ctx, &q) // also to ourselves: all turns together tell
		if q.From != c.host {
			hand(ctx, s, c.questions, q)
		}
	case offerType:
		var o queue.Offer
		if c.understood(m.Body, &o) {
			hand(ctx, s, c.offers, o)
		}
	case helloType:
		var h queue.Hello
		if c.understood(m.Body, &h) && h.Host != c.host {
			// Before it is needed: a queue that has just been made is not safe; see [youth].
			if err := c.source.awake(ctx); err != nil && ctx.Err() == nil {
				c.log.Debug("could not make this host's queue yet", keyErr, err)
			}
			hand(ctx, s, c.hellos, h)
		}
	default:
		return false
	}
	return true
}

func (c *Client) understood(body []byte, into interface{ Check() error }) bool {
	err := json.Unmarshal(body, into)
	if err == nil {
		err = into.Check()
	}
	if err != nil {
		c.log.Warn("ignored a malformed control message", keyErr, err)
	}
	return err == nil
}

// hand waits for the reader: a question that is lost would be answered by nobody.
func hand[T any](ctx context.Context, s *session, to chan<- T, what T) {
	select {
	case to <- what:
	case <-ctx.Done():
	case <-s.done:
	}
}

// answerGiven answers a question about a message that this host had, and gave back without having begun it.
func (c *Client) answerGiven(ctx context.Context, q *queue.Question) {
	if q.Purpose != queue.ToAdopt || len(q.Fingerprint) != 16 {
		return
	}
	turns := c.given.turns([16]byte(q.Fingerprint))
	if len(turns) == 0 {
		return
	}
	if err := c.offer(ctx, q, queue.Offer{Gave: turns}); err != nil && ctx.Err() == nil {
		c.log.Warn("another host not answered", keyHost, q.From, keyErr, err)
	}
}

// awake has this host take what it is handed from now on. A host that is alone needs no queue.
func (s *source) awake(ctx context.Context) error {
	if s.takesHanded() {
		return nil
	}
	sess, err := s.client.receive.session(ctx)
	if err != nil {
		return err
	}
	return s.wakeUp(sess)
}

// wakeAgain does it where this host did before: somebody may have handed it something that it has not seen.
func (s *source) wakeAgain(sess *session) error {
	if s.takesHanded() || !s.exists(sess, hostQueue(s.client.host)) {
		return nil
	}
	return s.wakeUp(sess)
}

func (s *source) takesHanded() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.lanes) > 0 && s.lanes[0].band == handed
}

// wakeUp makes this host's own queue and a lane for it, which comes before all others: somebody counts on us.
func (s *source) wakeUp(sess *session) error {
	c := s.client
	c.waking.Lock()
	defer c.waking.Unlock()
	if s.takesHanded() {
		return nil
	}
	l := &lane{band: handed, queue: hostQueue(c.host), make: func(sess *session) error { return c.topology.host(sess, c.host) }}
	if err := l.make(sess); err != nil {
		return fmt.Errorf("cannot make the queue %s, by which this host is handed tasks: %w", l.queue, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lanes, s.bands = append([]*lane{l}, s.lanes...), append([][]*lane{{l}}, s.bands...)
	signal(s.kick)
	return nil
}

// handed is the band of the lane by which a host is handed tasks.
const handed queue.Band = "handed"

// decode reads a delivery of the lane. One that was handed says itself where it belongs.
func (l *lane) decode(raw amqp.Delivery, user string) queue.Message {
	if l.band != handed {
		return decode(raw, l.pool, l.band, user)
	}
	pool := text(raw.Headers, headerPool)
	if !queue.ValidPool(pool) { // who may write to all queues could say anything
		pool = queue.DefaultPool
	}
	m := decode(raw, pool, queue.Band(text(raw.Headers, headerBand)), user)
	m.HandedBy = text(raw.Headers, headerHandedBy)
	return m
}
