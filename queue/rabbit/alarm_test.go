package rabbit

import (
	"context"
	"errors"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/mayfly/mayfly/integration/broker"
	"github.com/mayfly/mayfly/queue"
)

// A broker that is short of memory is waited for: nothing is lost, publishers end with their contexts, and what needs no
// publishing goes on.
func TestAlarm(t *testing.T) {
	t.Parallel()
	for _, v := range broker.Versions {
		t.Run(string(v), func(t *testing.T) {
			t.Parallel()
			b := broker.Start(t, v)
			cl, log := dial(t, Config{URLs: []string{b.URL()}, Host: "h", Pools: []string{"p"}})
			s := cl.Source()
			s.Demand(1)
			publish(t, cl, task(1))
			held := receive(t, s)
			alarm := func(change string) {
				t.Helper()
				if _, err := b.Eval("rabbit_alarm:" + change + "."); err != nil {
					t.Fatal(err)
				}
			}
			alarm("set_alarm({{resource_limit, memory, node()}, []})")
			// What comes before the broker has told its connections still goes through.
			for blocked := false; !blocked; {
				short, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
				err := cl.Publish(short, task(2))
				cancel()
				if blocked = errors.Is(err, context.DeadlineExceeded); !blocked && err != nil {
					t.Fatalf("publishing during the alarm: %v", err)
				}
			}
			log.await(t, "level=WARN", "blocked publishing")
			settled := make(chan error, 1)
			go func() { settled <- held.Settle(within(t), done("t1"), nil) }()
			if _, err := cl.Depth(within(t)); err != nil {
				t.Fatal(err)
			}
			alarm("clear_alarm({resource_limit, memory, node()})")
			if err := <-settled; err != nil {
				t.Fatal(err)
			}
			publish(t, cl, task(3))
			d := receive(t, s)
			settle(t, d, done(d.Message().MessageID))
		})
	}
}

// A host whose control queue another connection has listens by another name, and says so when that goes on; when its own is free it takes that, and
// hears replies that were asked for before all the same. The other may be a second manager of that name, or this one's on a node of the broker that is down.
func TestHostNameTaken(t *testing.T) {
	t.Parallel()
	b := broker.Shared(t, broker.V40)
	url := b.Vhost(t)
	first, _ := dial(t, Config{URLs: []string{url}, Host: "h"})
	awaitCancel(t, first, first)
	second, log := dial(t, Config{URLs: []string{url}, Host: "h"})
	awaitCancel(t, second, second)
	own, other := controlQueue("h"), controlQueue("h")+".2"
	if got := second.ReplyTo(); got != other {
		t.Fatalf("the second listens at %s, not %s", got, other)
	}
	message := fingerprint{1}
	owned := func(want bool) { // asks until it is so, for the broker tells nobody of bindings
		t.Helper()
		q := queue.Question{ID: "1", Pool: "p", Purpose: queue.ToAdopt, Fingerprint: message[:], Owner: true}
		for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
			err := second.Ask(within(t), q, "")
			if err != nil && !errors.Is(err, queue.ErrNoHost) {
				t.Fatal(err)
			}
			if (err == nil) == want {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("somebody owns the message: %t", !want)
			}
		}
	}
	second.Own(message, true)
	owned(true)
	log.await(t, "level=ERROR", "another manager uses this host name", "MAYFLY_HOST")
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); second.ReplyTo() != own; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the second listens at %s, though %s is free", second.ReplyTo(), own)
		}
	}
	ch := channel(t, url)
	for _, to := range []string{other, own} {
		if err := ch.PublishWithContext(within(t), "", to, false, false, amqp.Publishing{Body: []byte(`{"id": "t1"}`)}); err != nil {
			t.Fatal(err)
		}
		select {
		case r := <-second.Replies():
			if r.ID != "t1" {
				t.Errorf("the reply to %s is %+v", to, r)
			}
		case <-within(t).Done():
			t.Fatalf("the reply to %s was not heard", to)
		}
	}
	awaitCancel(t, second, second)
	owned(true)
	second.Own(message, false)
	owned(false) // by neither of the names
}

// awaitCancel asks for a cancellation until the host hears it: its control queue is bound some time after the connection.
func awaitCancel(t *testing.T, from, to *Client) {
	t.Helper()
	for {
		if err := from.Cancel(within(t), queue.Cancellation{ID: "t1", At: time.Now()}); err != nil {
			t.Fatal(err)
		}
		select {
		case c := <-to.Cancels():
			if c.ID != "t1" {
				t.Fatalf("cancelled %+v", c)
			}
			return
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// What is closed says so, and does not hang.
func TestClosedClient(t *testing.T) {
	onAll(t, func(t *testing.T, _ *broker.Broker, url string) {
		cl, _ := dial(t, Config{URLs: []string{url}, Host: "h", Pools: []string{"p"}})
		if err := cl.Close(); err != nil {
			t.Fatal(err)
		}
		if err := cl.Publish(within(t), task(1)); !errors.Is(err, queue.ErrClosed) {
			t.Errorf("Publish: %v", err)
		}
		if _, err := cl.Depth(within(t)); !errors.Is(err, queue.ErrClosed) {
			t.Errorf("Depth: %v", err)
		}
		if _, err := cl.Dead(within(t), 1); !errors.Is(err, queue.ErrClosed) {
			t.Errorf("Dead: %v", err)
		}
		if _, err := cl.Source().Receive(within(t)); !errors.Is(err, queue.ErrClosed) {
			t.Errorf("Receive: %v", err)
		}
		if err := cl.Close(); err != nil {
			t.Errorf("a second Close: %v", err)
		}
	})
}
