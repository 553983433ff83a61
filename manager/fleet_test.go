package manager

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mayfly/mayfly/queue"
)

// hosts is the other hosts of a fleet: what is said to them comes by channels.
type hosts struct {
	asked   chan queue.Question
	offered chan queue.Offer
	hellos  chan queue.Hello
	mu      sync.Mutex
	to      []string // whom the questions were put to, in their order
}

func (f *hosts) Ask(_ context.Context, q queue.Question, host string) error {
	q.From = "h"
	f.mu.Lock()
	f.to = append(f.to, host)
	f.mu.Unlock()
	f.asked <- q
	return nil
}

func (f *hosts) Own([16]byte, bool) {}

func (f *hosts) Answer(_ context.Context, q queue.Question, o queue.Offer) error {
	o.Question, o.Host = q.ID, "h"
	f.offered <- o
	return nil
}

func (f *hosts) Hello(_ context.Context, h queue.Hello, _ string) error {
	f.hellos <- h
	return nil
}

func newHosts() *hosts {
	return &hosts{asked: make(chan queue.Question, 64), offered: make(chan queue.Offer, 64), hellos: make(chan queue.Hello, 64)}
}

func newFleet(t *testing.T) (*bench, *hosts) {
	f := newHosts()
	b := newBenchWith(t, func(c *Config, s *Services) {
		s.Fleet, s.Discard = f, func(string) {}
		c.Defaults.OnLost, c.CutOff = queue.KeepOnLost, 20*time.Millisecond
		c.Window = 4
	})
	b.Joined()
	next(t, f.hellos)
	return b, f
}

func next[T any](t *testing.T, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(30 * time.Second):
		t.Fatalf("no %T came", *new(T))
		panic("unreachable")
	}
}

func large(id string) queue.Message {
	return queue.Message{MessageID: id, Body: []byte(`{"command": ["true"], "resources": {"cpu": 2}}`)}
}

// TestHandOver has a task that cannot run here: it goes to the host that has most room, once.
func TestHandOver(t *testing.T) {
	t.Parallel()
	b, f := newFleet(t)
	d := newDelivery(large("m"))
	b.source.deliveries <- d
	q := next(t, f.asked)
	if q.Purpose != queue.ToRun || q.TaskID != "m" || q.Message == nil || q.Open != 0 {
		t.Errorf("question = %+v", q)
	}
	for i, room := range []float64{2, 7, -3} {
		b.Offered(queue.Offer{Question: q.ID, Host: fmt.Sprint("o", i), Room: room})
	}
	if v := b.verdict(d); v.Action != queue.Forward || v.Host != "o1" {
		t.Errorf("verdict = %+v", v)
	}
	b.Offered(queue.Offer{Question: q.ID, Host: "late", Room: 9}) // of no use any more
	b.until("it is gone", func() bool { list, _ := b.List(t.Context(), 0); return len(list) == 0 })
}

// TestParked has a task that no host can run: the others keep the question, and so does this one, for each host that comes.
func TestParked(t *testing.T) {
	t.Parallel()
	b, f := newFleet(t)
	d := newDelivery(large("m"))
	b.source.deliveries <- d
	first := next(t, f.asked)
	open := next(t, f.asked)
	if open.ID != first.ID || open.Open != runTime {
		t.Errorf("question = %+v", open)
	}
	b.until("it is parked", func() bool { v, err := b.Show(t.Context(), "m"); return err == nil && v.Status == Parked })
	x, err := b.Explain(t.Context(), "m")
	if err != nil || !strings.Contains(x.Sentence, "resources.cpu is 2 cores") {
		t.Errorf("%+v, %v", x, err)
	}
	if q := next(t, f.asked); q.Purpose != queue.ToExplain || q.Message == nil {
		t.Errorf("question = %+v", q)
	}
	b.Greeted(queue.Hello{Host: "o", Pools: []string{"default"}})
	if q := next(t, f.asked); q.ID != first.ID || f.to[len(f.to)-1] != "o" {
		t.Errorf("question = %+v to %q", q, f.to)
	}
	b.Offered(queue.Offer{Question: first.ID, Host: "o", Room: 1})
	if v := b.verdict(d); v.Action != queue.Forward || v.Host != "o" {
		t.Errorf("verdict = %+v", v)
	}
	if q := next(t, f.asked); q.ID != first.ID || !q.Over {
		t.Errorf("the others keep the question: %+v", q)
	}
}

// TestOffer has others ask: this host offers what room it has, once for each core, and later what becomes free.
func TestOffer(t *testing.T) {
	t.Parallel()
	b, f := newFleet(t)
	ask := func(id string, purpose queue.Purpose, open time.Duration, history ...queue.Past) {
		m := queue.Message{MessageID: id, Body: message.Body, Pool: "default", History: history}
		b.Asked(queue.Question{ID: id, From: "o", Pool: "default", Purpose: purpose, TaskID: id, Message: &m, Open: open})
	}
	ask("failed", queue.ToSpare, 0, queue.Past{Attempt: 1, Host: "h"}) // here
	ask("one", queue.ToShare, 0)
	if o := next(t, f.offered); o.Question != "one" || o.Room != 0 {
		t.Errorf("offer = %+v", o)
	}
	ask("two", queue.ToShare, time.Minute) // the room is promised, till it comes out that nobody wants it
	ask("three", queue.ToRun, 0)           // it cannot run where it is: it may as well wait here
	if o := next(t, f.offered); o.Question != "three" || o.Room >= 0 {
		t.Errorf("offer = %+v", o)
	}
	if o := next(t, f.offered); o.Question != "two" || o.Room != 0 {
		t.Errorf("offer = %+v", o)
	}
	ask("over", queue.ToShare, time.Minute)
	b.Asked(queue.Question{ID: "over", Pool: "default", Over: true})
	b.mu.Lock()
	defer b.mu.Unlock()
	if n := len(b.others.kept); n != 0 {
		t.Errorf("%d questions are kept that need no answer", n)
	}
}
