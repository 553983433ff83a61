package mayfly_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	mayfly "github.com/mayfly/mayfly/clients/go"
	"github.com/mayfly/mayfly/integration/broker"
	"github.com/mayfly/mayfly/queue"
)

func TestSubmitAndWait(t *testing.T) {
	onAll(t, func(t *testing.T, url string) {
		h := newHost(t, url, "default", "gpu")
		cl := dial(t, url)
		before := time.Now().Add(-time.Second) // AMQP counts seconds
		handle := submit(t, cl, mayfly.Task{Pool: "gpu", Priority: new(9), Command: []string{"true"},
			Headers: map[string]string{"traceparent": "00-x", "large": strings.Repeat("x", 60<<10)}})
		d := h.receive()
		m := d.Message()
		if handle.ID == "" || m.MessageID != handle.ID || m.CorrelationID == "" || !strings.HasPrefix(m.ReplyTo, "mayfly.reply.") ||
			m.Pool != "gpu" || m.Band != queue.High || m.QueuedAt.Before(before.Truncate(time.Second)) || m.QueuedAt.After(time.Now()) ||
			len(m.Headers) != 2 || m.Headers["traceparent"] != "00-x" {
			t.Errorf("task %s came as %+v", handle.ID, m)
		}
		short, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		if _, err := handle.Wait(short); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("waiting for a running task: %v", err)
		}
		h.end(d, "fine")
		for range 2 { // a result is kept
			r := wait(t, handle)
			if r.ID != handle.ID || r.State != mayfly.Succeeded || r.Cause != mayfly.CauseNone || r.Message != "fine" || *r.ExitCode != 0 ||
				!r.StartedAt.IsZero() || r.Pool != "gpu" {
				t.Errorf("result = %+v", r)
			}
		}
		<-handle.Done()
	})
}

