package mayfly_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	mayfly "github.com/mayfly/mayfly/clients/go"
	"github.com/mayfly/mayfly/integration/broker"
)

// What comes while the client is away is there when it is back.
func TestResultWhileAway(t *testing.T) {
	onAll(t, func(t *testing.T, url string) {
		h := newHost(t, url, "default")
		p := through(t, url)
		cl := dial(t, p.url)
		handle := submit(t, cl, say("a"))
		d := h.receive()
		p.cut()
		h.end(d, "meanwhile")
		// Calls wait for the broker, or for as long as they may.
		until(t, "submitting says that there is no connection", func() bool {
			short, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			_, err := cl.Submit(short, say("b"))
			return errors.Is(err, context.DeadlineExceeded) &&
				strings.HasPrefix(err.Error(), "cannot submit task b: context deadline exceeded (cannot connect to RabbitMQ at 127.0.0.1:")
		})
		short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if _, err := handle.Wait(short); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("waiting without a connection: %v", err)
		}
		submitted := make(chan *mayfly.Handle)
		go func() {
			next, err := cl.Submit(within(t), say("c"))
			if err != nil {
				t.Error(err)
			}
			submitted <- next
		}()
		p.mend()
		if r := wait(t, handle); r.Message != "meanwhile" {
			t.Errorf("result = %+v", r)
		}
		next := <-submitted
		h.end(h.receive(), "next")
		if r := wait(t, next); r.Message != "next" {
			t.Errorf("result = %+v", r)
		}
	})
}

// A client that is given several nodes goes on by another one, and has the results that were sent meanwhile.
func TestNodes(t *testing.T) {
	url := one(t)
	h := newHost(t, url, "default")
	first, second := through(t, url), through(t, url)
	second.cut()
	cl := dial(t, first.url+", "+second.url)
	a := submit(t, cl, say("a"))
	second.mend()
	first.cut()
	h.end(h.receive(), "one")
	if r := wait(t, a); r.Message != "one" {
		t.Errorf("result = %+v", r)
	}
	b := submit(t, cl, say("b"))
	h.end(h.receive(), "other")
	if r := wait(t, b); r.Message != "other" {
		t.Errorf("result = %+v", r)
	}
}

// A confirm that was lost is unknown: the task is published again, under the same id.
func TestConfirmLost(t *testing.T) {
	url := one(t)
	h := newHost(t, url, "default")
	p := through(t, url)
	cl := dial(t, p.url)
	wait(t, func() *mayfly.Handle { // the way is paved
		handle := submit(t, cl, say("a"))
		h.end(h.receive(), "")
		return handle
	}())
	p.deafen()
	submitted := make(chan *mayfly.Handle)
	go func() {
		handle, err := cl.Submit(within(t), say("b"))
		if err != nil {
			t.Error(err)
		}
		submitted <- handle
	}()
	first := h.receive()
	p.cut()
	p.mend()
	second := h.receive()
	if a, b := first.Message(), second.Message(); a.MessageID != "b" || b.MessageID != "b" || a.CorrelationID != b.CorrelationID {
		t.Errorf("published %+v and %+v", a, b)
	}
	handle := <-submitted
	h.end(first, "first")
	h.end(second, "second")
	if r := wait(t, handle); r.Message != "first" {
		t.Errorf("result = %+v", r)
	}
}

// A queue that was gone is made again, and whoever waits for a result that may have gone with it is told.
func TestReplyQueueGone(t *testing.T) {
	onAll(t, func(t *testing.T, url string) {
		h := newHost(t, url, "default")
		p := through(t, url)
		cl := dial(t, p.url)
		handle := submit(t, cl, say("a"))
		d := h.receive()
		for _, away := range []bool{false, true} { // removed under the client's eyes, and while it is away
			if away {
				handle = submit(t, cl, say("b"))
				d = h.receive()
				p.cut()
			}
			if _, err := channel(t, url).QueueDelete(d.Message().ReplyTo, false, false, false); err != nil {
				t.Fatal(err)
			}
			h.end(d, "lost")
			p.mend()
			_, err := handle.Wait(within(t))
			if !errors.Is(err, mayfly.ErrResultLost) {
				t.Errorf("the reply queue was gone: %v", err)
			}
		}
		handle = submit(t, cl, say("c"))
		h.end(h.receive(), "")
		wait(t, handle)
	})
}

