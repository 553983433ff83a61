package rabbit

import (
	"context"
	"slices"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/mayfly/mayfly/integration/broker"
	"github.com/mayfly/mayfly/queue"
)

// What the broker counts in x-delivery-count, on which refreshAt relies: a return counts before 4.3 and not from 4.3; a
// lost channel counts on all.
func TestDeliveryCountOfBroker(t *testing.T) {
	onAll(t, func(t *testing.T, b *broker.Broker, url string) {
		cl, _ := dial(t, Config{URLs: []string{url}, Host: "h", Pools: []string{"p"}})
		publish(t, cl, task(1))
		ch, in := consumeOne(t, url)
		for range 3 {
			if err := next(t, in).Nack(false, true); err != nil {
				t.Fatal(err)
			}
		}
		want := int64(3)
		if b.Version == broker.V43 {
			want = 0
		}
		if got := number(next(t, in).Headers, deliveryCount); got != want {
			t.Errorf("after three returns the count is %d, want %d", got, want)
		}
		_ = ch.Close()
		_, in = consumeOne(t, url)
		if got := number(next(t, in).Headers, deliveryCount); got != want+1 {
			t.Errorf("after a lost channel the count is %d, want %d", got, want+1)
		}
	})
}

// A message may be returned any number of times without the broker dropping it for that.
func TestManyReturns(t *testing.T) {
	onAll(t, func(t *testing.T, b *broker.Broker, url string) {
		cl, log := dial(t, Config{URLs: []string{url}, Host: "h", Pools: []string{"p"}})
		s := cl.Source()
		s.Demand(1)
		m := task(1)
		m.Headers = map[string]any{"own": "x"}
		publish(t, cl, m)
		past := []queue.Past{{Attempt: 1, Host: "h", Cause: queue.CauseExit}}
		settle(t, receive(t, s), queue.Verdict{Action: queue.Retry, History: past})
		queuedAt := time.Time{}
		for i := range 50 {
			d := receive(t, s)
			if got := d.Message(); got.MessageID != "t1" || got.Headers["own"] != "x" || len(got.History) != 1 || got.Pool != "p" {
				t.Fatalf("message %d = %+v", i, got)
			}
			if i == 0 {
				queuedAt = d.Message().QueuedAt
			} else if !d.Message().QueuedAt.Equal(queuedAt) {
				t.Fatalf("queued at %s, before %s", d.Message().QueuedAt, queuedAt)
			}
			settle(t, d, queue.Verdict{Action: queue.Return})
		}
		settle(t, receive(t, s), done("t1"))
		if b.Version == broker.V40 {
			log.await(t, "refreshed a message")
		}
	})
}

// consumeOne opens a channel on which messages of the pool come one at a time.
func consumeOne(t *testing.T, url string) (*amqp.Channel, <-chan amqp.Delivery) {
	t.Helper()
	ch := channel(t, url)
	if err := ch.Qos(1, 0, false); err != nil {
		t.Fatal(err)
	}
	in, err := ch.Consume(poolQueue("p", queue.Normal), "", false, false, false, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	return ch, in
}

// takeAway has the one message of the pool delivered to somebody who is gone then, and may have begun it.
func takeAway(t *testing.T, url string) {
	t.Helper()
	ch, in := consumeOne(t, url)
	next(t, in)
	if err := ch.Close(); err != nil {
		t.Fatal(err)
	}
}

// A message that others have had, as often as may be, says so still when it has been replaced by a fresh copy: one of them may be running it.
func TestRefreshedIsDoubtful(t *testing.T) {
	onAll(t, func(t *testing.T, _ *broker.Broker, url string) {
		cl, log := dial(t, Config{URLs: []string{url}, Host: "h", Pools: []string{"p"}})
		publish(t, cl, task(1))
		for range refreshAt {
			takeAway(t, url)
		}
		s := cl.Source()
		s.Demand(1)
		d := receive(t, s)
		log.await(t, "refreshed a message")
		m := d.Message()
		gave := []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}
		if !m.Redelivered || len(m.Turns) != refreshAt+1 || !slices.Equal(m.Turns[:refreshAt], gave) || m.MessageID != "t1" {
			t.Errorf("the copy is %+v", m)
		}
		if !m.Unbegun(gave) {
			t.Errorf("nobody has begun %v, but %v is not free", gave, m.Turns)
		}
		// Of the delivery that became the copy nobody says that it was for nothing: the message may come again beside the copy.
		if gave := cl.given.turns(m.Fingerprint()); len(gave) > 0 {
			t.Errorf("gave = %v", gave)
		}
		settle(t, d, done("t1"))
	})
}

