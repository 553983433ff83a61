// Package worker carries one attempt from its lease to its outcome.
//
// # Theory of operation
//
// An [Attempt] is a task, the number of the try and what it may use. A [Runner] runs it and returns an [Outcome]: a value
// with one cause. The base runner (base) builds the program's [isolation.Spec], hands it to the sandbox and classifies the
// exit; one decorator per concern is laid around it: [Files] gives the attempt its files. The pure parts (spec,
// classify) know nothing of the world.
//
// The attempt travels with the program as the sandbox's note, so that a manager that starts anew finds everything that it
// needs to go on with a worker that its predecessor began.
package worker

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"time"

	"github.com/mayfly/mayfly/gpu"
	"github.com/mayfly/mayfly/queue"
)

// Lease is what a running attempt holds of its host.
type Lease struct {
	// MilliCPU is in thousandths of a core.
	MilliCPU int64 `json:"milli_cpu"`
	// Memory and Disk are in bytes.
	Memory int64 `json:"memory"`
	Disk   int64 `json:"disk"`
	// PIDs bounds processes and threads.
	PIDs int64 `json:"pids"`
	// Cores says how much of which processors the attempt runs on, in thousandths by their numbers; empty where it may run on
	// all.
	Cores map[int]int64 `json:"cores,omitempty"`
	// GPUs are the devices that it has, in the order in which it sees them.
	GPUs []gpu.Grant `json:"gpus,omitempty"`
}

// GPUNames are the UUIDs of the GPUs, nil where there are none.
func (l *Lease) GPUNames() []string {
	var names []string
	for _, g := range l.GPUs {
		names = append(names, g.UUID)
	}
	return names
}

// cores are the numbers of the processors.
func (l *Lease) cores() []int { return slices.Sorted(maps.Keys(l.Cores)) }

// Attempt is one try at a task on this host.
type Attempt struct {
	// Task has its type resolved and the host's defaults filled in.
	Task queue.Task `json:"task"`
	// Number counts the attempts at the task on all hosts, from 1.
	Number int    `json:"number"`
	Host   string `json:"host"`
	Lease  Lease  `json:"lease"`
	// Band, QueuedAt and Guessed are the message's, for those who ask while no delivery is at hand.
	Band     queue.Band `json:"band"`
	QueuedAt time.Time  `json:"queued_at"`
	Guessed  bool       `json:"guessed,omitempty"`
	// History holds the attempts before this one.
	History []queue.Past `json:"history,omitempty"`
	// Fingerprint tells messages with the same task id apart.
	Fingerprint [16]byte `json:"fingerprint"`
	// Trace is the context of the message's trace.
	Trace Trace `json:"trace,omitzero"`

	// joined says that an earlier life began it.
	joined bool
}

// Dated is when its message was queued, or zero where that is guessed.
func (a *Attempt) Dated() time.Time {
	if a.Guessed {
		return time.Time{}
	}
	return a.QueuedAt
}

// ID names the attempt: "<task id>.<number>".
func (a *Attempt) ID() string { return queue.AttemptID(a.Task.ID, a.Number) }

// Outcome is how an attempt ended.
type Outcome struct {
	Cause queue.Cause
	// Message is one sentence, or empty when the worker succeeded and there is nothing to say.
	Message string
	// ExitCode is nil unless the worker exited by itself.
	ExitCode *int
	// Signal is the name of the signal that ended the worker, or empty.
	Signal     string
	StartedAt  time.Time
	FinishedAt time.Time
	Usage      queue.Usage
	// Result is what the worker wrote to MAYFLY_RESULT, or nil.
	Result     json.RawMessage
	StdoutTail string
	StderrTail string
	// Left says what of the worker does not die, or is empty. Its lease stays lent to that until the sandbox says that it is
	// gone.
	Left string
}

// Past returns the outcome as an entry of the task's history.
func (o *Outcome) Past(a *Attempt) queue.Past {
	return queue.Past{Attempt: a.Number, Host: a.Host, Cause: o.Cause, ExitCode: o.ExitCode, Signal: o.Signal,
		Message: shorten(o.Message, maxPastMessage), StartedAt: o.StartedAt, FinishedAt: o.FinishedAt}
}

// maxPastMessage bounds a message in the history, in bytes: a hundred entries must fit one AMQP header frame.
const maxPastMessage = 200

// Held is an attempt that an earlier life of the manager began.
type Held struct {
	Attempt Attempt
	PID     int
	// StartedAt is when its worker was born.
	StartedAt time.Time
	// Ended says that its worker has ended; Run returns its outcome at once.
	Ended bool
	// Left says that something of it does not die: its lease is not free. Settled, that it was released before and is held
	// for that alone.
	Left, Settled bool
}

// Runner runs attempts.
type Runner interface {
	// Run runs the attempt's worker, or joins the one that is held under its id, and returns its outcome when nothing of
	// it is left. started (when not nil) is called once the worker runs. When ctx ends the worker is stopped and the
	// outcome's cause is cancelled. An error means that the outcome is not known, and nil, because the runner was let go of
	// (isolation.ErrDetached).
	Run(ctx context.Context, a *Attempt, started func(pid int, at time.Time)) (*Outcome, error)
	// Held lists the attempts that an earlier life left.
	Held(ctx context.Context) ([]Held, error)
	// Release forgets an ended attempt, once it is settled.
	Release(attemptID string)
}
