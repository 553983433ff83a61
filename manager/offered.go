package manager

import (
	"slices"

	"github.com/mayfly/mayfly/internal/logkey"
	"github.com/mayfly/mayfly/queue"
)

// Offered takes an answer.
func (m *Manager) Offered(o queue.Offer) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if o.Host != m.config.Host {
		m.meet(o.Host)
	}
	if p := m.others.polls[o.Question]; p != nil {
		p.offers = append(p.offers, o)
		return
	}
	q := m.others.inquiries[o.Question]
	switch {
	case q == nil: // too late, but it tells how many there are
		if last := m.others.last; last != nil && last.question.ID == o.Question && !o.Lacks {
			last.offers = append(last.offers, o)
			m.learn(last)
		}
		return
	case q.question.Purpose == queue.ToSettle:
		if e := q.entry; o.Has && e.settledBy == "" {
			e.settledBy = o.Host
			close(e.inVain)
			m.endInquiry(q)
		}
		return
	case q.question.Purpose == queue.ToAdopt && !o.Has:
		q.gave = append(q.gave, o.Gave...)
		if o.Lacks {
			q.lack = append(q.lack, o.Host)
		}
		if msg := q.entry.delivery.Message(); len(q.offers) == 0 && (msg.Unbegun(q.gave) || m.allLack(q)) {
			m.Log.Debug("task was not begun elsewhere", logkey.Task, q.question.TaskID, logkey.Host, o.Host)
			m.endInquiry(q)
			m.resolved(q)
			m.schedule()
		}
		return
	}
	if o.Lacks {
		m.lacks(q, o)
		return
	}
	good := q.good()
	q.offers = append(q.offers, o)
	switch {
	case o.Has:
		q.timer.Reset(0)
	case q.good() && !good || !q.until.IsZero() && len(q.offers) == 1: // else a better one may come
		q.timer.Reset(collectTime)
	}
}

// good reports whether a host has offered to take the task on which it has not failed.
func (q *inquiry) good() bool {
	return slices.ContainsFunc(q.offers, func(o queue.Offer) bool { return !o.Avoided })
}

// lacks takes note of a host that cannot take a task now. Where all have said that they never can, nobody is waited for. The lock is held.
func (m *Manager) lacks(q *inquiry, o queue.Offer) {
	q.lack = append(q.lack, o.Host)
	if o.Never {
		q.never = append(q.never, o.Host)
	} else if e := q.entry; e != nil && e.refused { // it may, later
		e.refused, q.question.Refused = false, false
	}
	if len(q.offers) == 0 && m.hopeless(q) {
		m.decide(q)
	}
}

// unsay forgets that a host cannot take the task, or has not begun it: it is asked again. It reports whether that host had said so.
func (q *inquiry) unsay(host string) (had bool) {
	had = slices.Contains(q.lack, host)
	other := func(h string) bool { return h == host }
	q.lack, q.never = slices.DeleteFunc(q.lack, other), slices.DeleteFunc(q.never, other)
	return had
}

// hopeless reports whether it is in vain to wait for an offer: every host that this one knows has said that it can never take the task. What is too large for
// all waits for one that will come. The lock is held.
func (m *Manager) hopeless(q *inquiry) bool {
	return (q.question.Purpose == queue.ToSpare || q.question.Refused) && q.question.Part == "" && m.all(q, q.never)
}

// mayBeTaken reports whether another host may take what is refused here, though none has offered to: not all have said that they never will, or, where there are too many for each to
// say so, the question was not open for long enough to count on one that would. The lock is held.
func (m *Manager) mayBeTaken(q *inquiry) bool {
	if q.unsaid {
		return len(m.others.known) > 0
	}
	if q.question.Surely {
		return !m.all(q, q.never)
	}
	return q.until.IsZero()
}

// allLack reports whether every host that this one knows has answered that it has not begun the task. The lock is held.
func (m *Manager) allLack(q *inquiry) bool { return m.all(q, q.lack) }

// all reports whether every host that this one knows is one of those that have answered. The lock is held.
func (m *Manager) all(q *inquiry, answered []string) bool {
	return q.question.Surely && len(m.unheard(q, answered)) == 0
}

// unheard lists the known hosts that a question goes to and that are not among those that have answered. The lock is held.
func (m *Manager) unheard(q *inquiry, answered []string) (hosts []string) {
	for host, pools := range m.others.known {
		if (len(pools) == 0 || slices.Contains(pools, q.question.Pool)) && !slices.Contains(answered, host) {
			hosts = append(hosts, host)
		}
	}
	slices.Sort(hosts)
	return hosts
}
