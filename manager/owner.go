package manager

import "time"

// In a large fleet, the host that has been running a task for long is found by its message: the broker leads questions about that to it alone.
const (
	// ownAfter is how long a task has to run until others can find its host by it, which takes a binding in the broker: what comes back of those that are
	// shorter is asked about in the whole pool. An acknowledgement is late after 30 minutes by default (https://www.rabbitmq.com/docs/consumers). ownerTime is
	// how long that host may take to answer: it may be gone.
	ownAfter  = 5 * time.Minute
	ownerTime = time.Second
)

// own has questions about the entry's message come to this host alone when its task has been running for long. The lock is held.
func (m *Manager) own(e *entry) {
	if m.Fleet == nil {
		return
	}
	since := e.leasedAt
	if e.adopted {
		since = e.startedAt
	}
	e.owning = time.AfterFunc(ownAfter-time.Since(since), func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.active[e.attempt.Task.ID] == e && m.state != stopped {
			m.Fleet.Own(e.attempt.Fingerprint, true)
		}
	})
}

// disown ends that. The lock is held.
func (m *Manager) disown(e *entry) {
	if e.owning != nil && !e.owning.Stop() { // the time had come
		m.Fleet.Own(e.attempt.Fingerprint, false)
	}
}
