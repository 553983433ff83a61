package rabbit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/mayfly/mayfly/queue"
)

// missing says that a shared exchange or queue does not exist and may not be made.
type missing struct{ what string }

func (m missing) Error() string {
	return fmt.Sprintf("%s does not exist: have it made (start a manager with MAYFLY_DECLARE=auto and the rights, or make it by hand), "+
		"since MAYFLY_DECLARE=passive makes nothing", m.what)
}

// topology makes the exchanges and queues, or checks that they are there.
type topology struct {
	mode  Declare
	pools []string
	pulse bool // there is more than one node to go to; see [Client.pulse]
	log   *slog.Logger
	known known
	mu    sync.Mutex // one at a time per client: two would only race for the same names
}

// prepare makes everything that a client needs from the start. What is missing in passive mode is logged, each thing by
// its name, and not an error: it may appear later.
func (t *topology) prepare(_ context.Context, s *session) error {
	steps := []func(*session) error{
		func(s *session) error { return t.exchange(s, tasksExchange, amqp.ExchangeTopic) },
		func(s *session) error { return t.exchange(s, resultsExchange, amqp.ExchangeTopic) },
		func(s *session) error { return t.exchange(s, eventsExchange, amqp.ExchangeTopic) },
		func(s *session) error { return t.exchange(s, controlExchange, amqp.ExchangeTopic) },
		t.graveyard,
		t.cancelQueue,
	}
	if t.pulse {
		steps = append(steps, t.pulseQueue)
	}
	for _, pool := range t.pools {
		steps = append(steps, func(s *session) error { return t.pool(s, pool) })
	}
	for _, step := range steps {
		err := step(s)
		if err == nil {
			continue
		}
		if s.conn.IsClosed() {
			return err
		}
		t.log.Error("the broker lacks something", keyErr, err)
	}
	return nil
}

// pool makes the queues of a pool and binds them.
func (t *topology) pool(s *session, pool string) error {
	for _, band := range queue.Bands {
		if err := t.queue(s, poolQueue(pool, band), tasksExchange, nil, bindingKeys(pool, band)...); err != nil {
			return err
		}
	}
	return nil
}

// graveyard makes the exchange and the queue of the dead letters.
func (t *topology) graveyard(s *session) error {
	if err := t.exchange(s, dead, amqp.ExchangeFanout); err != nil {
		return err
	}
	return t.queue(s, dead, dead, nil, "")
}

// wait makes the exchange and the queue of a rung. An expired message keeps its routing key and so returns to its own
// pool and band; at-least-once needs the overflow to be rejected.
func (t *topology) wait(s *session, rung time.Duration) error {
	name := waitName(rung)
	if err := t.exchange(s, name, amqp.ExchangeFanout); err != nil {
		return err
	}
	return t.queue(s, name, name, waitArguments(rung), "")
}

// What at-least-once dead-lettering takes of a queue.
const (
	atLeastOnce   = "at-least-once"
	rejectPublish = "reject-publish"
)

func waitArguments(rung time.Duration) amqp.Table {
	return amqp.Table{
		"x-message-ttl":          rung.Milliseconds(),
		"x-dead-letter-exchange": tasksExchange,
		"x-dead-letter-strategy": atLeastOnce,
		"x-overflow":             rejectPublish,
	}
}

// handTTL is how long a forwarded message may lie before its host takes it. Then, or when the host dies with it, it goes back to its pool: what is
// given back to the queue keeps its age.
const handTTL = 10 * time.Second