// The broker does not keep the results of a client that does not come back.
func TestReplyQueueExpires(t *testing.T) {
	onAll(t, func(t *testing.T, url string) {
		h := newHost(t, url, "default")
		p := through(t, url)
		cl := dial(t, p.url, mayfly.WithReplyExpiry(time.Second))
		handle := submit(t, cl, say("a"))
		name := h.receive().Message().ReplyTo
		time.Sleep(3 * time.Second) // in use it does not expire
		if !exists(t, url, name) {
			t.Fatal("the queue expired under its consumer")
		}
		p.cut()
		until(t, "the queue has expired", func() bool { return !exists(t, url, name) })
		p.mend()
		if _, err := handle.Wait(within(t)); !errors.Is(err, mayfly.ErrResultLost) {
			t.Errorf("the reply queue was gone: %v", err)
		}
	})
}

func TestBrokerRestarted(t *testing.T) {
	t.Parallel()
	for _, v := range broker.Versions {
		t.Run(string(v), func(t *testing.T) { // one after the other: each starts a broker twice
			b := broker.Start(t, v)
			h := newHost(t, b.URL(), "default")
			cl := dial(t, b.URL())
			ended, running := submit(t, cl, say("ended")), submit(t, cl, say("running"))
			h.end(h.receive(), "before")
			h.receive()
			if err := b.Stop(); err != nil {
				t.Fatal(err)
			}
			submitted := make(chan *mayfly.Handle)
			go func() {
				handle, err := cl.Submit(within(t), say("meanwhile"))
				if err != nil {
					t.Error(err)
				}
				submitted <- handle
			}()
			if err := b.Start(); err != nil {
				t.Fatal(err)
			}
			meanwhile := <-submitted
			for range 2 { // one is delivered again, one is new
				d := h.receive()
				h.end(d, d.Message().MessageID)
			}
			for message, handle := range map[string]*mayfly.Handle{"before": ended, "running": running, "meanwhile": meanwhile} {
				if r := wait(t, handle); r.Message != message {
					t.Errorf("result = %+v", r)
				}
			}
		})
	}
}

// A broker that blocks publishing is waited for, results come all the same, and the client can be closed.
func TestAlarm(t *testing.T) {
	t.Parallel()
	b := broker.Start(t, broker.V43)
	alarm := func(change string) {
		t.Helper()
		if _, err := b.Eval("rabbit_alarm:" + change + "."); err != nil {
			t.Fatal(err)
		}
	}
	h := newHost(t, b.URL(), "default")
	cl := dial(t, b.URL())
	handle := submit(t, cl, say("a"))
	h.receive()
	alarm("set_alarm({{resource_limit, memory, node()}, []})")
	blocked := func() bool {
		short, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		_, err := cl.Submit(short, say("b"))
		return err != nil && strings.Contains(err.Error(), "cannot submit task b: context deadline exceeded (RabbitMQ blocks publishing: low on memory)")
	}
	until(t, "submitting says that the broker is blocked", blocked)
	submitted := make(chan error)
	go func() {
		_, err := cl.Submit(within(t), say("c"))
		submitted <- err
	}()
	alarm("clear_alarm({resource_limit, memory, node()})")
	if err := <-submitted; err != nil {
		t.Error(err)
	}
	alarm("set_alarm({{resource_limit, memory, node()}, []})")
	until(t, "submitting says that the broker is blocked", blocked)
	began := time.Now()
	cl.Close()
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("closing took %s", took)
	}
	if _, err := handle.Wait(within(t)); !errors.Is(err, mayfly.ErrClosed) {
		t.Errorf("waiting: %v", err)
	}
}

// A queue that takes no more is waited for.
func TestQueueFull(t *testing.T) {
	url := one(t)
	ch := channel(t, url)
	if err := ch.ExchangeDeclare("mayfly.tasks", "topic", true, false, false, false, nil); err != nil {
		t.Fatal(err)
	}
	const name = "mayfly.pool.default.normal"
	if _, err := ch.QueueDeclare(name, true, false, false, false, amqp.Table{"x-max-length": 1, "x-overflow": "reject-publish"}); err != nil {
		t.Fatal(err)
	}
	if err := ch.QueueBind(name, "default", "mayfly.tasks", false, nil); err != nil {
		t.Fatal(err)
	}
	cl := dial(t, url)
	submit(t, cl, say("a"))
	until(t, "submitting says that the queue is full", func() bool {
		short, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		_, err := cl.Submit(short, say("b"))
		return err != nil && err.Error() == "cannot submit task b: context deadline exceeded (RabbitMQ did not take it: its queue is full, or the broker fails)"
	})
	submitted := make(chan error)
	go func() {
		_, err := cl.Submit(within(t), say("c"))
		submitted <- err
	}()
	// All that comes is taken, not only a: the last try to submit b may be on its way still, and take the room that a leaves.
	if _, err := ch.Consume(name, "", true, false, false, false, nil); err != nil {
		t.Fatal(err)
	}
	if err := <-submitted; err != nil {
		t.Error(err)
	}
}
