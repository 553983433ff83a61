package manager

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/mayfly/mayfly/queue"
	"github.com/mayfly/mayfly/worker"
)

// entry is one message in the manager's hands: the attempt that it stands for and the delivery that is owed a verdict.
// The manager's lock guards all but the attempt, which is not written to once its worker is begun.
type entry struct {
	attempt worker.Attempt
	// choices are the ways in which it may run here, while it waits.
	choices []choice
	// delivery is nil, or lost, while the queue has the message back and has not delivered it again.
	delivery queue.Delivery
	// arrived is closed when a delivery joins; replaced each time.
	arrived chan struct{}
	status  Status
	reason  string
	pid     int
	// acceptedAt is when the message came; startedAt and finishedAt are zero until then.
	acceptedAt, startedAt, finishedAt time.Time
	seq                               uint64
	// begun says that a worker was (or may have been) started.
	begun bool
	// recorded says that the task's end is in the history; only its message is still to be given up.
	recorded bool
	// cancel stops the worker; cancelled says that somebody asked for it.
	cancel    context.CancelFunc
	cancelled bool
}

func newEntry(a worker.Attempt, d queue.Delivery) *entry {
	return &entry{attempt: a, delivery: d, arrived: make(chan struct{}), status: Waiting, acceptedAt: time.Now()}
}

// atHand reports whether the entry has a delivery that can be settled.
func (e *entry) atHand() bool {
	if e.delivery == nil {
		return false
	}
	select {
	case <-e.delivery.Lost():
		return false
	default:
		return true
	}
}

// recordID names the entry in the history: its attempt, or "<task id>.0" where none was begun here.
func (e *entry) recordID() string {
	if e.begun {
		return e.attempt.ID()
	}
	return queue.AttemptID(e.attempt.Task.ID, 0)
}

// join gives the entry a new delivery of its message.
func (e *entry) join(d queue.Delivery) {
	e.delivery = d
	close(e.arrived)
	e.arrived = make(chan struct{})
}

// before orders waiting entries: band, priority, then arrival.
func before(a, b *entry) int {
	return cmp.Or(
		cmp.Compare(slices.Index(queue.Bands, a.attempt.Band), slices.Index(queue.Bands, b.attempt.Band)),
		cmp.Compare(b.attempt.Task.Priority, a.attempt.Task.Priority),
		cmp.Compare(a.seq, b.seq),
	)
}

// commandLine is a task's command as people read it.
func commandLine(t *queue.Task) string {
	switch {
	case t.Type != "":
		return t.Type + " " + string(t.Params)
	case t.Shell != "":
		return t.Shell
	case len(t.Command) > 0:
		return strings.Join(t.Command, " ")
	}
	return t.Image
}

func (e *entry) view() View {
	a, t := &e.attempt, &e.attempt.Task
	v := View{ID: t.ID, Name: t.Name, Pool: t.Pool, Band: a.Band, Status: e.status, Reason: e.reason, Attempt: a.Number,
		Command: commandLine(t), PID: e.pid, CPU: float64(a.Lease.MilliCPU) / 1000, Memory: a.Lease.Memory, GPUs: a.Lease.GPUNames(),
		Labels: t.Labels, QueuedAt: a.QueuedAt, Attempts: a.History}
	if !e.startedAt.IsZero() {
		at := e.startedAt
		v.StartedAt = &at
	}
	if !e.finishedAt.IsZero() {
		at := e.finishedAt
		v.FinishedAt = &at
	}
	return v
}
