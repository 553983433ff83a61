package rabbit

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/mayfly/mayfly/queue"
)

// delivery is one message that the broker has handed to a lane's channel.
type delivery struct {
	source *source
	lane   *lane
	line   *line // the channel that it came by: its tag means nothing on another
	raw    amqp.Delivery
	msg    queue.Message
	lost   chan struct{}

	settling sync.Mutex // one Settle at a time
	settled  bool       // guarded by settling
	handed   bool       // to whoever receives, or to a copy; guarded by source.mu, as is:
	received bool       // and counts against the demand
}

// Message returns what the producer sent.
func (d *delivery) Message() queue.Message { return d.msg }

// Lost is closed when the channel of the delivery is gone.
func (d *delivery) Lost() <-chan struct{} { return d.lost }

// Settle carries out the verdict; see [queue.Delivery].
func (d *delivery) Settle(ctx context.Context, v queue.Verdict, confirmed func() error) error {
	d.settling.Lock()
	defer d.settling.Unlock()
	if d.settled {
		return errors.New("cannot settle a delivery twice")
	}
	select {
	case <-d.lost:
		if v.Action == queue.Return {
			d.source.client.given.add(&d.msg)
		}
		return queue.ErrLost
	default:
	}
	began := time.Now()
	err := d.carryOut(ctx, v)
	for errors.Is(err, errMute) {
		rest := v
		rest.Doubtful, rest.Delay = true, max(0, v.Delay-time.Since(began))
		err = d.carryOut(ctx, rest)
	}
	if err != nil {
		return err
	}
	if confirmed != nil {
		if err := confirmed(); err != nil {
			return err
		}
	}
	if v.Action == queue.Return {
		d.source.client.given.add(&d.msg)
		err = d.line.ch.Nack(d.raw.DeliveryTag, false, true)
	} else {
		err = d.line.ch.Ack(d.raw.DeliveryTag, false)
	}
	if err != nil {
		// Only a channel that has closed or is about to refuses an acknowledgement.
		select {
		case <-d.lost:
			return queue.ErrLost
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if !d.source.settled(d) {
		return queue.ErrLost
	}
	d.settled = true
	return nil
}

// carryOut publishes what the verdict demands, and returns once the message can be given up.
func (d *delivery) carryOut(ctx context.Context, v queue.Verdict) error {
	all, err := d.publications(ctx, v)
	if err == nil && v.Action == queue.Bury { // on its own, first: who has the result finds the dead letter
		err = d.publish(ctx, v, []*publication{d.source.client.toDead(d.burial(v))})
	}
	if err == nil {
		err = d.publish(ctx, v, all)
	}
	if err == nil && v.Action == queue.Forward && v.Keep > 0 {
		err = sleepOr(ctx, d.lost, min(v.Keep, youth))
	}
	return err
}

// publish publishes what the verdict demands, pipelined. What the broker lacks is logged and waited for, because the
// duty to settle does not end.
func (d *delivery) publish(ctx context.Context, v queue.Verdict, all []*publication) error {
	if len(all) == 0 {
		return ctx.Err()
	}
	cl := d.source.client
	var wait backoff
	for {
		err := cl.publish.publish(ctx, d.lost, all...)
		if err == nil || errors.Is(err, queue.ErrLost) || errors.Is(err, queue.ErrClosed) || errors.Is(err, queue.ErrNoHost) || errors.Is(err, errMute) || ctx.Err() != nil {
			return err
		}
		cl.log.Error("could not settle a delivery, trying again", keyTask, d.task(v), keyPool, d.msg.Pool, keyErr, err)
		if err := sleepOr(ctx, d.lost, wait.next()); err != nil {
			return err
		}
	}
}

// publications lists what the verdict demands, but for the dead letter; of a retry, once it can wait in the broker.
func (d *delivery) publications(ctx context.Context, v queue.Verdict) (all []*publication, err error) {
	cl := d.source.client
	switch v.Action {
	case queue.Return:
		return nil, nil
	case queue.Forward:
		msg := again(d.raw, d.msg, d.line.user)
		// With its own message id or none: the host that has begun it knows it by that.
		msg.Headers[headerPool], msg.Headers[headerBand], msg.Headers[headerHandedBy] = d.msg.Pool, string(d.msg.Band), cl.host
		// An exchange that is not there closes the channel for all: so it is looked for first.
		look := func(s *session) error {
			err := attempt(s, func(ch *amqp.Channel) error {
				return ch.ExchangeDeclarePassive(hostQueue(v.Host), amqp.ExchangeFanout, true, true, false, false, nil)
			})
			if isCode(err, amqp.NotFound) {
				return queue.ErrNoHost
			}
			return err
		}
		name := hostQueue(v.Host)
		return copies(v, &publication{exchange: name, key: routingKey(d.msg.Pool, d.msg.Band), msg: msg, ahead: name, make: look}), nil
	case queue.Done, queue.Bury:
		if v.Result == nil && v.Action == queue.Done {
			return nil, nil // all was published before: only the message is to be given up
		}
		if v.Result == nil {
			return nil, errors.New("cannot bury a delivery without a result")
		}
		return d.results(v.Result)
	case queue.Retry:
		msg := again(d.raw, d.msg, d.line.user)
		msg.Headers[headerAttempts] = encodeHistory(v.History, historyMax)
		if queue.GivenID(d.msg) == "" { // else the copy would not be known for one of the same message: its id is part of the fingerprint
			msg.MessageId = short(v.TaskID)
		}
		pub := cl.toPool(d.msg.Pool, d.msg.Band, msg)
		r, err := d.backOff(ctx, v.Delay)
		if err != nil {
			return nil, err
		}
		if r > 0 {
			pub.exchange, pub.ahead, pub.waits = waitName(r), waitName(r), true
			pub.make = func(s *session) error { return cl.topology.wait(s, r) }
		}
		return copies(v, pub), nil
	default:
		return nil, fmt.Errorf("cannot settle a delivery: there is no verdict %q", v.Action)
	}
}

// copies is what publishes the one copy that a verdict demands.
func copies(v queue.Verdict, pub *publication) []*publication {
	if pub.copied = true; v.Doubtful {
		pub.doubt()
	}
	return []*publication{pub}
}

// results addresses the result to the results' exchange and to the producer's own queue where it named one.
func (d *delivery) results(r *queue.Result) ([]*publication, error) {
	body, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("cannot encode the result of task %s: %w", r.ID, err)
	}
	msg := amqp.Publishing{
		Headers:       amqp.Table{headerAttempt: int64(r.Attempt)},
		ContentType:   jsonType,
		DeliveryMode:  amqp.Persistent,
		CorrelationId: d.raw.CorrelationId,
		MessageId:     short(r.ID),
		Timestamp:     time.Now(),
		Body:          body,
	}
	all := []*publication{{exchange: resultsExchange, key: short(d.msg.Pool + "." + r.ID), msg: msg}}
	if d.raw.ReplyTo != "" {
		all = append(all, &publication{key: d.raw.ReplyTo, reply: true, msg: msg})
	}
	return all, nil
}

// burial makes the dead letter: the message whole, the reason in its headers.
func (d *delivery) burial(v queue.Verdict) amqp.Publishing {
	msg := again(d.raw, d.msg, d.line.user)
	if msg.MessageId == "" {
		msg.MessageId = short(v.TaskID)
	}
	h := msg.Headers
	h[headerDeadKey] = deadKey(v.Result, &d.msg)
	h[headerReason] = clip(v.Reason, 4096)
	h[headerCause] = string(v.Result.Cause)
	h[headerPool] = d.msg.Pool
	h[headerBand] = string(d.msg.Band)
	h[headerTaskID] = clip(v.Result.ID, 1024)
	h[headerHost] = d.source.client.host
	h[headerBuriedAt] = time.Now().UTC().Format(time.RFC3339Nano)
	h[headerAttempts] = encodeHistory(v.History, historyMax)
	return msg
}

// deadKey names the dead letter of a result: the same one whenever it is tried to bury the message for that, also by the next manager. So letters of which a confirm was lost are known
// for the same.
func deadKey(r *queue.Result, m *queue.Message) string {
	at := r.StartedAt
	if at == nil { // it never began, and is said to have ended by one manager only
		at = r.FinishedAt
	}
	if at == nil {
		return ulid.Make().String()
	}
	key := ulid.ULID{}
	_ = key.SetTime(ulid.Timestamp(*at))
	fingerprint := m.Fingerprint()
	sum := sha256.Sum256(fmt.Appendf(fingerprint[:], "%s\x00%s\x00%d\x00%d", r.Host, r.ID, r.Attempt, at.UnixNano()))
	_ = key.SetEntropy(sum[:10])
	return key.String()
}

// task names the task in a log line, as well as it is known here.
func (d *delivery) task(v queue.Verdict) string {
	if v.Result != nil {
		return v.Result.ID
	}
	return d.msg.MessageID
}

// short cuts a text to what a property or a routing key can hold. Task ids fit; those of refused messages may not.
func short(s string) string { return clip(s, shortMax) }

func clip(s string, n int) string {
	if len(s) > n {
		return s[:n]
	}
	return s
}
