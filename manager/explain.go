package manager

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/mayfly/mayfly/queue"
)

// Explanation says why a task is where it is.
type Explanation struct {
	ID     string `json:"id"`
	Status Status `json:"status"`
	// Sentence is for people.
	Sentence string `json:"sentence"`
	// Since is when what it says began, where that is known.
	Since *time.Time `json:"since,omitempty"`
	// Hosts says what each other host that answered has of the task, or lacks for it, where the task waits.
	Hosts []HostSays `json:"hosts,omitempty"`
}

// HostSays is one host's sentence.
type HostSays struct {
	Host string `json:"host"`
	Says string `json:"says"`
}

// Explain implements Backend.
func (m *Manager) Explain(ctx context.Context, id string) (Explanation, error) {
	x, err := m.explainAlone(ctx, id)
	if m.Fleet == nil || err != nil && !errors.Is(err, ErrUnknownTask) {
		return x, err
	}
	return m.explainFleet(ctx, id, x, err)
}

// explainAlone says what this host knows.
func (m *Manager) explainAlone(ctx context.Context, id string) (Explanation, error) {
	m.mu.Lock()
	for _, e := range m.entriesOf(id) {
		if !e.recorded {
			defer m.mu.Unlock()
			return m.explainHeld(e), nil
		}
	}
	m.mu.Unlock()
	v, err := m.Show(ctx, id)
	if err != nil {
		return Explanation{}, err
	}
	x := Explanation{ID: id, Status: v.Status}
	switch v.Status {
	case Queued:
		x.Since = &v.QueuedAt
		x.Sentence = m.explainQueued(&v)
	case BackingOff:
		x.Sentence = fmt.Sprintf("attempt %d failed (%s); it waits in the queue for its next try", v.Attempt, v.Reason)
		if n := len(v.Attempts); n > 0 {
			x.Since = &v.Attempts[n-1].FinishedAt
		}
	case Parked:
		x.Sentence = "it is parked: " + v.Reason
	case Ended:
		x.Since = v.FinishedAt
		x.Sentence = "it " + ending(v.Result)
	default: // it came out of the queue meanwhile
		x.Sentence = "it has just been taken by this host"
	}
	return x, nil
}

// ending says how a task ended, in words that follow "it ".
func ending(r *queue.Result) string {
	switch r.State {
	case queue.Succeeded:
		return "succeeded"
	case queue.Cancelled:
		return "was cancelled"
	case queue.Rejected:
		return "was rejected: " + r.Message
	}
	return "failed: " + r.Message
}

// explainHeld says why a task that this host holds is where it is. The lock is held.
func (m *Manager) explainHeld(e *entry) Explanation {
	x := Explanation{ID: e.attempt.Task.ID, Status: e.view().Status}
	since := e.acceptedAt
	switch {
	case e.status == Waiting && !e.atHand():
		x.Sentence = "its connection to the queue was lost while it waited: it is delivered again when that is back"
	case e.status == Waiting && m.state != serving:
		x.Sentence = "this host is " + m.state + " and starts no tasks: it goes back to the queue"
	case e.status == Waiting && e.reason == "":
		x.Sentence = "it is about to start"
	case e.status == Waiting && e.adopting():
		x.Sentence = "it " + m.heldReason(e)
		if hosts := m.unheard(e.inquiry, e.inquiry.lack); e.inquiry.question.Surely && len(hosts) > 0 { // few are known by name
			x.Sentence += "; no answer yet of " + strings.Join(hosts, ", ")
		}
	case e.status == Waiting:
		x.Sentence = "it " + e.reason
	case e.status == Running && e.pid == 0 && e.startedAt.IsZero():
		x.Sentence = "its worker is being started"
		if e.reason != "" {
			x.Sentence += ": " + e.reason
		}
	case e.status == Running:
		since = e.startedAt
		x.Sentence = fmt.Sprintf("it runs here as attempt %d", e.attempt.Number)
	case e.status == Stopping:
		x.Sentence = fmt.Sprintf("its worker was told to stop and has %s to do so", e.attempt.Task.Grace)
		since = time.Time{}
	case !e.atHand():
		since = e.finishedAt
		x.Sentence = "its worker has ended, but its connection to the queue was lost: it is settled when its message is delivered again"
	default:
		since = e.finishedAt
		x.Sentence = "it has ended; its result is being confirmed by the queue"
	}
	if !since.IsZero() {
		x.Since = &since
	}
	return x
}

// explainQueued says why a task lies in the embedded queue.
func (m *Manager) explainQueued(v *View) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.state != serving {
		return "this host is " + m.state + " and takes no tasks out of the queue"
	}
	return fmt.Sprintf("it lies in the queue %s.%s: this host holds as many tasks as it takes at once (%d run, %d wait for room) and takes the next ones when those end",
		v.Pool, v.Band, len(m.active), len(m.waiting))
}
