package rabbit

import (
	"context"
	"errors"
	"fmt"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/mayfly/mayfly/queue"
)

// Lack is what a host would need of the broker and has not.
type Lack struct {
	// Err says what, Remedy what mends it.
	Err    error
	Remedy string
}

// nobody is no user. The broker refuses messages in another's name, but not before it has looked at the right to publish: so such a message
// tells whether there is the right, and goes nowhere.
const nobody = "mayfly-check-nobody"

// Inspect finds out what a host of that name would lack: rights of the user, and with missing what is not declared. It changes nothing, and
// waits for a connection for as long as ctx lives.
func (c *Client) Inspect(ctx context.Context, host string, wantDeclared bool) ([]Lack, error) {
	s, err := c.receive.session(ctx)
	if err != nil {
		return nil, err
	}
	vhost, user := c.receive.dialer.endpoints[0].vhost, s.user
	if user == "" {
		user = "USER" // the broker knows who it is by a certificate
	}
	var list []Lack
	note := func(what, right string, err error) error {
		switch {
		case err == nil, isCode(err, amqp.PreconditionFailed):
		case isCode(err, amqp.NotFound):
			if wantDeclared {
				list = append(list, Lack{missing{what}, "deploy/rabbitmq/setup.sh queues POOL... on a node of the broker, which makes all, or start a manager with MAYFLY_DECLARE=auto and the rights to make it once"})
			}
		case isCode(err, amqp.AccessRefused):
			list = append(list, Lack{fmt.Errorf("the user %s lacks the right to %s %s", user, right, what),
				fmt.Sprintf(`rabbitmqctl set_permissions -p %s %s '^mayfly\.' '^(mayfly\..*|amq\.default)$' '^mayfly\.'`, shellWord(vhost), shellWord(user))})
		default:
			return fmt.Errorf("cannot look for %s: %w", what, err)
		}
		return nil
	}
	var failures []error
	// Of the exchanges of the wait, the one of the usual backoff stands for all.
	for _, name := range []string{tasksExchange, resultsExchange, eventsExchange, controlExchange, dead, waitName(10 * time.Second), ""} {
		what := "the exchange " + name
		if name == "" {
			what = "the default exchange (amq.default), by which replies go"
		}
		failures = append(failures, note(what, "write to", c.mayWrite(ctx, s, name)))
	}
	for _, pool := range c.pools {
		for _, band := range queue.Bands {
			name := poolQueue(pool, band)
			failures = append(failures, note("the queue "+name, "read from", attempt(s, func(ch *amqp.Channel) error { return mayRead(ch, name) })))
		}
	}
	failures = append(failures, note("the queue "+dead, "read from", attempt(s, func(ch *amqp.Channel) error { return mayRead(ch, dead) })))
	own := controlQueue(host) + ".9" // the last that a host would take; see [ear]
	failures = append(failures, note("the queues mayfly.host."+host+".*", "make and read", attempt(s, func(ch *amqp.Channel) error {
		if _, err := ch.QueueDeclare(own, false, true, true, false, nil); isCode(err, amqp.ResourceLocked) {
			return nil // it has taken it
		} else if err != nil {
			return err
		}
		_, err := ch.QueueDelete(own, false, false, false)
		return err
	})), note("the exchange "+controlExchange, "hear what is said to", attempt(s, func(ch *amqp.Channel) error {
		if _, err := ch.QueueDeclare(own, false, true, true, false, nil); err != nil {
			return nil // told above
		}
		if err := ch.QueueBind(own, nobody, controlExchange, false, nil); err != nil {
			return err
		}
		_, err := ch.QueueDelete(own, false, false, false)
		return err
	})))
	return list, errors.Join(failures...)
}

// mayWrite returns AccessRefused, NotFound, or PreconditionFailed where a message could be published.
func (c *Client) mayWrite(ctx context.Context, s *session, exchange string) error {
	try := func(key string) error {
		return attempt(s, func(ch *amqp.Channel) error { return mayPublish(ctx, ch, exchange, key) })
	}
	err := try(nobody)
	if isCode(err, amqp.AccessRefused) && exchange == tasksExchange && len(c.pools) > 0 {
		return try(c.pools[0]) // the right may be to some pools only
	}
	return err
}

func mayPublish(ctx context.Context, ch *amqp.Channel, exchange, key string) error {
	closed := ch.NotifyClose(make(chan *amqp.Error, 1))
	if err := ch.PublishWithContext(ctx, exchange, key, false, false, amqp.Publishing{UserId: nobody}); err != nil {
		return err
	}
	select {
	case err := <-closed:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// mayRead returns AccessRefused, NotFound, or PreconditionFailed where messages could be consumed: such a priority is none, which the broker
// finds after it has looked at the right.
func mayRead(ch *amqp.Channel, name string) error {
	_, err := ch.Consume(name, "", false, false, false, false, amqp.Table{"x-priority": "none"})
	return err
}

// Version is the broker's, or "" before the first connection.
func (c *Client) Version() string { return c.version() }

// Supported reports whether the broker's version is one that Mayfly works with.
func (c *Client) Supported() bool { return atLeast(c.version(), 3, 10) }

// TimeoutRemedy says how the broker's acknowledgement timeout is raised, which AMQP does not show.
func (c *Client) TimeoutRemedy() string { return c.source.remedy() }
