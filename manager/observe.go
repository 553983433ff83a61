package manager

import (
	"time"

	"github.com/mayfly/mayfly/queue"
	"github.com/mayfly/mayfly/worker"
)

// Observer is told what happens to tasks here, where it happens. Its funcs return at once; those that are nil are not called.
type Observer struct {
	Started func(Start)
	Ended   func(End)
	Settled func(Settlement)
}

// Start is the birth of an attempt's worker. Nobody hears twice of one, unless a manager died meanwhile.
type Start struct {
	Pool string
	// Image says that the worker is a container.
	Image bool
	// First says that it is the task's first attempt, which began Waited after the task was queued.
	First  bool
	Waited time.Duration
	// Spawned is the time from the lease to the worker's first instruction; negative where an earlier manager gave the lease.
	Spawned time.Duration
}

// End is that of an attempt.
type End struct {
	Pool  string
	Cause queue.Cause
	// Ran is how long its worker ran; negative where there was none.
	Ran time.Duration
	// Attempt and Outcome tell the rest. They are not to be written to.
	Attempt *worker.Attempt
	Outcome *worker.Outcome
}

// Settlement is the end of a task, or its burial.
type Settlement struct {
	Pool  string
	State queue.State
	Cause queue.Cause
	// Buried says that its message is among the dead letters now.
	Buried bool
}

// observeStart tells of a worker that runs since at.
func (m *Manager) observeStart(e *entry, at time.Time) {
	if m.Observer.Started == nil {
		return
	}
	a := &e.attempt
	s := Start{Pool: a.Task.Pool, Image: a.Task.Image != "", First: len(a.History) == 0, Waited: max(0, at.Sub(a.QueuedAt)), Spawned: -1}
	if !e.leasedAt.IsZero() {
		s.Spawned = max(0, at.Sub(e.leasedAt))
	}
	m.Observer.Started(s)
}

// observeEnd tells of an attempt that was judged: its cause is what the task's history says.
func (m *Manager) observeEnd(f *finding) {
	if m.Observer.Ended == nil {
		return
	}
	end := End{Pool: f.attempt.Task.Pool, Cause: f.outcome.Cause, Ran: -1, Attempt: f.attempt, Outcome: f.outcome}
	if f.started {
		end.Ran = max(0, f.outcome.FinishedAt.Sub(f.outcome.StartedAt))
	}
	m.Observer.Ended(end)
}

// observeSettled tells of a task that ended for good.
func (m *Manager) observeSettled(e *entry, v *queue.Verdict) {
	if m.Observer.Settled != nil && v.Result != nil {
		m.Observer.Settled(Settlement{Pool: e.attempt.Task.Pool, State: v.Result.State, Cause: v.Result.Cause, Buried: v.Action == queue.Bury})
	}
}

// States are all states of a manager.
var States = []string{serving, draining, stopped}

// Numbers are what can be counted of a host at a moment.
type Numbers struct {
	State string // serving, draining, stopped
	// Held counts the tasks in this host's hands by their status: waiting, running, stopping, settling.
	Held map[Status]int
	// Oldest is how long the one that waits the longest has been waiting here; 0 where none waits.
	Oldest time.Duration
	// Unconfirmed counts the settlements under way; at UnconfirmedMax nothing more is started.
	Unconfirmed, UnconfirmedMax int
	// Demand is how many messages the host is prepared to hold.
	Demand int
	// Quarantined counts ended attempts of which something does not die.
	Quarantined    int
	Capacity, Lent Capacity
	// PerHost is how many of a pool's tasks, as they are on average, run on a host like this one at once.
	PerHost map[string]float64
	// InHand is what a pool's tasks need that this host has in its hands, or one that says nothing: what others need, that is on average.
	InHand map[string]Needs
}

// Numbers counts.
func (m *Manager) Numbers() Numbers {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := Numbers{State: m.state, Held: map[Status]int{Waiting: len(m.waiting), Running: 0, Stopping: 0, Settling: len(m.closing)},
		Unconfirmed: m.unconfirmed(), UnconfirmedMax: unconfirmedMax, Demand: m.demand, Quarantined: len(m.quarantine),
		Capacity: m.ledger.total, Lent: m.ledger.lent, PerHost: map[string]float64{}, InHand: map[string]Needs{}}
	for _, e := range m.active {
		n.Held[e.status]++
	}
	for _, pool := range m.config.Pools {
		n.InHand[pool] = m.inHand(pool)
		n.PerHost[pool] = m.perHost(n.InHand[pool])
	}
	now := time.Now()
	for _, e := range m.waiting {
		n.Oldest = max(n.Oldest, now.Sub(e.acceptedAt))
	}
	return n
}
