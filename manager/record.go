package manager

import (
	"time"

	"github.com/mayfly/mayfly/queue"
	"github.com/mayfly/mayfly/worker"
)

// Record is what a host remembers of an attempt that it has settled.
type Record struct {
	// ID is the attempt's, or "<task id>.0" for a task that was never begun here.
	ID string `json:"id"`
	// Result is the task's; its State is empty where the task is tried again.
	Result      queue.Result      `json:"result"`
	Command     string            `json:"command"`
	Band        queue.Band        `json:"band"`
	Labels      map[string]string `json:"labels,omitempty"`
	Lease       worker.Lease      `json:"lease"`
	Fingerprint [16]byte          `json:"fingerprint"`
	// Guessed says that when the message was queued is not the producer's word.
	Guessed bool `json:"guessed,omitempty"`
	// SettledAt is when everything that was due was confirmed.
	SettledAt time.Time `json:"settled_at"`
	// AckedAt is when the message was given up; zero while that is in doubt.
	AckedAt time.Time `json:"-"`
	// Remote says that another host ran the task and only its result is known here.
	Remote bool `json:"remote,omitempty"`
}

// History remembers settled attempts. Records survive the death of the process.
//
// It is what keeps a message that comes back after its settling from running again: between the confirm and the moment
// when the broker has taken the acknowledgement, a crash or a broken connection brings the message back. Such a message
// is marked as redelivered, has the fingerprint of the recorded attempt, and was not acknowledged longer than ackDoubt
// ago.
type History interface {
	// Put records a settled attempt. It replaces an earlier record of the same task as the task's latest.
	Put(r Record) error
	// Get returns the task's latest record.
	Get(taskID string) (Record, bool)
	// Recent returns the latest records of ended tasks, newest first: n at most, and no more than a bounded look finds.
	Recent(n int) []Record
	// Settled returns the record of an attempt.
	Settled(attemptID string) (Record, bool)
	// Acked notes, in its own time, that the attempt's message was given up now.
	Acked(attemptID string)
	// MarkCancel notes for a day that what has that name was cancelled: a task by its id; a label, or an attempt that was stopped for it, by a name that no task has.
	// It is noted when MarkCancel returns, and survives the process when kept does; kept need not be called.
	MarkCancel(name string, at time.Time) (kept func() error)
	// CancelMark returns when the name was marked last.
	CancelMark(name string) (time.Time, bool)
	// Unmark forgets that a name was marked: at once, and in its own time for good.
	Unmark(name string)
}

// ackDoubt is how long after an acknowledgement was sent its message may still come back: a connection that broke may
// have lost it, and the broker may be away for some minutes before it delivers again. A producer that sends the very same
// message, with the same id and no timestamp, again within this time has it run again all the same, unless a host crashed on it.
const ackDoubt = 10 * time.Minute

// of reports whether the record is that of a message with the fingerprint that was queued then: the same task may have been submitted before, word for word. Where nobody knows
// when one of them was queued (zero), it is taken to be.
func (r *Record) of(fingerprint [16]byte, queuedAt time.Time) bool {
	return r.Fingerprint == fingerprint && (queuedAt.IsZero() || r.Guessed || r.Result.QueuedAt == nil || r.Result.QueuedAt.Equal(queuedAt))
}

// inDoubt reports whether the message of the record may come back although it was settled.
func (r *Record) inDoubt(now time.Time) bool {
	return r.AckedAt.IsZero() || now.Sub(r.AckedAt) < ackDoubt
}