// A stored task is on the disk, and so is its result.
func TestMessagesArePersistent(t *testing.T) {
	url := one(t)
	newHost(t, url).Close()
	ch := channel(t, url)
	q, err := ch.QueueDeclare("", false, true, true, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, exchange := range []string{"mayfly.tasks", "mayfly.control"} {
		if err := ch.QueueBind(q.Name, "#", exchange, false, nil); err != nil {
			t.Fatal(err)
		}
	}
	in, err := ch.Consume(q.Name, "", true, false, false, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	cl := dial(t, url)
	handle := submit(t, cl, say("a"))
	d := <-in
	if d.DeliveryMode != amqp.Persistent || d.ContentType != "application/json" || d.RoutingKey != "default" || d.MessageId != "a" ||
		time.Since(d.Timestamp) > patience || string(d.Body) != `{"id":"a","command":["true"]}` {
		t.Errorf("message = %+v", d)
	}
	if err := handle.Cancel(within(t)); err != nil {
		t.Fatal(err)
	}
	if d := <-in; d.RoutingKey != "cancel" || string(d.Body) != `{"cancel":"a"}` {
		t.Errorf("message = %+v", d)
	}
}

func TestNobodyThere(t *testing.T) {
	onAll(t, func(t *testing.T, url string) {
		cl := dial(t, url)
		// There is no exchange yet.
		if _, err := cl.Submit(within(t), say("a")); !errors.Is(err, mayfly.ErrNoPool) {
			t.Errorf("without any host: %v", err)
		}
		if err := cl.Cancel(within(t), "a"); !errors.Is(err, mayfly.ErrNoHost) {
			t.Errorf("without any host: %v", err)
		}
		h := newHost(t, url, "default")
		for range 3 {
			_, err := cl.Submit(within(t), mayfly.Task{ID: "b", Shell: "x", Pool: "gpu", Priority: new(0)})
			if want := `cannot submit task b: no host has ever served its pool in this virtual host: "gpu.low"`; err == nil || err.Error() != want ||
				!errors.Is(err, mayfly.ErrNoPool) {
				t.Errorf("error %v, want %s", err, want)
			}
		}
		handle := submit(t, cl, say("c"))
		h.end(h.receive(), "")
		wait(t, handle)
		if err := h.Close(); err != nil {
			t.Fatal(err)
		}
		if err := handle.Cancel(within(t)); err != nil { // it is kept for the host
			t.Errorf("while the host is away: %v", err)
		}
	})
}

func TestCancel(t *testing.T) {
	onAll(t, func(t *testing.T, url string) {
		h := newHost(t, url, "default")
		cl := dial(t, url)
		handle := submit(t, cl, say("a"))
		until(t, "the host listens", func() bool { return handle.Cancel(within(t)) == nil })
		if c := <-h.Cancels(); c.ID != "a" {
			t.Errorf("cancelled %+v", c)
		}
	})
}

// Results are matched by what was submitted, not by id, and those that nobody waits for are let go.
func TestEachResultHasItsHandle(t *testing.T) {
	url := one(t)
	h := newHost(t, url, "default")
	p := through(t, url)
	cl := dial(t, p.url)
	first, second := submit(t, cl, say("a")), submit(t, cl, say("a"))
	one, two := h.receive(), h.receive()
	ch := channel(t, url)
	stray := amqp.Publishing{CorrelationId: "nobody", Body: []byte("{}")}
	late := amqp.Publishing{CorrelationId: two.Message().CorrelationID, Body: []byte(`{"message":"two"}`)}
	for _, m := range []amqp.Publishing{stray, late, late} {
		if err := ch.Publish("", two.Message().ReplyTo, false, false, m); err != nil {
			t.Fatal(err)
		}
	}
	if r := wait(t, second); r.Message != "two" {
		t.Errorf("result = %+v", r)
	}
	h.end(one, "one")
	if r := wait(t, first); r.Message != "one" {
		t.Errorf("result = %+v", r)
	}
	h.end(two, "three")
	until(t, "all results are taken", func() bool {
		q, err := ch.QueueDeclarePassive(one.Message().ReplyTo, true, false, false, false, nil)
		return err == nil && q.Messages == 0
	})
	third := submit(t, cl, say("b"))
	three := h.receive().Message()
	if err := ch.Publish("", three.ReplyTo, false, false, amqp.Publishing{CorrelationId: three.CorrelationID, Body: []byte("no JSON")}); err != nil {
		t.Fatal(err)
	}
	if _, err := third.Wait(within(t)); err == nil || !strings.Contains(err.Error(), "cannot wait for task b: its result cannot be read") {
		t.Errorf("a result that is none: %v", err)
	}
	// What was taken does not come again.
	p.cut()
	var q amqp.Queue
	until(t, "the broker has noticed that the client is away", func() bool {
		q, _ = ch.QueueDeclarePassive(three.ReplyTo, true, false, false, false, nil)
		return q.Consumers == 0
	})
	if q.Messages > 1 { // the cut may have gone through the last acknowledgement
		t.Errorf("%d results are in the queue again", q.Messages)
	}
}

func TestClose(t *testing.T) {
	onAll(t, func(t *testing.T, url string) {
		h := newHost(t, url, "default")
		cl := dial(t, url)
		ended, running := submit(t, cl, say("a")), submit(t, cl, say("b"))
		d := h.receive()
		h.end(d, "")
		wait(t, ended)
		waiting := make(chan error)
		go func() {
			_, err := running.Wait(context.Background())
			waiting <- err
		}()
		var all sync.WaitGroup
		for range 3 {
			all.Go(cl.Close)
		}
		if err := <-waiting; !errors.Is(err, mayfly.ErrClosed) {
			t.Errorf("waiting: %v", err)
		}
		all.Wait()
		wait(t, ended) // what is known stays known
		if _, err := cl.Submit(within(t), say("c")); !errors.Is(err, mayfly.ErrClosed) {
			t.Errorf("submitting: %v", err)
		}
		if err := running.Cancel(within(t)); !errors.Is(err, mayfly.ErrClosed) {
			t.Errorf("cancelling: %v", err)
		}
		if exists(t, url, d.Message().ReplyTo) {
			t.Errorf("the reply queue is left")
		}
	})
}

// Many submit at once while the connection breaks again and again: each gets its result.
func TestManyAtOnce(t *testing.T) {
	url := one(t)
	h := newHost(t, url, "default")
	p := through(t, url)
	cl := dial(t, p.url)
	const n = 300
	ctx, cancel := context.WithCancel(context.Background())
	var hosts sync.WaitGroup
	hosts.Go(func() {
		for {
			d, err := h.Source().Receive(ctx)
			if err != nil {
				return
			}
			hosts.Go(func() { h.end(d, d.Message().MessageID) })
		}
	})
	var all sync.WaitGroup
	done := make(chan struct{}, n)
	for i := range n {
		all.Go(func() {
			defer func() { done <- struct{}{} }()
			id := fmt.Sprint("t", i)
			handle, err := cl.Submit(within(t), say(id))
			if err != nil {
				t.Error(err)
				return
			}
			if r, err := handle.Wait(within(t)); err != nil || r.ID != id || r.Message != id {
				t.Errorf("task %s: %+v, %v", id, r, err)
			}
		})
	}
	for i := range n {
		<-done
		if i%60 == 10 {
			p.cut()
			p.mend()
		}
	}
	all.Wait()
	cancel()
	hosts.Wait()
}

func TestDialErrors(t *testing.T) {
	url := one(t)
	addr := strings.TrimPrefix(url, "amqp://guest:guest@")
	name := broker.VhostName(url)
	for _, c := range []struct{ url, want string }{
		{"http://guest:secret@" + addr, "cannot read the RabbitMQ URL: AMQP scheme must be either 'amqp://' or 'amqps://'"},
		{"amqp://guest:se%cret@" + addr, "cannot read the RabbitMQ URL: it is not a URL: a password must be percent-encoded"},
		{"amqp://guest:secret@127.0.0.1:0", "cannot read the RabbitMQ URL: its port is 0; use one from 1 to 65535"},
		{"amqp://guest:secret@" + addr, `Exception (403) Reason: "username or password not allowed"`},
		{strings.Replace(url, name, "secret", 1), "NOT_ALLOWED - vhost secret not found"},
		{"amqp://guest:secret@127.0.0.1:1/", "cannot connect to RabbitMQ at 127.0.0.1:1: dial tcp 127.0.0.1:1: connect: connection refused"},
	} {
		_, err := mayfly.Dial(within(t), c.url)
		if err == nil || !strings.HasPrefix(err.Error(), "cannot ") || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "secret") && !strings.Contains(c.url, "/secret") {
			t.Errorf("%s: %v; want %s", c.url, err, c.want)
		}
	}
	if _, err := mayfly.Dial(within(t), url, mayfly.WithReplyExpiry(0)); err == nil || err.Error() != "cannot keep results for 0s only: give at least a second" {
		t.Errorf("without an expiry: %v", err)
	}
	// A listener that says nothing.
	p := through(t, url)
	p.deafen()
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := mayfly.Dial(short, p.url); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a deaf line: %v", err)
	}
}

