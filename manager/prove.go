package manager

import (
	"context"
	"time"
)

// A process that is stopped for a while, or a host that is, learns late that its connection is gone: what it holds has been given to others, and it would begin it all the same, in the
// milliseconds before it hears of that. So before something begins, the queue must have been heard lately, or is asked for a sign of life.
const (
	// proofAge is for how long having heard of the queue is enough. Where there is traffic it is heard all the time; else it takes a question and its answer.
	proofAge = 2 * time.Second
	// proofLimit is how long an answer is waited for before the question is put again, provePause the time between a question that has failed and the next.
	proofLimit = 10 * time.Second
	provePause = 100 * time.Millisecond
)

// unsure reports whether what was delivered may belong to others by now. The lock is held.
func (m *Manager) unsure() bool {
	return m.Prove != nil && time.Since(m.Heard()) > proofAge && time.Since(m.provedAt) > proofAge
}

// prove asks the queue for a sign of life, and schedules again. The lock is held.
func (m *Manager) prove() {
	if m.proving {
		return
	}
	m.proving = true
	m.group.Go(func() {
		ctx, cancel := context.WithTimeout(m.settling, proofLimit)
		defer cancel()
		err := m.Prove(ctx)
		if err != nil { // it is out of reach, or about to be
			select {
			case <-time.After(provePause):
			case <-m.settling.Done():
			}
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		m.proving = false
		if err == nil {
			m.provedAt = time.Now()
		}
		m.schedule()
	})
}
