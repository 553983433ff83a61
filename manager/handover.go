package manager

import (
	"cmp"
	"errors"
	"slices"
	"time"

	"github.com/mayfly/mayfly/internal/logkey"
	"github.com/mayfly/mayfly/queue"
)

// reasons say why a task was handed over.
var reasons = map[queue.Purpose]string{queue.ToAdopt: "it runs there", queue.ToRun: "it cannot run here", queue.ToSpare: "it has failed here",
	queue.ToShare: "it can start there at once"}

// forward hands an entry to the host that has it, or has most room. The lock is held.
func (m *Manager) forward(e *entry, q *inquiry) {
	best := slices.MaxFunc(q.offers, func(a, b queue.Offer) int {
		switch {
		case a.Has != b.Has:
			return either(a.Has)
		case a.Avoided != b.Avoided:
			return either(b.Avoided)
		}
		return cmp.Compare(a.Room, b.Room)
	})
	m.waiting = slices.DeleteFunc(m.waiting, func(w *entry) bool { return w == e })
	e.status = Settling
	m.closing[e] = true
	d, purpose := e.delivery, q.question.Purpose
	doubtful := purpose == queue.ToAdopt || e.copied || m.copyWaits(&e.attempt, e)
	m.group.Go(func() {
		err := d.Settle(m.settling, queue.Verdict{Action: queue.Forward, Host: best.Host, Keep: best.Young, Doubtful: doubtful}, nil)
		switch {
		case err == nil:
			m.Log.Info("task handed over", logkey.Task, e.attempt.Task.ID, logkey.Host, best.Host, logkey.Reason, reasons[purpose])
		case errors.Is(err, queue.ErrLost) || m.settling.Err() != nil:
		default:
			m.Log.Warn("task not handed over", logkey.Task, e.attempt.Task.ID, logkey.Host, best.Host, logkey.Err, err)
			m.keep(e, purpose)
			return
		}
		m.forget(e)
	})
}

// either compares two that differ in something: is it the first that has it?
func either(first bool) int {
	if first {
		return 1
	}
	return -1
}

// keep takes an entry back that could not be handed over, and has it wait a little before the others are asked again.
func (m *Manager) keep(e *entry, purpose queue.Purpose) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.closing, e)
	e.status, e.held, e.doubtful, e.recheck = Waiting, m.state == serving, purpose == queue.ToAdopt, true
	m.waiting = append(m.waiting, e)
	if m.state != serving {
		m.schedule()
		return
	}
	m.notify()
	time.AfterFunc(againDelay, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		if e.status != Waiting || !e.held || e.inquiry != nil || m.state != serving {
			return
		}
		if e.atHand() && purpose != queue.ToShare {
			m.hold(e, purpose)
			return
		}
		e.held = false
		m.schedule()
	})
}

// share asks who has room for what has been waiting here for long, for one after the other: while a question stays open for want of room, no other is
// asked about what takes as much. The lock is held.
func (m *Manager) share(now time.Time) {
	if m.Fleet == nil || m.others.shared != nil || m.state != serving {
		return
	}
	if next := m.shareOne(now); next > 0 {
		if m.others.sharing != nil {
			m.others.sharing.Stop()
		}
		m.others.sharing = time.AfterFunc(next, func() {
			m.mu.Lock()
			defer m.mu.Unlock()
			m.share(time.Now())
		})
	}
}

// shareOne asks about the first task that has been waiting for long, and returns when one will have; 0 where none waits. The lock is held.
func (m *Manager) shareOne(now time.Time) (next time.Duration) {
	for _, e := range m.waiting {
		if e.inquiry != nil || e.held || !e.atHand() || e.misfit != "" || m.active[e.attempt.Task.ID] != nil || m.runsHere(e) {
			continue
		}
		patience := askAfter
		if e.handed() {
			patience = askAfterHanded
		}
		wait := patience - now.Sub(e.acceptedAt)
		switch {
		case wait > 0:
		case m.askedInVain(e) || m.copyWaits(&e.attempt, e):
			continue
		default:
			m.others.shared = m.inquire(e, queue.ToShare, max(m.others.sharePause, shareTime))
			return 0
		}
		if next == 0 || wait < next {
			next = wait
		}
	}
	return next
}

// askedInVain reports whether a question is open about a task that would fit in wherever this one does. The lock is held.
func (m *Manager) askedInVain(e *entry) bool {
	for _, q := range m.others.inquiries {
		other, t := &q.about.attempt, &e.attempt.Task
		if q.question.Purpose != queue.ToShare || q.until.IsZero() || len(q.offers) > 0 || q.question.Pool != t.Pool ||
			len(other.History) > 0 || (other.Task.Image == "") != (t.Image == "") { // it has hosts to avoid, or is for other hosts
			continue
		}
		if !slices.ContainsFunc(e.choices, func(c choice) bool {
			return !slices.ContainsFunc(q.about.choices, func(less choice) bool { return less.within(&c) })
		}) {
			return true
		}
	}
	return false
}

// avoids reports whether a task has failed on this host, so that another one should try it.
func (m *Manager) avoids(history []queue.Past) bool {
	return slices.ContainsFunc(history, func(p queue.Past) bool { return p.Host == m.config.Host })
}