// The rights that the package's documentation names are enough, and what is lacking is said.
func TestLeastRights(t *testing.T) {
	url := one(t)
	b := broker.Shared(t, broker.V43)
	name := broker.VhostName(url)
	may := func(configure, write, read string) string {
		t.Helper()
		user := "least-" + name
		_, err := b.Eval(fmt.Sprintf(`catch rabbit_auth_backend_internal:delete_user(<<"%[1]s">>, <<"test">>),
			rabbit_auth_backend_internal:add_user(<<"%[1]s">>, <<"secret">>, <<"test">>),
			rabbit_auth_backend_internal:set_permissions(<<"%[1]s">>, <<"%[2]s">>, <<"%[3]s">>, <<"%[4]s">>, <<"%[5]s">>, <<"test">>).`,
			user, name, configure, write, read))
		if err != nil {
			t.Fatal(err)
		}
		return strings.Replace(url, "guest:guest", user+":secret", 1)
	}
	const replies = `^mayfly[.]reply[.]`
	h := newHost(t, url, "default")
	cl := dial(t, may(replies, `^mayfly[.](tasks|control)$`, replies))
	handle := submit(t, cl, say("a"))
	h.end(h.receive(), "")
	wait(t, handle)
	if err := handle.Cancel(within(t)); err != nil {
		t.Error(err)
	}
	cl.Close()
	if _, err := mayfly.Dial(within(t), may("^$", ".*", ".*")); err == nil || !strings.Contains(err.Error(), "cannot receive results from RabbitMQ") ||
		!strings.Contains(err.Error(), "configure access to queue") {
		t.Errorf("without the right to make a queue: %v", err)
	}
	cl = dial(t, may(replies, "^$", replies))
	if _, err := cl.Submit(within(t), say("b")); err == nil || !strings.Contains(err.Error(), "cannot submit task b: RabbitMQ refused it: ACCESS_REFUSED - write access to exchange 'mayfly.tasks'") {
		t.Errorf("without the right to submit: %v", err)
	}
	if err := cl.Cancel(within(t), "b"); err == nil || !strings.Contains(err.Error(), "cannot cancel task b: RabbitMQ refused it: ACCESS_REFUSED - write access to exchange 'mayfly.control'") {
		t.Errorf("without the right to cancel: %v", err)
	}
}
