package rabbit

import (
	"strconv"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/mayfly/mayfly/queue"
)

const (
	// nameTakenAfter is how long a host's control queue may be held by another connection before that is reported, rather than taken for our own
	// last connection, which the broker has not yet given up: two missed heartbeats and a margin.
	nameTakenAfter = 3 * heartbeat
	// names is how many a control queue may have: the host's own, and ".2" and so on.
	names = 9
)

// ear is the control queue of one connection. It is exclusive, and ends with the connection: but a broker may hold on to it when the connection is
// gone already. For seconds, where it has not noticed that; and from RabbitMQ 4.2 on, where the cluster's node that had it is down, until that is
// back (rabbitmq-server's pull request 14573). Until then the host listens by another name.
type ear struct {
	client  *Client
	session *session
	ch      *amqp.Channel
	name    string
	// messages come by the queue; replies come by the queue that was used before the host's own was free, on the channel before.
	messages, replies <-chan amqp.Delivery
	before            *amqp.Channel
	// again ticks when the host's own name is to be tried again; nil where it is used.
	again <-chan time.Time
	tick  *time.Ticker
	// bound are the messages that this host owns as far as the broker knows.
	bound map[fingerprint]bool
}

// ReplyTo is the address at which Replies listens; empty for a client that is no host.
func (c *Client) ReplyTo() string {
	if c.host == "" {
		return ""
	}
	if name, ok := c.address.Load().(string); ok {
		return name
	}
	return controlQueue(c.host)
}

// openEar makes the queue and binds it, by the first name that is free.
func (c *Client) openEar(s *session) (*ear, error) {
	e := &ear{client: c, session: s}
	for n := 1; ; n++ {
		name := controlQueue(c.host)
		if n > 1 {
			name += "." + strconv.Itoa(n) // deploy/rabbitmq/setup.sh gives the right to these
		}
		err := e.open(name)
		if err == nil {
			if n == 1 {
				c.hearing.taken = time.Time{}
			} else {
				e.tick = time.NewTicker(heartbeat)
				e.again = e.tick.C
			}
			return e, nil
		}
		if !isCode(err, amqp.ResourceLocked) || n == names {
			return nil, err
		}
		if n == 1 {
			e.locked(err)
		}
	}
}

// open makes the queue of a name on a channel of its own, binds it, and consumes it.
func (e *ear) open(name string) error {
	ch, err := e.session.conn.Channel()
	if err != nil {
		return err
	}
	_, err = ch.QueueDeclare(name, false, true, true, false, nil)
	for _, key := range e.client.keys() {
		if err == nil {
			err = ch.QueueBind(name, key, controlExchange, false, nil)
		}
	}
	var messages <-chan amqp.Delivery
	if err == nil {
		messages, err = ch.Consume(name, "", true, true, false, false, nil)
	}
	bound := map[fingerprint]bool{}
	if err == nil {
		err = e.client.owned.bind(ch, name, bound)
	}
	if err != nil {
		_ = ch.Close()
		return err
	}
	e.ch, e.name, e.messages, e.bound = ch, name, messages, bound
	e.client.address.Store(name)
	return nil
}

// keys are those of what a host listens to.
func (c *Client) keys() []string {
	keys := []string{toHostPrefix + c.host}
	part := queue.PartOf(c.host)
	for _, pool := range c.pools {
		keys = append(keys, helloPrefix+pool)
		for n := range len(part) + 1 {
			keys = append(keys, askKey(pool, part[:n]))
		}
	}
	return keys
}

// retry tries the host's own name again. Replies go on coming by the other one, until the ear is closed.
func (e *ear) retry() {
	before := *e
	if err := e.open(controlQueue(e.client.host)); err != nil {
		if isCode(err, amqp.ResourceLocked) {
			e.locked(err)
		}
		return
	}
	e.tick.Stop()
	e.again, e.replies, e.before = nil, before.messages, before.ch
	e.client.hearing.taken = time.Time{}
	keys := e.client.keys()
	for message := range before.bound {
		keys = append(keys, ownerKey(message[:]))
	}
	for _, key := range keys {
		// What both have got is heard twice, which does no harm.
		_ = before.ch.QueueUnbind(before.name, key, controlExchange, nil)
	}
}

// locked notes that another connection has the host's own name, and reports it when that goes on for long.
func (e *ear) locked(err error) {
	c := e.client
	if c.hearing.taken.IsZero() {
		c.hearing.taken, c.hearing.reported = time.Now(), false
	}
	if !c.hearing.reported && time.Since(c.hearing.taken) >= nameTakenAfter {
		c.hearing.reported = true
		c.log.Error("another manager uses this host name: set MAYFLY_HOST to a name of its own (or a node of RabbitMQ is down that had this host's queue)",
			keyHost, c.host, keyErr, err)
	}
}

func (e *ear) close() {
	if e.tick != nil {
		e.tick.Stop()
	}
	_ = e.ch.Close()
	if e.before != nil {
		_ = e.before.Close()
	}
}
