package manager

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/mayfly/mayfly/internal/logkey"
	"github.com/mayfly/mayfly/isolation"
	"github.com/mayfly/mayfly/queue"
	"github.com/mayfly/mayfly/worker"
)

// unconfirmedMax bounds how many ended tasks may wait for their settlement before nothing more is started. It is far above
// what a settlement's two round trips leave under way at a thousand tasks a second; where the broker or the disk hangs, it
// keeps the host from running through the queue without a result said, and it bounds what a crash makes the host say twice.
const unconfirmedMax = 64

// unconfirmed counts the entries whose settlement is under way. Those without a delivery wait for the queue, and do not
// count: what brings it back to them may stand behind other messages. The lock is held.
func (m *Manager) unconfirmed() int {
	n := len(m.closing)
	for _, e := range m.active {
		if e.status == Settling && e.atHand() {
			n++
		}
	}
	return n
}

// schedule starts what fits, first things first, and what may pass the first that does not. The lock is held.
func (m *Manager) schedule() {
	defer m.setDemand()
	if !m.mayDo() {
		return
	}
	if m.unfit() {
		m.handBack()
		return
	}
	now := time.Now()
	m.sort(now)
	kept := m.waiting[:0]
	full, unsure := m.unconfirmed() >= unconfirmedMax, m.unsure()
	var first *entry      // that has to wait
	var room *reservation // its own, once somebody wants to pass
	for i, e := range m.waiting {
		t := &e.attempt.Task
		switch {
		case m.isElsewhere(e):
			continue
		case !t.Deadline.IsZero() && now.After(t.Deadline) && !m.mayHaveBegun(e):
			m.Log.Info("task too late", logkey.Task, t.ID, logkey.Cause, string(queue.CauseDeadline))
			m.close(e, m.deadlineVerdict(e, now))
			continue
		case m.runsHere(e): // and must not be handed to others
			m.noteOvertaken(e)
			e.reason = "was delivered again: waits until its worker's delivery is known to be lost"
		case e.held:
			e.reason = m.heldReason(e)
		case e.cancelled:
			m.close(e, m.cancelledVerdict(e, now))
			continue
		case m.settledSince(e):
			m.alreadySettled(e)
			continue
		case m.Fleet != nil && e.overtaken: // there is a copy for a later try, so somebody has ended this one
			e.overtaken = false
			m.hold(e, queue.ToAdopt)
			e.reason = m.heldReason(e)
		case m.Fleet != nil && !e.asked && e.misfit != "":
			m.hold(e, queue.ToRun)
			e.reason = m.heldReason(e)
		case e.misfit != "":
			m.cannotRun(e, now)
			continue
		case m.Fleet != nil && !e.asked && !e.handed() && m.avoids(e.attempt.History) && !m.copyWaits(&e.attempt, e):
			m.hold(e, queue.ToSpare)
			e.reason = m.heldReason(e)
		case m.active[t.ID] != nil:
			m.makeWay(m.active[t.ID], e)
			e.reason = "waits for another task with the same id to end"
		case full:
			e.reason = fmt.Sprintf("waits until results are settled: %d are under way", unconfirmedMax)
		case unsure && m.ledger.anyFits(e.choices):
			m.prove()
			e.reason = "waits for a sign of life of the queue, which has said nothing for a while"
		default:
			if first != nil && room == nil && m.ledger.anyFits(e.choices) {
				if room = m.reserve(first, now); room == nil {
					first = nil // whatever ends here does not help it
				}
			}
			var taken *choice
			if taken, e.attempt.Lease, e.reason = m.ledger.lend(e.attempt.ID(), e.choices, room.inTheWay(e, now)); taken != nil {
				t.Resources = taken.resources
				m.turn(e, kept, m.waiting[i+1:])
				m.begin(e)
				if m.shares.on() {
					slices.SortStableFunc(m.waiting[i+1:], m.before) // it is others' turn now
				}
				continue
			}
			e.attempt.Lease = e.choices[0].lease
			if first == nil {
				first = e
			}
		}
		kept = append(kept, e)
	}
	clear(m.waiting[len(kept):])
	m.waiting = kept
	m.watchDeadlines(now)
	m.share(now)
	m.answerKept(now)
}

// setDemand tells the source how many messages the host is prepared to hold. The lock is held.
func (m *Manager) setDemand() {
	m.lookIdle()
	n := 0
	switch {
	case m.state == stopped || m.state == draining && m.Fleet == nil:
	case m.unfit():
		n = m.wanted()
	default:
		n = len(m.active) + len(m.closing) + m.heldCount() + len(m.promises())
		if m.unconfirmed() < unconfirmedMax {
			n += m.config.Window
		}
	}
	if n != m.demand {
		m.demand = n
		m.Source.Demand(n)
	}
}

// begin starts the worker of an entry that has its lease. The lock is held.
func (m *Manager) begin(e *entry) {
	m.leave(e)
	e.status, e.reason, e.begun, e.leasedAt = Running, "", true, time.Now()
	m.active[e.attempt.Task.ID] = e
	m.shares.took(e.submitter, &e.attempt.Lease, e.leasedAt)
	m.launch(e)
}

