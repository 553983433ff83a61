package manager

import (
	"time"

	"github.com/mayfly/mayfly/queue"
)

// A host that drains or is sick starts nothing, and gives back what waits here. What runs here runs on, perhaps for hours: its messages may be lost meanwhile, and are taken when
// they come back; others that ask for it are answered. What comes instead of them goes back, too, in its own time: else a long queue would pass through this host.

// unfit reports whether this host starts no tasks. The lock is held.
func (m *Manager) unfit() bool { return m.sick != "" || m.state != serving }

// mayDo reports whether anything new may be done in the background. At its end the manager waits until nothing is done any more; what is in hand may be seen through. The lock is
// held.
func (m *Manager) mayDo() bool {
	return m.state != stopped && (!m.waits || len(m.active)+len(m.closing) > 0)
}

// handBack gives what waits here to other hosts, while this one is not fit. The lock is held.
func (m *Manager) handBack() {
	left := m.waiting[:0]
	for _, e := range m.waiting {
		switch {
		case m.isElsewhere(e):
			continue
		case m.Fleet == nil && m.state == serving: // there is nobody else
			e.reason = "waits until the host is fit"
		case m.mayHaveBegun(e): // nobody knows yet
			m.noteOvertaken(e)
		case m.settledSince(e):
			m.alreadySettled(e)
			continue
		case m.cameLate(e) && time.Since(e.acceptedAt) < againDelay:
			e.reason = "goes back to the queue: this host takes no tasks"
		default:
			m.giveBack(e)
			continue
		}
		left = append(left, e)
	}
	clear(m.waiting[len(left):])
	m.waiting = left
}

// cameLate reports whether an entry came when this host did not want any more. The lock is held.
func (m *Manager) cameLate(e *entry) bool { return m.unfit() && e.acceptedAt.After(m.unfitAt) }

// giveBack returns an entry to the queue that was not begun. Other hosts get it as a fresh copy: one that was merely returned might have been begun,
// and this host may not be there to tell. Where there is another copy, or a worker of it is left to the next manager, this one says so. The lock is held.
func (m *Manager) giveBack(e *entry) {
	v := queue.Verdict{Action: queue.Retry, History: e.attempt.History, Doubtful: e.doubtful || e.copied || e.overtaken || e.returned && m.detached}
	switch {
	case m.Fleet == nil:
		v = queue.Verdict{Action: queue.Return}
	case m.cameLate(e):
		v.Delay = parkMin
	}
	m.close(e, v)
}

// wanted counts the messages that this host is to have while it is not fit: those of what runs here until they are given up, and those that may be. The lock is held.
func (m *Manager) wanted() (n int) {
	for _, e := range m.active {
		if !e.recorded || !e.atHand() {
			n++
		}
	}
	for _, e := range m.waiting {
		if m.mayHaveBegun(e) {
			n++
		}
	}
	return n
}
