package manager

import (
	"errors"
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
	idle := m.state == serving && m.arriving+len(m.active)+len(m.closing)+len(m.waiting) == 0
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

// arrives has the host not be idle while a task is submitted, until done is called: the queue may confirm it when there is nobody any more who would run it. A host that has left takes
// none, unless others serve the queue.
func (m *Manager) arrives() (done func(), err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.left && m.config.Alone {
		return nil, ErrLeaving
	}
	m.arriving++
	m.lookIdle()
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.arriving--
		m.lookIdle()
	}, nil
}

// Missed returns an error where the host has left for there was nothing to do, and there is something now that the API has ended: nobody would do it before the manager is started anew.
// It has not left idle, then.
func (m *Manager) Missed() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.left || m.Holds == nil || !m.Holds() {
		return nil
	}
	m.left = false
	return errors.New("cannot leave: the queue has got a task meanwhile, for which the manager has to be started anew")
}

// LeftIdle reports whether the manager has left because there was nothing to do.
func (m *Manager) LeftIdle() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.left
}
