package manager

import (
	"fmt"
	"time"

	"github.com/mayfly/mayfly/queue"
	"github.com/mayfly/mayfly/worker"
)

const (
	// hostFaultsMax bounds the attempts at one task that hosts may lose before the task is taken for what kills them.
	hostFaultsMax = 10
	// hostFaultBackoff is the wait after the first host fault; it doubles up to hostFaultMax, which is short because it
	// is not the task that has to change.
	hostFaultBackoff = time.Second
	hostFaultMax     = time.Minute
	// backoffMax is the longest wait between two tries: the longest wait queue.
	backoffMax = time.Hour
)

// finding is all that a judgement rests on.
type finding struct {
	attempt *worker.Attempt
	outcome *worker.Outcome
	// started says that there was a worker.
	started bool
	// cancelled says that somebody asked for the task's end; drained that the host stopped the worker for its own sake, cutOff that it did because
	// the queue was out of reach.
	cancelled, drained, cutOff bool
	now                        time.Time
	// jitter is a random number in [0, 1).
	jitter float64
}

// judge decides what becomes of a delivery whose attempt has ended. It is a pure function.
func judge(f finding) queue.Verdict {
	t, o := &f.attempt.Task, f.outcome
	switch {
	case o.Cause == queue.CauseNone:
		return queue.Verdict{Action: queue.Done, Result: f.result(queue.Succeeded)}
	case f.cancelled:
		o.Cause, o.Message = queue.CauseCancelled, "the task was cancelled while it ran"
		return queue.Verdict{Action: queue.Done, Result: f.result(queue.Cancelled)}
	case f.drained && o.Cause == queue.CauseCancelled:
		o.Cause, o.Message = queue.CauseHostLost, "the host was drained and stopped the worker"
		return queue.Verdict{Action: queue.Retry, History: f.history()}
	case f.cutOff && o.Cause == queue.CauseCancelled:
		o.Cause, o.Message = queue.CauseHostLost, "the host was cut off from the queue and stopped the worker (on_lost)"
		return queue.Verdict{Action: queue.Retry, History: f.history()}
	case o.Cause == queue.CauseCancelled:
		o.Cause, o.Message = queue.CauseHostLost, "the host's manager before this one had stopped the worker"
		return queue.Verdict{Action: queue.Retry, History: f.history()}
	}
	tries, faults := 0, 0
	for _, past := range f.history() {
		if past.Cause.HostFault() {
			faults++
		} else {
			tries++
		}
	}
	var delay time.Duration
	switch fault := o.Cause.HostFault(); {
	case fault && faults >= hostFaultsMax:
		return f.bury(fmt.Sprintf("the task was lost with its host or worker %d times: %s", faults, o.Message))
	case fault:
		delay = min(hostFaultMax, backoff(hostFaultBackoff, faults, f.jitter))
	case tries >= t.MaxAttempts:
		return f.bury(fmt.Sprintf("attempt %d of %d failed: %s", tries, t.MaxAttempts, o.Message))
	default:
		delay = backoff(t.Backoff, tries, f.jitter)
	}
	if !t.Deadline.IsZero() && f.now.Add(delay).After(t.Deadline) {
		return f.bury(fmt.Sprintf("the next try would begin after the deadline %s; the last one failed: %s",
			t.Deadline.Format(time.RFC3339), o.Message))
	}
	return queue.Verdict{Action: queue.Retry, Delay: delay, History: f.history()}
}

// backoff returns the wait before try n+1: base doubled for each try before, and up to a quarter of that on top, so that
// tasks that failed together do not come back together.
func backoff(base time.Duration, n int, jitter float64) time.Duration {
	wait := base
	for range n - 1 {
		if wait *= 2; wait >= backoffMax {
			wait = backoffMax
			break
		}
	}
	return min(backoffMax, wait+time.Duration(float64(wait)/4*jitter))
}

func (f *finding) history() []queue.Past {
	h := make([]queue.Past, 0, len(f.attempt.History)+1)
	return append(append(h, f.attempt.History...), f.outcome.Past(f.attempt))
}

func (f *finding) bury(reason string) queue.Verdict {
	return queue.Verdict{Action: queue.Bury, Result: f.result(queue.Failed), Reason: reason, History: f.history()}
}

// result makes the task's result from its last attempt.
func (f *finding) result(state queue.State) *queue.Result {
	a, o := f.attempt, f.outcome
	queued, started, finished := f.attempt.QueuedAt, o.StartedAt, o.FinishedAt
	return &queue.Result{
		ID: a.Task.ID, Name: a.Task.Name, Pool: a.Task.Pool,
		State: state, Cause: o.Cause, Message: o.Message, ExitCode: o.ExitCode, Signal: o.Signal,
		Attempt: a.Number, Attempts: f.history(), Host: a.Host, GPUs: append([]string{}, a.Lease.GPUNames()...),
		QueuedAt: &queued, StartedAt: &started, FinishedAt: &finished, Usage: o.Usage,
		Result: o.Result, StdoutTail: o.StdoutTail, StderrTail: o.StderrTail,
	}
}

// unstarted makes the result of a task that ends without another attempt.
func unstarted(t *queue.Task, m queue.Message, host string, state queue.State, cause queue.Cause, sentence string, now time.Time) *queue.Result {
	queued := m.QueuedAt
	history := m.History
	if history == nil {
		history = []queue.Past{}
	}
	last := 0
	if n := len(history); n > 0 {
		last = history[n-1].Attempt
	}
	return &queue.Result{ID: t.ID, Name: t.Name, Pool: t.Pool, State: state, Cause: cause, Message: sentence,
		Attempt: last, Attempts: history, Host: host, GPUs: []string{}, QueuedAt: &queued, FinishedAt: &now}
}
