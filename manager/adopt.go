package manager

import (
	"context"
	"fmt"

	"github.com/mayfly/mayfly/internal/logkey"
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
		if r, ok := m.History.Settled(a.ID()); h.Settled || ok && h.Ended && r.Fingerprint == a.Fingerprint {
			if h.Left {
				m.ledger.take(a.ID(), a.Lease)
				m.vacate(&a, "it was left before this manager began")
			}
			m.Runner.Release(a.ID())
			continue
		}
		e := newEntry(a, nil)
		e.begun, e.status, e.pid, e.startedAt = true, Running, h.PID, h.StartedAt
		m.ledger.take(a.ID(), a.Lease)
		m.active[a.Task.ID] = e
		m.launch(e)
		m.Log.Info("worker adopted", logkey.Task, a.Task.ID, logkey.Attempt, a.ID(), logkey.PID, h.PID, "ended", h.Ended)
	}
	if m.Services.GPUs != nil {
		m.Services.GPUs.Start()
	}
	m.Sweep(func(attemptID string) bool {
		_, known := m.History.Settled(attemptID)
		return known || mine[attemptID]
	})
	return nil
}
