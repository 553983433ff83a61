package rabbit

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"sort"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/mayfly/mayfly/queue"
)

// buried is a dead letter together with the message that it came as.
type buried struct {
	queue.DeadLetter
	raw amqp.Delivery
}

// Dead calls visit for every dead letter; see [queue.Cemetery]. The letters are fetched together and given back before the
// first visit, so the whole graveyard must fit into memory; another program that lists at the same moment may see fewer.
func (c *Client) Dead(ctx context.Context, visit func(queue.DeadLetter) bool) error {
	var all []buried
	err := c.exhume(ctx, func(_ *grave, found []buried) error {
		all = found
		return nil
	})
	if err != nil {
		return err
	}
	seen := map[string]bool{}
	for _, b := range all {
		if seen[b.Key] {
			continue // buried twice because a confirm was lost
		}
		seen[b.Key] = true
		if !visit(b.DeadLetter) {
			return nil
		}
	}
	return nil
}

// Requeue puts a dead letter back into its pool; see [queue.Cemetery].
func (c *Client) Requeue(ctx context.Context, key string) error {
	return c.remove(ctx, key, func(b buried, user string) error {
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
	return c.remove(ctx, key, func(buried, string) error { return nil })
}

// remove finds the dead letter, does something with it, and then takes it and its duplicates out of the queue.
func (c *Client) remove(ctx context.Context, key string, do func(b buried, user string) error) error {
	return c.exhume(ctx, func(g *grave, all []buried) error {
		var found []buried
		var keys []string
		for _, b := range all {
			if b.Key == key {
				found = append(found, b)
			}
		}
		if len(found) == 0 {
			for _, b := range all {
				if b.TaskID == key {
					found = append(found, b)
					if !slices.Contains(keys, b.Key) { // buried twice because a confirm was lost
						keys = append(keys, b.Key)
					}
				}
			}
		}
		switch {
		case len(found) == 0:
			return queue.ErrNoDeadLetter
		case len(keys) > 1:
			return &queue.AmbiguousError{TaskID: key, Keys: keys}
		}
		if err := do(found[0], g.sess.user); err != nil {
			return err
		}
		for _, b := range found {
			if err := g.ch.Ack(b.raw.DeliveryTag, false); err != nil {
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

// exhume fetches all dead letters, oldest first, hands them to f, and gives back those that f did not acknowledge. Should
// anything fail on the way, the broker gives them all back by itself.
func (c *Client) exhume(ctx context.Context, f func(*grave, []buried) error) error {
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
	all, err := c.fetch(ctx, s, ch)
	if err != nil {
		return err
	}
	sort.SliceStable(all, func(i, j int) bool { return all[i].BuriedAt.Before(all[j].BuriedAt) })
	if err := f(&grave{s, ch}, all); err != nil {
		_ = ch.Nack(0, true, true)
		return err
	}
	if err := ch.Nack(0, true, true); err != nil {
		return fmt.Errorf("cannot give back the dead letters: %w", err)
	}
	return nil
}

// fetch gets every dead letter. One that was read so often that RabbitMQ would soon drop it is replaced by a fresh copy.
func (c *Client) fetch(ctx context.Context, s *session, ch *amqp.Channel) (all []buried, err error) {
	for ctx.Err() == nil {
		raw, ok, err := ch.Get(dead, false)
		if err != nil {
			return nil, fmt.Errorf("cannot read the dead letters: %w", err)
		}
		if !ok {
			return all, nil
		}
		if number(raw.Headers, deliveryCount) >= refreshAt {
			if err := c.rebury(ctx, s, ch, raw); err != nil {
				return nil, err
			}
			continue // its copy comes along behind the others
		}
		all = append(all, exhumed(raw))
	}
	return nil, ctx.Err()
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
func exhumed(raw amqp.Delivery) buried {
	h := raw.Headers
	b := buried{raw: raw, DeadLetter: queue.DeadLetter{
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
		sum := sha256.Sum256(append([]byte(raw.MessageId+"\x00"+raw.Timestamp.UTC().Format(time.RFC3339)+"\x00"), raw.Body...))
		b.Key = hex.EncodeToString(sum[:8])
	}
	if b.TaskID == "" {
		b.TaskID = raw.MessageId
	}
	return b
}
