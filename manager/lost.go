package manager

import (
	"time"

	"github.com/mayfly/mayfly/internal/logkey"
	"github.com/mayfly/mayfly/queue"
)

// cutGrace is the longest grace of a task that must not go on without the queue. With it, the worker is gone before another host begins the task:
// this host takes itself for cut off when it has heard nothing for Config.CutOff, which is one heartbeat (10 s), in which the broker sends two
// signs of life. The worker is dead one grace later (10 s). The broker gives the task to another host when it learns that the connection is gone:
// at once where that was closed, and no sooner than two heartbeats after it has last heard of us where nothing comes through. The other host then
// waits for us for adoptTime (30 s).
const cutGrace = 10 * time.Second

// watchQueue stops the entry's worker when the queue is out of reach. The lock is held.
func (m *Manager) watchQueue(e *entry) {
	time.AfterFunc(max(m.config.CutOff-m.silence(), time.Millisecond), func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		switch {
		case m.active[e.attempt.Task.ID] != e || e.status != Running:
		case m.silence() < m.config.CutOff:
			m.watchQueue(e)
		default:
			m.Log.Warn("host is cut off from the queue: worker told to stop", logkey.Task, e.attempt.Task.ID, logkey.Attempt, e.attempt.ID(),
				"silence", m.silence().Round(time.Millisecond).String())
			e.cutOff, e.status = true, Stopping
			e.cancel()
			m.notify()
		}
	})
}

// silence is how long nothing was heard of the queue, or since the start.
func (m *Manager) silence() time.Duration {
	heard := m.Heard()
	if heard.Before(m.startedAt) {
		heard = m.startedAt
	}
	return time.Since(heard)
}

// graceOf is the grace of a task, bounded where it must not go on without the queue.
func graceOf(t *queue.Task) time.Duration {
	if t.OnLost == queue.KillOnLost {
		return min(t.Grace, cutGrace)
	}
	return t.Grace
}
