package manager

import (
	"time"

	"github.com/mayfly/mayfly/internal/logkey"
)

// idleCheck is how soon an idle host looks again whose queue is out of reach, so that it cannot know that nothing waits for it, or has something for it later.
const idleCheck = 10 * time.Second

// lookIdle starts to wait for the host's leave when it has nothing to do any more, and stops when it has. The lock is held.
func (m *Manager) lookIdle() {
	if m.config.IdleExit <= 0 {
		return
	}
	idle := m.state == serving && len(m.active)+len(m.closing)+len(m.waiting) == 0
	switch {
	case idle && m.idle == nil:
		m.idle = time.AfterFunc(m.config.IdleExit, m.leaveIdle)
	case !idle && m.idle != nil:
		m.idle.Stop()
		m.idle = nil
	}
}

// leaveIdle drains the host, unless it has something to do after all.
func (m *Manager) leaveIdle() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.idle == nil {
		return
	}
	if m.InReach != nil && !m.InReach() || m.Holds != nil && m.Holds() {
		m.idle.Reset(idleCheck)
		return
	}
	m.left = true
	m.Log.Info("nothing to do: leaving", logkey.Host, m.config.Host, "idle_for", m.config.IdleExit.String())
	m.drain()
}

// LeftIdle reports whether the manager has left because there was nothing to do.
func (m *Manager) LeftIdle() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.left
}
