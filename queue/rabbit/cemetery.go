package rabbit

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/mayfly/mayfly/queue"
)

// buried is a dead letter together with the message that it came as.
type buried struct {
	queue.DeadLetter
	raw amqp.Delivery
}

// Dead returns the oldest dead letters; see [queue.Cemetery]. The whole queue is looked through, for its order need not be that of their ages: a fresh copy
// lies at its end, and RabbitMQ has an order of its own for what is given back (3.10 always, later ones sometimes). Another program that lists at the same moment may see fewer.
func (c *Client) Dead(ctx context.Context, limit int) ([]queue.DeadLetter, error) {
	if limit <= 0 {
		return nil, nil
	}
	o := oldest{limit: limit, most: queue.DeadListMost, keys: map[string]bool{}}
	err := c.exhume(ctx, func(b *buried) { o.add(b.DeadLetter) }, func(*grave) error { return nil })
	if err != nil {
		return nil, err
	}
	return o.list(), nil
}

// DeadLetter returns one dead letter; see [queue.Cemetery].
func (c *Client) DeadLetter(ctx context.Context, key string) (d queue.DeadLetter, err error) {
	s := search{key: key}
	err = c.exhume(ctx, s.look, func(*grave) error {
		found, err := s.found()
		if err == nil {
			d = found.first.DeadLetter
		}
		return err
	})
	return d, err
}

// Requeue puts a dead letter back into its pool; see [queue.Cemetery].
func (c *Client) Requeue(ctx context.Context, key string) error {
	return c.remove(ctx, key, func(b *buried, user string) error {
		m := decode(b.raw, b.Pool, b.Band, user)
		m.QueuedAt, m.Guessed = time.Now(), false // what is known of it, as how it ended, does not hold for this one
		msg := again(b.raw, m, user)
		for _, h := range []string{headerAttempts, headerDeadKey, headerReason, headerCause, headerPool, headerBand, headerTaskID,
			headerHost, headerBuriedAt} {
			delete(msg.Headers, h)
		}
		if err := checkPool(b.Pool); err != nil {
			return fmt.Errorf("cannot requeue the dead letter %s: it does not say which pool it came from", key)
		}
		return c.publish.publish(ctx, nil, c.toPool(b.Pool, b.Band, msg))
	})
}

// Drop removes a dead letter for good; see [queue.Cemetery].
func (c *Client) Drop(ctx context.Context, key string) error {
	return c.remove(ctx, key, func(*buried, string) error { return nil })
}

// remove finds the dead letter, does something with it, and then takes it and its duplicates out of the queue.
func (c *Client) remove(ctx context.Context, key string, do func(b *buried, user string) error) error {
	s := search{key: key}
	return c.exhume(ctx, s.look, func(g *grave) error {
		found, err := s.found()
		if err != nil {
			return err
		}
		if err := do(found.first, g.sess.user); err != nil {
			return err
		}
		for _, tag := range found.tags {
			if err := g.ch.Ack(tag, false); err != nil {
				return fmt.Errorf("cannot remove the dead letter %s: %w", key, err)
			}
		}
		return nil
	})
}

// grave is the channel by which the dead letters are held.
type grave struct {
	sess *session
	ch   *amqp.Channel
}

// exhume fetches all dead letters, shows each to look, has f do what is to be done then, and gives back those that f did not acknowledge. Should
// anything fail on the way, the broker gives them all back by itself. The queue may be long, and its bodies large: look must keep no more than is wanted of each.
func (c *Client) exhume(ctx context.Context, look func(*buried), f func(*grave) error) error {
	c.burials.Lock()
	defer c.burials.Unlock()
	s, err := c.receive.session(ctx)
	if err != nil {
		return err
	}
	ch, err := s.conn.Channel()
	if err != nil {
		return fmt.Errorf("cannot read the dead letters: %w", err)
	}
	// Closing the channel gives back what is left and, unlike a negative acknowledgement, is answered: after it, the next
	// reader sees them all.
	defer func() { _ = ch.Close() }()
	if err := c.fetch(ctx, s, ch, look); err != nil {
		return err
	}
	if err := f(&grave{s, ch}); err != nil {
		_ = ch.Nack(0, true, true)
		return err
	}
	if err := ch.Nack(0, true, true); err != nil {
		return fmt.Errorf("cannot give back the dead letters: %w", err)
	}
	return nil
}

// fetch gets every dead letter. One that was read so often that RabbitMQ would soon drop it is replaced by a fresh copy.
func (c *Client) fetch(ctx context.Context, s *session, ch *amqp.Channel, look func(*buried)) error {
	for ctx.Err() == nil {
		raw, ok, err := ch.Get(dead, false)
		if err != nil {
			return fmt.Errorf("cannot read the dead letters: %w", err)
		}
		if !ok {
			return nil
		}
		if number(raw.Headers, deliveryCount) >= refreshAt {
			if err := c.rebury(ctx, s, ch, raw); err != nil {
				return err
			}
			continue // its copy comes along behind the others
		}
		look(exhumed(raw))
	}
	return ctx.Err()
}

// rebury replaces a dead letter by a fresh copy.
func (c *Client) rebury(ctx context.Context, s *session, ch *amqp.Channel, raw amqp.Delivery) error {
	msg := again(raw, decode(raw, "", "", s.user), s.user)
	if err := c.publish.publish(ctx, nil, c.toDead(msg)); err != nil {
		return fmt.Errorf("cannot refresh a dead letter: %w", err)
	}
	if err := ch.Ack(raw.DeliveryTag, false); err != nil {
		return fmt.Errorf("cannot refresh a dead letter: %w", err)
	}
	return nil
}

// exhumed reads a dead letter. One that is not Mayfly's own (shovelled there, say) gets a key from its content.
func exhumed(raw amqp.Delivery) *buried {
	h := raw.Headers
	b := &buried{raw: raw, DeadLetter: queue.DeadLetter{
		Key:      text(h, headerDeadKey),
		TaskID:   text(h, headerTaskID),
		Pool:     text(h, headerPool),
		Band:     queue.Band(text(h, headerBand)),
		Host:     text(h, headerHost),
		Cause:    queue.Cause(text(h, headerCause)),
		Reason:   text(h, headerReason),
		BuriedAt: timestamp(h, headerBuriedAt),
		Attempts: decodeHistory(h[headerAttempts]),
		Body:     raw.Body,
	}}
	if b.Key == "" {
		sum := sha256.New()
		fmt.Fprintf(sum, "%s\x00%s\x00", raw.MessageId, raw.Timestamp.UTC().Format(time.RFC3339))
		sum.Write(raw.Body)
		b.Key = hex.EncodeToString(sum.Sum(nil)[:8])
	}
	if b.TaskID == "" {
		b.TaskID = raw.MessageId
	}
	return b
}