// What a host gave back of one copy of a message says nothing about another copy, which somebody else may have begun: when it is tried again, and when it was replaced.
func TestCopiesCountAnew(t *testing.T) {
	onAll(t, func(t *testing.T, _ *broker.Broker, url string) {
		a, _ := dial(t, Config{URLs: []string{url}, Host: "a", Pools: []string{"p"}})
		publish(t, a, task(1))
		for _, v := range []queue.Verdict{{Action: queue.Return}, {Action: queue.Retry}} {
			a.Source().Demand(1)
			for range refreshAt + 1 {
				settle(t, receive(t, a.Source()), queue.Verdict{Action: queue.Return})
			}
			d := receive(t, a.Source())
			a.Source().Demand(0)
			awaitNoneFetched(t, a, func(*line) {})
			settle(t, d, v)
			takeAway(t, url)
			b, _ := dial(t, Config{URLs: []string{url}, Host: "b", Pools: []string{"p"}})
			b.Source().Demand(1)
			d = receive(t, b.Source())
			if m := d.Message(); !m.Redelivered || m.Unbegun(a.given.turns(m.Fingerprint())) {
				t.Errorf("%+v is free, for a has given %v back", m, a.given.turns(m.Fingerprint()))
			}
			b.Source().Demand(0)
			awaitNoneFetched(t, b, func(*line) {})
			settle(t, d, queue.Verdict{Action: queue.Return})
		}
	})
}

// Listing, looking and listing again loses no dead letter, on any version.
func TestDeadListedOften(t *testing.T) {
	onAll(t, func(t *testing.T, _ *broker.Broker, url string) {
		cl, _ := dial(t, Config{URLs: []string{url}, Host: "h", Pools: []string{"p"}})
		s := cl.Source()
		s.Demand(3)
		for i := range 3 {
			publish(t, cl, task(i))
			d := receive(t, s)
			v := done(d.Message().MessageID)
			v.Action, v.Reason, v.Result.Cause = queue.Bury, "it failed", queue.CauseExit
			settle(t, d, v)
		}
		for i := range 50 {
			var ids []string
			letters, err := cl.Dead(within(t), 10)
			for _, l := range letters {
				ids = append(ids, l.TaskID)
				if l.Reason != "it failed" || l.Cause != queue.CauseExit || l.Pool != "p" || l.Band != queue.Normal || l.Host != "h" || l.BuriedAt.IsZero() {
					t.Fatalf("dead letter = %+v", l)
				}
			}
			if err != nil || len(ids) != 3 || ids[0] != "t0" || ids[1] != "t1" || ids[2] != "t2" {
				t.Fatalf("listing %d = %v, %v", i, ids, err)
			}
		}
		if err := cl.Drop(within(t), "t0"); err != nil {
			t.Fatal(err)
		}
		if err := cl.Drop(within(t), "t0"); err != queue.ErrNoDeadLetter {
			t.Fatalf("a second drop: %v", err)
		}
		if err := cl.Requeue(within(t), "t1"); err != nil {
			t.Fatal(err)
		}
		d := receive(t, s)
		if m := d.Message(); m.MessageID != "t1" || len(m.History) != 0 || len(m.Headers) != 0 {
			t.Fatalf("requeued = %+v", m)
		}
		settle(t, d, done("t1"))
		if left, err := cl.Dead(within(t), 10); err != nil || len(left) != 1 {
			t.Fatalf("left = %+v, %v", left, err)
		}
	})
}

// TestOtherUser has a copy be made of what came by another user's connection than it goes by, as where URLs name several users: the broker takes a message only in the name of its own.
func TestOtherUser(t *testing.T) {
	onAll(t, func(t *testing.T, _ *broker.Broker, url string) {
		cl, _ := dial(t, Config{URLs: []string{url}, Host: "h", Pools: []string{"p"}})
		publish(t, cl, task(1))
		cl.Source().Demand(1)
		d := receive(t, cl.Source())
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		raw := amqp.Delivery{MessageId: "other", Body: d.Message().Body}
		pub := cl.toPool("p", queue.Normal, again(raw, decode(raw, "p", queue.Normal, "somebody"), "somebody"))
		if err := cl.publish.publish(ctx, nil, pub); err != nil {
			t.Fatal(err)
		}
		settle(t, d, queue.Verdict{Action: queue.Done})
		d = receive(t, cl.Source())
		if m := d.Message(); m.MessageID != "other" || m.UserID != "" {
			t.Errorf("the copy is %+v", m)
		}
		settle(t, d, queue.Verdict{Action: queue.Done})
	})
}
