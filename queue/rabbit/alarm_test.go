package rabbit

import (
	"context"
	"errors"
	"testing"
	"time"

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
			settled := make(chan error, 1)
			go func() { settled <- held.Settle(within(t), done("t1"), nil) }()
			log.await(t, "level=WARN", "blocked publishing")
			short, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
			defer cancel()
			if err := cl.Publish(short, task(2)); !errors.Is(err, context.DeadlineExceeded) {
				t.Fatalf("publishing during the alarm: %v", err)
			}
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

// Two managers of one name are told so; the second takes over when the first ends.
func TestHostNameTaken(t *testing.T) {
	t.Parallel()
	b := broker.Shared(t, broker.V40)
	url := b.Vhost(t)
	first, _ := dial(t, Config{URLs: []string{url}, Host: "h"})
	awaitCancel(t, first, first)
	second, log := dial(t, Config{URLs: []string{url}, Host: "h"})
	log.await(t, "level=ERROR", "another manager uses this host name", "MAYFLY_HOST")
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	awaitCancel(t, second, second)
}

// awaitCancel asks for a cancellation until the host hears it: its control queue is bound some time after the connection.
func awaitCancel(t *testing.T, from, to *Client) {
	t.Helper()
	for {
		if err := from.Cancel(within(t), "t1"); err != nil {
			t.Fatal(err)
		}
		select {
		case id := <-to.Cancels():
			if id != "t1" {
				t.Fatalf("cancelled %q", id)
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
		if err := cl.Dead(within(t), nil); !errors.Is(err, queue.ErrClosed) {
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