// host makes the queue by which this host is handed tasks; also in passive mode, for it is not shared. Its exchange keeps the key by which a
// message has come to its pool, so that it finds back, and ends with the queue, which ends when nobody has used it for long: the host
// is gone.
func (t *topology) host(s *session, host string) error {
	name := hostQueue(host)
	existed := attempt(s, func(ch *amqp.Channel) error {
		_, err := ch.QueueDeclarePassive(name, true, false, false, false, nil)
		return err
	}) == nil
	return attempt(s, func(ch *amqp.Channel) error {
		if err := ch.ExchangeDeclare(name, amqp.ExchangeFanout, true, true, false, false, nil); err != nil {
			return err
		}
		_, err := ch.QueueDeclare(name, true, false, false, false, amqp.Table{
			"x-queue-type":           "quorum",
			"x-message-ttl":          handTTL.Milliseconds(),
			"x-dead-letter-exchange": tasksExchange,
			"x-dead-letter-strategy": atLeastOnce,
			"x-overflow":             rejectPublish,
			"x-expires":              time.Hour.Milliseconds(),
		})
		if err != nil {
			return err
		}
		if !existed { // else it is as old as the last connection: nobody else makes it
			t.known.saw(name, true)
		}
		return ch.QueueBind(name, "", name, false, nil)
	})
}

// exchange makes a durable exchange unless it exists.
func (t *topology) exchange(s *session, name, kind string) error {
	what := "the exchange " + name
	_, err := t.ensure(s, what, func(ch *amqp.Channel) error {
		return ch.ExchangeDeclarePassive(name, kind, true, false, false, false, nil)
	}, func(ch *amqp.Channel) error {
		return ch.ExchangeDeclare(name, kind, true, false, false, false, nil)
	})
	return err
}

// queue makes a quorum queue unless it exists, and binds it.
func (t *topology) queue(s *session, name, exchange string, args amqp.Table, keys ...string) error {
	what := "the queue " + name
	all := amqp.Table{"x-queue-type": "quorum"}
	for k, v := range args {
		all[k] = v
	}
	existed, err := t.ensure(s, what, func(ch *amqp.Channel) error {
		_, err := ch.QueueDeclarePassive(name, true, false, false, false, nil)
		return err
	}, func(ch *amqp.Channel) error {
		_, err := ch.QueueDeclare(name, true, false, false, false, all)
		return err
	})
	if err == nil {
		t.known.saw(name, !existed)
	}
	if err != nil || t.mode == Passive {
		return err
	}
	for _, key := range keys {
		err := attempt(s, func(ch *amqp.Channel) error { return ch.QueueBind(name, key, exchange, false, nil) })
		if err == nil {
			continue
		}
		err = fmt.Errorf("cannot bind %s to the exchange %s under the key %q: %w", what, exchange, key, err)
		if !existed || s.conn.IsClosed() {
			return err
		}
		// Somebody else made the queue and may well have bound it, which AMQP cannot tell.
		t.log.Warn("the broker refused a binding", keyErr, err)
	}
	return nil
}

// ensure makes something unless it exists: it looks first, so that another's declaration with other arguments never
// clashes with ours.
func (t *topology) ensure(s *session, what string, look, make func(*amqp.Channel) error) (existed bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	err = attempt(s, look)
	if err == nil {
		return true, nil
	}
	if !isCode(err, amqp.NotFound) {
		return false, fmt.Errorf("cannot look for %s: %w", what, err)
	}
	if t.mode == Passive {
		return false, missing{what}
	}
	if err = attempt(s, make); err != nil {
		if isCode(err, amqp.PreconditionFailed) && attempt(s, look) == nil {
			return true, nil // somebody made it just now
		}
		if isCode(err, amqp.AccessRefused) {
			return false, fmt.Errorf("cannot make %s: grant the user %s the right to configure it, or have it made and set "+
				"MAYFLY_DECLARE=passive: %w", what, s.user, err)
		}
		return false, fmt.Errorf("cannot make %s: %w", what, err)
	}
	t.log.Debug("made something shared", "what", what)
	return false, nil
}

// attempt runs f on a channel of its own: an error closes the channel.
func attempt(s *session, f func(*amqp.Channel) error) error {
	ch, err := s.conn.Channel()
	if err != nil {
		return err
	}
	if err := f(ch); err != nil {
		_ = ch.Close()
		return err
	}
	return ch.Close()
}

// isCode reports whether err is the broker's error with the code.
func isCode(err error, code int) bool {
	var fault *amqp.Error
	return errors.As(err, &fault) && fault.Code == code
}
