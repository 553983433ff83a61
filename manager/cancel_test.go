package manager

import (
	"testing"
	"time"

	"github.com/mayfly/mayfly/queue"
	"github.com/mayfly/mayfly/worker"
)

// TestCancelMarks has cancellations that came before their tasks.
func TestCancelMarks(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for _, tt := range []struct {
		name string
		c    queue.Cancellation
		m    queue.Message
		want bool
	}{
		{"older", queue.Cancellation{ID: "t", At: now}, queue.Message{QueuedAt: now.Add(-time.Second)}, true},
		{"newer", queue.Cancellation{ID: "t", At: now}, queue.Message{QueuedAt: now.Add(time.Second)}, false},
		{"undated", queue.Cancellation{ID: "t", At: now}, queue.Message{QueuedAt: now.Add(time.Second), Undated: true}, true},
		{"another", queue.Cancellation{ID: "u", At: now}, queue.Message{QueuedAt: now.Add(-time.Second)}, false},
		{"label", queue.Cancellation{Label: "a", Value: "b", At: now}, queue.Message{QueuedAt: now.Add(-time.Second)}, true},
		{"other value", queue.Cancellation{Label: "a", Value: "c", At: now}, queue.Message{QueuedAt: now.Add(-time.Second)}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b, _ := newFleet(t)
			b.Cancelled(tt.c)
			task := queue.Task{ID: "t", Labels: map[string]string{"a": "b"}}
			if got := b.markedCancelled(&task, &tt.m); got != tt.want {
				t.Errorf("cancelled: %v, want %v", got, tt.want)
			}
			older := tt.c
			older.At = now.Add(-time.Hour)
			b.Cancelled(older) // heard again: the latest counts
			if got := b.markedCancelled(&task, &tt.m); got != tt.want {
				t.Errorf("cancelled after all: %v, want %v", got, tt.want)
			}
		})
	}
}

// TestCancelledBeforeAdoption has a manager die after it has told a worker to stop because its task was cancelled: the next one finds the exit, and knows why.
func TestCancelledBeforeAdoption(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	first := newDelivery(message)
	first.gate = make(chan struct{})
	defer close(first.gate) // it never settles it
	b.source.deliveries <- first
	b.until("it runs", func() bool { return b.ran("t.1") == 1 })
	if _, err := b.Cancel(t.Context(), "t"); err != nil {
		t.Fatal(err)
	}
	m := newDelivery(message).message
	a := worker.Attempt{Task: queue.Task{ID: "t", MaxAttempts: 1, Pool: "default"}, Number: 1, Host: "h", QueuedAt: time.Now(), Fingerprint: m.Fingerprint()}
	next := newBench(t, func(s *Services) {
		s.History = b.history
		s.Runner = holding{s.Runner.(*runner), []worker.Held{{Attempt: a, Ended: true}}, make(chan string, 1)}
	})
	next.until("it is adopted", func() bool { return next.ran("t.1") == 1 })
	again := message
	again.Redelivered = true
	d := newDelivery(again)
	next.source.deliveries <- d
	if v := next.verdict(d); v.Action != queue.Done || v.Result == nil || v.Result.State != queue.Cancelled {
		t.Errorf("verdict = %+v, want it cancelled", v)
	}
	if _, ok := b.history.CancelMark("t"); ok {
		t.Error("the next task with this id is cancelled, too")
	}
}

// TestStopMarkGoes has a worker that was stopped for a cancellation be settled: the next manager takes no other attempt of that name for it.
func TestStopMarkGoes(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	d := newDelivery(message)
	b.source.deliveries <- d
	b.until("it runs", func() bool { return b.ran("t.1") == 1 })
	if _, err := b.Cancel(t.Context(), "t"); err != nil {
		t.Fatal(err)
	}
	b.verdict(d)
	b.until("it is forgotten", func() bool { list, _ := b.List(t.Context(), 0); return len(list) == 0 })
	if _, ok := b.history.CancelMark(stopMark("t.1")); ok {
		t.Error("it is kept that t.1 was stopped")
	}
}

// TestStopMarkOfBefore has a manager adopt an attempt of the same name as one that was stopped before it was born, and one that was stopped since.
func TestStopMarkOfBefore(t *testing.T) {
	t.Parallel()
	born := time.Now()
	for name, tt := range map[string]struct {
		stopped time.Time
		want    queue.State
	}{"before": {born.Add(-time.Minute), queue.Succeeded}, "since": {born.Add(time.Millisecond), queue.Cancelled}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			again := message
			again.Redelivered = true
			d := newDelivery(again)
			a := worker.Attempt{Task: queue.Task{ID: "t", MaxAttempts: 1, Pool: "default"}, Number: 1, Host: "h", QueuedAt: born, Fingerprint: d.message.Fingerprint()}
			b := newBench(t, func(s *Services) {
				s.History.MarkCancel(stopMark("t.1"), tt.stopped)
				s.Runner = holding{s.Runner.(*runner), []worker.Held{{Attempt: a, PID: 1, StartedAt: born}}, make(chan string, 1)}
			})
			b.source.deliveries <- d
			if tt.want == queue.Succeeded {
				select {
				case b.runner.ended <- worker.Outcome{Cause: queue.CauseNone}:
				case v := <-d.verdicts:
					d.verdicts <- v
				}
			}
			if v := b.verdict(d); v.Result == nil || v.Result.State != tt.want {
				t.Errorf("verdict = %+v, want it %s", v, tt.want)
			}
		})
	}
}

// TestCancelledBetweenTries cancels a task on a host of its own while it is being put back for its next try, of which there is none then.
func TestCancelledBetweenTries(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	m := retried
	m.QueuedAt = time.Now().Add(-time.Second)
	first := newDelivery(m)
	first.gate = make(chan struct{})
	b.source.deliveries <- first
	b.runner.ended <- worker.Outcome{Cause: queue.CauseExit}
	b.until("it is settled", func() bool { v, err := b.Show(t.Context(), "t"); return err == nil && v.Status == Settling })
	if _, err := b.Cancel(t.Context(), "t"); err != nil {
		t.Fatal(err)
	}
	close(first.gate)
	m.History = b.verdict(first).History
	second := newDelivery(m)
	b.source.deliveries <- second
	select {
	case b.runner.ended <- worker.Outcome{Cause: queue.CauseNone}:
		t.Error("it runs again")
	case v := <-second.verdicts:
		if v.Result == nil || v.Result.State != queue.Cancelled {
			t.Errorf("verdict = %+v", v)
		}
	}
}
