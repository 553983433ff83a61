package manager

import (
	"context"
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
	// acceptedAt is when the message came; leasedAt, startedAt and finishedAt are zero until then. An earlier manager's leasedAt is not known.
	acceptedAt, leasedAt, startedAt, finishedAt time.Time
	seq                                         uint64
	// submitter is whose share of the host it counts against.
	submitter string
	// begun says that a worker was (or may have been) started, adopted that it was so by an earlier manager.
	begun, adopted bool
	// released says that the exit of its worker was let go of.
	released bool
	// recorded says that the task's end is in the history; only its message is still to be given up.
	recorded bool
	// inquiry is what other hosts are asked about it, or nil; held says that nothing is done with it before they have answered.
	// asked says that they were asked to take it.
	inquiry     *inquiry
	held, asked bool
	// standBy is until when it waits for the loss of an entry like it, see alike.
	standBy time.Time
	// returned says that its message was elsewhere before, and may belong to an active entry.
	returned bool
	// copied says that others wonder who has its message, which came as if for the first time: there are two.
	copied bool
	// overtaken says that a later attempt of its task has run here while it waited: its own may be settled elsewhere.
	overtaken bool
	// recheck says that a task with the same id was settled here since the history was looked into for it: that is too dear for each time that something starts or ends.
	recheck bool
	// undated says that nobody knows since when its message has been queued.
	undated bool
	// before is the attempt as which its message was settled before, by its id, or empty.
	before string
	// doubtful says that another host has said that it has begun it, and could not be handed it.
	doubtful bool
	// unowned says that no host has said that it has begun it: one that was away may yet.
	unowned bool
	// toldParked says that others were told that it is parked.
	toldParked bool
	// owning has it owned once it has run for long.
	owning *time.Timer
	// misfit says why it can never run here, or is empty; refused, that this host does not know its type, or does not allow what it asks for, and silent
	// that another host may take it which has not said so.
	misfit          string
	refused, silent bool
	// cancel stops the worker; cancelled says that somebody asked for it.
	// stopKept says that this is kept for the next manager.
	cancel              context.CancelFunc
	cancelled, stopKept bool
	// cutOff says that it is stopped because the queue is out of reach.
	cutOff bool
	// inVain is closed when settledBy is known to have settled the attempt.
	inVain    chan struct{}
	settledBy string
	// followed is closed when its next try is here, see makeWay.
	followed chan struct{}
}

func newEntry(a worker.Attempt, d queue.Delivery) *entry {
	e := &entry{attempt: a, delivery: d, arrived: make(chan struct{}), inVain: make(chan struct{}), followed: make(chan struct{}), status: Waiting, acceptedAt: time.Now()}
	if d != nil {
		msg := d.Message()
		e.returned, e.undated = msg.Redelivered || msg.HandedBy != "", msg.Undated
	}
	return e
}

// handed reports whether another host has handed the entry to this one.
func (e *entry) handed() bool { return e.delivery != nil && e.delivery.Message().HandedBy != "" }

// is reports whether the entry's message may be the one with the fingerprint that was queued then: the same task may have been submitted before, word for word. Where nobody knows
// when one of them was queued (zero), it is taken to be.
func (e *entry) is(fingerprint [16]byte, queuedAt time.Time) bool {
	return isMessage(&e.attempt, fingerprint, queuedAt)
}

func isMessage(a *worker.Attempt, fingerprint [16]byte, queuedAt time.Time) bool {
	dated := a.Dated()
	return a.Fingerprint == fingerprint && (queuedAt.IsZero() || dated.IsZero() || dated.Equal(queuedAt))
}

// givenUp reports whether the entry waits for its message no more: what comes now is nobody's.
func (e *entry) givenUp() bool {
	select {
	case <-e.followed:
		return true
	default:
		return e.settledBy != ""
	}
}

// precedes reports whether an attempt is a later one than the entry's, whose record says that all which was due is confirmed: its message is a copy for the next try, and not the
// entry's own.
func (e *entry) precedes(a *worker.Attempt) bool {
	return e.recorded && a.Number > e.attempt.Number
}

// adopting reports whether another host may have begun the entry.
func (e *entry) adopting() bool {
	return e.inquiry != nil && e.inquiry.question.Purpose == queue.ToAdopt
}

// mayBegin reports whether the entry may begin here without others being asked again who has begun it.
func (e *entry) mayBegin() bool {
	return !e.held || e.misfit == "" && e.inquiry != nil && !e.adopting()
}

// noTaker reports whether no host can run the entry now.
func (e *entry) noTaker() bool {
	return e.inquiry != nil && e.inquiry.question.Purpose == queue.ToRun && !e.inquiry.until.IsZero()
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
	if e.before != "" {
		return e.before
	}
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

// maxCommandLine bounds, in bytes, what is remembered and shown of a command: a hundred thousand tasks may be.
const maxCommandLine = 4096

// commandLine is the beginning of a task's command as people read it.
func commandLine(t *queue.Task) string {
	words := t.Command
	switch {
	case t.Type != "":
		words = []string{t.Type, string(t.Params[:min(len(t.Params), maxCommandLine+1)])}
	case t.Shell != "":
		words = []string{t.Shell}
	case len(words) == 0:
		words = []string{t.Image}
	}
	var line strings.Builder
	for i, word := range words {
		if i > 0 {
			line.WriteByte(' ')
		}
		line.WriteString(word)
		if line.Len() > maxCommandLine {
			return strings.ToValidUTF8(line.String()[:maxCommandLine], "") + "…"
		}
	}
	return line.String()
}

func (e *entry) view() View {
	a, t := &e.attempt, &e.attempt.Task
	status := e.status
	if e.noTaker() {
		status = Parked
	}
	v := View{ID: t.ID, Name: t.Name, Pool: t.Pool, Band: a.Band, Status: status, Reason: e.reason, Attempt: a.Number,
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
