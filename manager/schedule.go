package manager

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/mayfly/mayfly/internal/logkey"
	"github.com/mayfly/mayfly/isolation"
	"github.com/mayfly/mayfly/queue"
	"github.com/mayfly/mayfly/worker"
)

// patience is how long a task may be passed by smaller ones that fit before it. After that nothing more is started until
// it has its room.
const patience = 10 * time.Second

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

// schedule starts what fits, first things first. The lock is held.
func (m *Manager) schedule() {
	defer m.setDemand()
	if m.state != serving {
		return
	}
	now := time.Now()
	kept := m.waiting[:0]
	full := m.unconfirmed() >= unconfirmedMax
	var ahead *entry // has waited too long: nobody passes it
	for _, e := range m.waiting {
		t := &e.attempt.Task
		switch {
		case !e.atHand():
			m.Log.Debug("waiting task lost", logkey.Task, t.ID)
			continue
		case !t.Deadline.IsZero() && now.After(t.Deadline):
			m.Log.Info("task too late", logkey.Task, t.ID, logkey.Cause, string(queue.CauseDeadline))
			m.close(e, m.deadlineVerdict(e, now))
			continue
		case m.active[t.ID] != nil:
			e.reason = "waits for another task with the same id to end"
		case m.copiedTwice(e): // the first copy has been settled while this one waited
			m.alreadySettled(e)
			continue
		case full:
			e.reason = fmt.Sprintf("waits until results are settled: %d are under way", unconfirmedMax)
		case ahead != nil:
			e.reason = "waits behind " + ahead.attempt.Task.ID
		default:
			var taken *choice
			if taken, e.attempt.Lease, e.reason = m.ledger.lend(e.attempt.ID(), e.choices); taken != nil {
				t.Resources = taken.resources
				m.begin(e)
				continue
			}
			e.attempt.Lease = e.choices[0].lease
			if now.Sub(e.acceptedAt) > patience && m.ledger.reachable(e.choices) {
				ahead = e
			}
		}
		kept = append(kept, e)
	}
	clear(m.waiting[len(kept):])
	m.waiting = kept
}

// setDemand tells the source how many messages the host is prepared to hold. The lock is held.
func (m *Manager) setDemand() {
	n := 0
	if m.state == serving {
		n = len(m.active) + len(m.closing)
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
	e.status, e.reason, e.begun = Running, "", true
	m.active[e.attempt.Task.ID] = e
	m.launch(e)
}

// launch runs the entry's attempt. The lock is held.
func (m *Manager) launch(e *entry) {
	ctx, cancel := context.WithCancel(m.work)
	e.cancel = cancel
	m.group.Go(func() {
		defer cancel()
		m.attempt(ctx, e)
	})
}

// attempt takes an entry from its lease to its settlement.
func (m *Manager) attempt(ctx context.Context, e *entry) {
	a := &e.attempt
	outcome, err := m.Runner.Run(ctx, a, func(pid int, at time.Time) { m.started(e, pid, at) })
	f := m.ended(e, &outcome)
	if err != nil {
		if !errors.Is(err, isolation.ErrDetached) {
			m.Log.Error("worker let go of", logkey.Attempt, a.ID(), logkey.Err, err)
		}
		m.forget(e)
		return
	}
	v := judge(f)
	m.Log.Info("worker ended", logkey.Task, a.Task.ID, logkey.Attempt, a.ID(), logkey.Cause, string(outcome.Cause),
		logkey.Reason, outcome.Message, "seconds", outcome.Usage.WallSeconds)
	if m.settle(e, v) {
		m.Runner.Release(a.ID())
	}
	m.forget(e)
}

func (m *Manager) started(e *entry, pid int, at time.Time) {
	a := &e.attempt
	m.Log.Info("worker started", logkey.Task, a.Task.ID, logkey.Attempt, a.ID(), logkey.PID, pid)
	m.mu.Lock()
	defer m.mu.Unlock()
	e.pid, e.startedAt = pid, at
	m.notify()
}

// ended gives the lease back, lets the next one start, and says what is to be judged.
func (m *Manager) ended(e *entry, o *worker.Outcome) finding {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.vacate(&e.attempt, o.Left)
	e.status, e.pid, e.finishedAt = Settling, 0, o.FinishedAt
	m.schedule()
	m.notify()
	return finding{attempt: &e.attempt, outcome: o, cancelled: e.cancelled, drained: m.drained, now: time.Now(), jitter: rand.Float64()}
}

// forget drops an entry that is settled, or that the next manager will have to do with.
func (m *Manager) forget(e *entry) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.closing, e)
	if m.active[e.attempt.Task.ID] == e {
		delete(m.active, e.attempt.Task.ID)
	}
	m.schedule()
	m.notify()
}
