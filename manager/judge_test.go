package manager

import (
	"testing"
	"time"

	"github.com/mayfly/mayfly/queue"
	"github.com/mayfly/mayfly/worker"
)

func TestJudge(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	failed := queue.Past{Cause: queue.CauseExit}
	lost := queue.Past{Cause: queue.CauseHostLost}
	times := func(p queue.Past, n int) []queue.Past {
		list := make([]queue.Past, n)
		for i := range list {
			list[i] = p
			list[i].Attempt = i + 1
		}
		return list
	}
	tests := []struct {
		name      string
		max       int
		history   []queue.Past
		cause     queue.Cause
		cancelled bool
		drained   bool
		deadline  time.Time

		action queue.Action
		state  queue.State
		want   queue.Cause
		delay  time.Duration
	}{
		{name: "success", max: 1, cause: queue.CauseNone, action: queue.Done, state: queue.Succeeded, want: queue.CauseNone},
		{name: "success although cancelled", max: 1, cause: queue.CauseNone, cancelled: true, action: queue.Done, state: queue.Succeeded, want: queue.CauseNone},
		{name: "last try", max: 1, cause: queue.CauseExit, action: queue.Bury, state: queue.Failed, want: queue.CauseExit},
		{name: "one more try", max: 2, cause: queue.CauseExit, action: queue.Retry, delay: 8 * time.Second},
		{name: "third try waits longer", max: 3, history: times(failed, 1), cause: queue.CauseTimeout, action: queue.Retry, delay: 16 * time.Second},
		{name: "tries used up", max: 3, history: times(failed, 2), cause: queue.CauseTimeout, action: queue.Bury, state: queue.Failed, want: queue.CauseTimeout},
		{name: "host faults are no tries", max: 2, history: times(lost, 3), cause: queue.CauseSignal, action: queue.Retry, delay: 8 * time.Second},
		{name: "host fault on the last try", max: 1, cause: queue.CauseHostLost, action: queue.Retry, delay: time.Second},
		{name: "the eighth host fault", max: 1, history: times(lost, 8), cause: queue.CauseHostLost, action: queue.Retry, delay: time.Minute},
		{name: "what kills hosts", max: 1, history: times(lost, hostFaultsMax-1), cause: queue.CauseHostLost, action: queue.Bury, state: queue.Failed, want: queue.CauseHostLost},
		{name: "cancelled", max: 5, cause: queue.CauseCancelled, cancelled: true, action: queue.Done, state: queue.Cancelled, want: queue.CauseCancelled},
		{name: "cancelled as it timed out", max: 5, cause: queue.CauseTimeout, cancelled: true, action: queue.Done, state: queue.Cancelled, want: queue.CauseCancelled},
		{name: "drained", max: 1, cause: queue.CauseCancelled, drained: true, action: queue.Retry},
		{name: "stopped by the manager before", max: 1, cause: queue.CauseCancelled, action: queue.Retry},
		{name: "failed by itself while draining", max: 1, cause: queue.CauseExit, drained: true, action: queue.Bury, state: queue.Failed, want: queue.CauseExit},
		{name: "no try after the deadline", max: 5, cause: queue.CauseExit, deadline: now.Add(5 * time.Second), action: queue.Bury, state: queue.Failed, want: queue.CauseExit},
		{name: "a try before the deadline", max: 5, cause: queue.CauseExit, deadline: now.Add(9 * time.Second), action: queue.Retry, delay: 8 * time.Second},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			a := &worker.Attempt{Number: len(tt.history) + 1, Host: "h", History: tt.history,
				Task: queue.Task{ID: "t", MaxAttempts: tt.max, Backoff: 8 * time.Second, Deadline: tt.deadline}}
			v := judge(finding{attempt: a, outcome: &worker.Outcome{Cause: tt.cause, Message: "why"},
				cancelled: tt.cancelled, drained: tt.drained, now: now})
			if v.Action != tt.action || v.Delay != tt.delay {
				t.Fatalf("judge = %s after %s, want %s after %s", v.Action, v.Delay, tt.action, tt.delay)
			}
			if (v.Result != nil) != (tt.action != queue.Retry) {
				t.Fatalf("result = %+v with action %s", v.Result, v.Action)
			}
			if v.Result != nil && (v.Result.State != tt.state || v.Result.Cause != tt.want || v.Result.Attempt != a.Number || len(v.Result.Attempts) != a.Number) {
				t.Errorf("result = %+v, want state %s, cause %s, %d attempts", v.Result, tt.state, tt.want, a.Number)
			}
			if v.Action == queue.Retry && (len(v.History) != a.Number || v.History[a.Number-1].Attempt != a.Number) {
				t.Errorf("history = %+v, want it to end with attempt %d", v.History, a.Number)
			}
			if v.Action == queue.Bury && v.Reason == "" {
				t.Error("buried without a reason")
			}
		})
	}
}

func TestBackoff(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		base   time.Duration
		n      int
		jitter float64
		want   time.Duration
	}{
		{time.Second, 1, 0, time.Second},
		{time.Second, 1, 1, 1250 * time.Millisecond},
		{time.Second, 4, 0, 8 * time.Second},
		{time.Second, 100, 1, backoffMax},
		{2 * time.Hour, 1, 0, backoffMax},
		{0, 50, 1, 0},
	} {
		if got := backoff(tt.base, tt.n, tt.jitter); got != tt.want {
			t.Errorf("backoff(%s, %d, %g) = %s, want %s", tt.base, tt.n, tt.jitter, got, tt.want)
		}
	}
}
