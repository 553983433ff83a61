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
			m.schedule()
		}
		return
	}
	if o.Lacks {
		q.lack = append(q.lack, o.Host)
		return
	}
	q.offers = append(q.offers, o)
	if wait := collectTime; len(q.offers) == 1 || o.Has {
		if o.Has {
			wait = 0
		}
		q.timer.Reset(wait)
	}
}

// allLack reports whether every host that this one knows has answered that it has not begun the task. The lock is held.
func (m *Manager) allLack(q *inquiry) bool {
	for _, host := range m.expected(q) {
		if !slices.Contains(q.lack, host) {
			return false
		}
	}
	return q.question.Surely
}

// expected lists the known hosts that a question goes to. The lock is held.
func (m *Manager) expected(q *inquiry) (hosts []string) {
	for host, pools := range m.others.known {
		if len(pools) == 0 || slices.Contains(pools, q.question.Pool) {
			hosts = append(hosts, host)
		}
	}
	return hosts
}