// isElsewhere lets go of an entry that waits in vain: its delivery is lost, or is that of a worker which runs here. The lock is held.
func (m *Manager) isElsewhere(e *entry) bool {
	if !e.atHand() {
		m.dropWaiting(e)
		return true
	}
	return e.returned && m.joinActive(e)
}

// dropWaiting forgets an entry that waits and has lost its delivery. The lock is held.
func (m *Manager) dropWaiting(e *entry) {
	m.Log.Debug("waiting task lost", logkey.Task, e.attempt.Task.ID)
	unknown := e.adopting()
	m.leave(e)
	if d := e.delivery; !unknown { // whoever gets it next is to know that it was not begun here
		m.group.Go(func() { _ = d.Settle(m.settling, queue.Verdict{Action: queue.Return}, nil) })
	}
}

// joinActive gives the delivery of an entry that waits to the active one of the same message, which has lost its own since. The lock is held.
func (m *Manager) joinActive(e *entry) bool {
	a := m.lostEntry(&e.attempt)
	if a == nil {
		return false
	}
	m.leave(e)
	m.Log.Info("task adopted", logkey.Task, a.attempt.Task.ID, logkey.Attempt, a.attempt.ID(), logkey.State, string(a.status))
	a.join(e.delivery)
	m.notify()
	return true
}

// launch runs the entry's attempt. The lock is held.
func (m *Manager) launch(e *entry) {
	ctx, cancel := context.WithCancel(m.work)
	e.cancel = cancel
	if e.attempt.Task.OnLost == queue.KillOnLost && m.Heard != nil {
		m.watchQueue(e)
	}
	m.own(e)
	m.group.Go(func() {
		defer cancel()
		m.attempt(ctx, e)
	})
}

// attempt takes an entry from its lease to its settlement. A goroutine waits in it for as long as the worker runs.
func (m *Manager) attempt(ctx context.Context, e *entry) {
	outcome, err := m.Runner.Run(ctx, &e.attempt, func(pid int, at time.Time) { m.started(e, pid, at) })
	m.conclude(e, outcome, err)
}

// conclude settles an attempt that has ended.
func (m *Manager) conclude(e *entry, outcome *worker.Outcome, err error) {
	a := &e.attempt
	if err != nil {
		outcome = &worker.Outcome{}
	}
	f := m.ended(e, outcome)
	if err != nil {
		if !errors.Is(err, isolation.ErrDetached) {
			m.Log.Error("worker let go of", logkey.Attempt, a.ID(), logkey.Err, err)
		}
		m.forget(e)
		return
	}
	v := judge(f)
	m.observeEnd(&f)
	m.Log.Info("worker ended", logkey.Task, a.Task.ID, logkey.Attempt, a.ID(), logkey.Cause, string(outcome.Cause),
		logkey.Reason, outcome.Message, "seconds", outcome.Usage.WallSeconds)
	if m.settle(e, v) {
		m.release(e)
	}
	m.forget(e)
}

func (m *Manager) started(e *entry, pid int, at time.Time) {
	a := &e.attempt
	m.Log.Info("worker started", logkey.Task, a.Task.ID, logkey.Attempt, a.ID(), logkey.PID, pid)
	m.mu.Lock()
	born := e.startedAt.IsZero() // else it was adopted
	e.pid, e.startedAt = pid, at
	m.notify()
	m.mu.Unlock()
	if born {
		m.announce(e, queue.EventRunning, func(event *queue.Event) { event.Attempt = a.Number })
		m.observeStart(e, at)
	}
}

// ended gives the lease back, lets the next one start, and says what is to be judged.
func (m *Manager) ended(e *entry, o *worker.Outcome) finding {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.vacate(&e.attempt, o.Left)
	m.shares.gave(e.submitter, &e.attempt.Lease, time.Now())
	m.noteFault(o)
	e.status, e.pid, e.finishedAt = Settling, 0, o.FinishedAt
	m.schedule()
	m.notify()
	return finding{attempt: &e.attempt, outcome: o, started: !e.startedAt.IsZero(), cancelled: e.cancelled, drained: m.drained, cutOff: e.cutOff, now: time.Now(),
		jitter: rand.Float64()}
}

// release lets go of the exit of an attempt that is settled, or given up.
func (m *Manager) release(e *entry) {
	m.Runner.Release(e.attempt.ID())
	m.mu.Lock()
	defer m.mu.Unlock()
	e.released = true
}

// forget drops an entry that is settled, or that the next manager will have to do with.
func (m *Manager) forget(e *entry) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.closing, e)
	m.disown(e)
	if e.released { // while nobody else has its name: the next task with this id may
		m.History.Unmark(stopMark(e.attempt.ID()))
	}
	if m.active[e.attempt.Task.ID] == e {
		delete(m.active, e.attempt.Task.ID)
	}
	m.schedule()
	m.notify()
}
