package manager

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/mayfly/mayfly/queue"
	"github.com/mayfly/mayfly/worker"
)

// seen is what an observer was told, in a few words each.
type seen struct {
	mu   sync.Mutex
	list []string
}

func (s *seen) add(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list = append(s.list, fmt.Sprintf(format, args...))
}

// take returns what was told since the last call.
func (s *seen) take() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := s.list
	s.list = nil
	return list
}

func observed(s *seen) func(*Services) {
	return func(services *Services) {
		services.Observer = Observer{
			Started: func(e Start) {
				if e.Waited < 0 || e.Waited > time.Hour || e.Spawned < 0 || e.Spawned > time.Hour {
					s.add("%+v", e)
				}
				s.add("%s: started, first %t, image %t", e.Pool, e.First, e.Image)
			},
			Ended: func(e End) { s.add("%s: ended, %s, ran %s", e.Pool, e.Cause, e.Ran) },
			Settled: func(e Settlement) {
				s.add("%s: %s, %s, buried %t", e.Pool, e.State, e.Cause, e.Buried)
			},
		}
	}
}

// TestObserver has an observer told of everything once, also where a message comes back.
func TestObserver(t *testing.T) {
	t.Parallel()
	var s seen
	b := newBench(t, observed(&s))
	told := func(want ...string) {
		t.Helper()
		b.until("nothing is left", func() bool { list, _ := b.List(t.Context(), 0); return len(list) == 0 })
		if got := s.take(); !slices.Equal(got, want) {
			t.Errorf("told %q, want %q", got, want)
		}
	}
	at := time.Now()
	second := worker.Outcome{StartedAt: at, FinishedAt: at.Add(time.Second)}

	d := newDelivery(message)
	d.breaks = true
	b.source.deliveries <- d
	good := second
	good.Cause = queue.CauseNone
	b.runner.ended <- good
	b.verdict(d)
	again := message
	again.Redelivered = true
	d = newDelivery(again)
	b.source.deliveries <- d
	b.verdict(d)
	told("default: started, first true, image false", "default: ended, none, ran 1s", "default: succeeded, none, buried false")

	// An attempt that is followed by another one ends; its task does not.
	twice := queue.Message{MessageID: "twice", Body: []byte(`{"command": ["x"], "image": "i", "max_attempts": 2, "backoff": 0}`)}
	d = newDelivery(twice)
	b.source.deliveries <- d
	bad := second
	bad.Cause = queue.CauseExit
	b.runner.ended <- bad
	v := b.verdict(d)
	told("default: started, first true, image true", "default: ended, exit, ran 1s")
	twice.History = v.History
	d = newDelivery(twice)
	b.source.deliveries <- d
	b.runner.ended <- bad
	b.verdict(d)
	told("default: started, first false, image true", "default: ended, exit, ran 1s", "default: failed, exit, buried true")

	// What never runs.
	d = newDelivery(queue.Message{MessageID: "none", Body: []byte(`{}`)})
	b.source.deliveries <- d
	b.verdict(d)
	told("default: rejected, rejected, buried true")
	d = newDelivery(queue.Message{MessageID: "late", Body: []byte(`{"command": ["x"], "deadline": "2020-01-01T00:00:00Z"}`)})
	b.source.deliveries <- d
	b.verdict(d)
	told("default: failed, deadline, buried false")

	// One that is cancelled has that for its cause, whatever its worker made of it.
	d = newDelivery(queue.Message{MessageID: "long", Body: message.Body})
	b.source.deliveries <- d
	b.until("it runs", func() bool { list, _ := b.List(t.Context(), 0); return len(list) == 1 && list[0].PID != 0 })
	if _, err := b.Cancel(t.Context(), "long"); err != nil {
		t.Fatal(err)
	}
	b.verdict(d)
	told("default: started, first true, image false", "default: ended, cancelled, ran 0s", "default: cancelled, cancelled, buried false")
}

// TestNumbers counts tasks that run, wait and are settled.
func TestNumbers(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	gate := make(chan struct{})
	send := func(id string) *delivery {
		d := newDelivery(queue.Message{MessageID: id, Body: message.Body})
		d.gate = gate
		b.source.deliveries <- d
		return d
	}
	n := b.Numbers()
	if n.State != "serving" || n.UnconfirmedMax != unconfirmedMax || n.Oldest != 0 || n.Lent.MilliCPU != 0 || n.Capacity.MilliCPU != 1000 ||
		!maps.Equal(n.Held, map[Status]int{Waiting: 0, Running: 0, Stopping: 0, Settling: 0}) {
		t.Errorf("idle: %+v", n)
	}
	all := []*delivery{send("a")}
	b.runner.ended <- worker.Outcome{Cause: queue.CauseNone}
	b.until("it is settled", func() bool { return b.Numbers().Held[Settling] == 1 })
	all = append(all, send("b"), send("c"), send("d"))
	b.until("one runs", func() bool { return b.Numbers().Held[Running] == 1 && b.Numbers().Held[Waiting] == 2 })
	all = append(all, send("e"))
	b.until("all are here", func() bool { return b.Numbers().Held[Waiting] == 3 })
	n = b.Numbers()
	if n.Demand != 6 || n.Unconfirmed != 1 || n.Oldest <= 0 || n.Oldest > time.Minute || n.Lent.MilliCPU != 1000 || n.Quarantined != 0 ||
		!maps.Equal(n.Held, map[Status]int{Waiting: 3, Running: 1, Stopping: 0, Settling: 1}) {
		t.Errorf("busy: %+v", n)
	}
	close(gate)
	for range 4 {
		b.runner.ended <- worker.Outcome{Cause: queue.CauseNone}
	}
	for _, d := range all {
		b.verdict(d)
	}
}
