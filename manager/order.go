package manager

import (
	"cmp"
	"slices"
	"time"

	"github.com/mayfly/mayfly/queue"
)

// sort puts the waiting entries in order, which changes with what is started. Where too many have passed, it is the turn of the one
// that has waited longest. The lock is held.
func (m *Manager) sort(now time.Time) {
	m.shares.look(now)
	if !slices.IsSortedFunc(m.waiting, m.before) {
		slices.SortStableFunc(m.waiting, m.before)
	}
	if m.passed < queue.PassMax || len(m.waiting) == 0 {
		return
	}
	oldest := -1
	for i, e := range m.waiting {
		if m.inLine(e) && (oldest < 0 || e.seq < m.waiting[oldest].seq) {
			oldest = i
		}
	}
	if oldest < 0 {
		return
	}
	e := m.waiting[oldest]
	copy(m.waiting[1:], m.waiting[:oldest])
	m.waiting[0] = e
}

// inLine reports whether an entry waits for room, and not for other hosts or for a task with the same id to end: it would be passed in vain, and its turn would never be over. The
// lock is held.
func (m *Manager) inLine(e *entry) bool {
	return !e.held && e.misfit == "" && m.active[e.attempt.Task.ID] == nil
}

// before orders waiting entries: by rank, then the submitter that has had least, then arrival.
func (m *Manager) before(a, b *entry) int {
	return cmp.Or(byRank(a, b), m.shares.compare(a.submitter, b.submitter), cmp.Compare(a.seq, b.seq))
}

// byRank orders entries by band and priority.
func byRank(a, b *entry) int {
	return cmp.Or(
		cmp.Compare(slices.Index(queue.Bands, a.attempt.Band), slices.Index(queue.Bands, b.attempt.Band)),
		cmp.Compare(b.attempt.Task.Priority, a.attempt.Task.Priority),
	)
}

// turn notes that an entry starts while others wait. The lock is held.
func (m *Manager) turn(e *entry, others ...[]*entry) {
	oldest := true
	for _, list := range others {
		for _, w := range list {
			if w.seq > e.seq || !m.inLine(w) {
				continue
			}
			oldest = false
			if byRank(e, w) < 0 {
				m.passed++
				return
			}
		}
	}
	if oldest {
		m.passed = 0
	}
}
