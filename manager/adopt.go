package manager

import (
	"context"
	"fmt"
	"time"

	"github.com/mayfly/mayfly/internal/logkey"
	"github.com/mayfly/mayfly/queue"
)

// adopt takes over what an earlier life of the manager began. It comes before the first delivery, so that a message whose
// worker lives is joined to it.
func (m *Manager) adopt(ctx context.Context) error {
	held, err := m.Runner.Held(ctx)
	if err != nil {
		return fmt.Errorf("cannot take over the workers of the manager before: %w", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	mine := map[string]bool{}
	for _, h := range held {
		a := h.Attempt
		mine[a.ID()] = true
		if a.Task.ID == probeID {
			m.group.Go(func() { _, _ = m.tryWorker(&a) })
			continue
		}
		if r, ok := m.History.Settled(a.ID()); h.Settled || ok && h.Ended && r.Fingerprint == a.Fingerprint && (r.Result.QueuedAt == nil || r.Result.QueuedAt.Equal(a.QueuedAt)) {
			if h.Left {
				m.ledger.take(a.ID(), a.Lease)
				m.vacate(&a, "it was left before this manager began")
			}
			m.Runner.Release(a.ID())
			m.History.Unmark(stopMark(a.ID()))
			continue
		}
		e := newEntry(a, nil)
		e.begun, e.adopted, e.status, e.pid, e.startedAt = true, true, Running, h.PID, h.StartedAt
		e.submitter = m.shares.by.submitterOf(&a.Task, queue.Message{}) // which user it was is not known any more
		m.ledger.take(a.ID(), a.Lease)
		m.shares.took(e.submitter, &a.Lease, time.Now())
		m.active[a.Task.ID] = e
		e.cancelled = m.wasStopped(a.ID(), h.StartedAt)
		m.launch(e)
		if e.cancelled { // its manager may have died before it had told the worker
			e.stopKept, e.status = true, Stopping
			e.cancel()
		}
		m.Log.Info("worker adopted", logkey.Task, a.Task.ID, logkey.Attempt, a.ID(), logkey.PID, h.PID, "ended", h.Ended)
	}
	if m.Services.GPUs != nil {
		m.Services.GPUs.Start()
	}
	m.others.here = true
	m.Sweep(func(attemptID string) bool {
		_, known := m.History.Settled(attemptID)
		return known || mine[attemptID]
	})
	return nil
}
