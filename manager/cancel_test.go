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
	b.source.deliveries <- newDelivery(message)
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
