package manager

import (
	"fmt"
	"maps"
	"slices"

	"github.com/mayfly/mayfly/internal/logkey"
	"github.com/mayfly/mayfly/worker"
)

// quarantined is the lease of an ended attempt of which something does not die.
type quarantined struct {
	lease worker.Lease
	why   string
}

// vacate gives an ended attempt's lease back, or, where something of its worker is left, keeps it lent till that is gone: what
// still runs still takes its share. The lock is held.
func (m *Manager) vacate(a *worker.Attempt, left string) {
	id := a.ID()
	free := m.freed[id]
	delete(m.freed, id)
	if left == "" || free {
		m.ledger.giveBack(id, a.Lease)
		return
	}
	m.quarantine[id] = quarantined{a.Lease, left}
	m.Log.Error("worker cannot be removed: its share of the host is quarantined", logkey.Attempt, id, logkey.Reason, left,
		"cpus", float64(a.Lease.MilliCPU)/1000, "memory", a.Lease.Memory)
}

// Freed says that nothing is left any more of an attempt's worker of which something was left at its end.
func (m *Manager) Freed(attemptID string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	q, ok := m.quarantine[attemptID]
	if !ok {
		m.freed[attemptID] = true // its end is about to be told
		return
	}
	delete(m.quarantine, attemptID)
	m.ledger.giveBack(attemptID, q.lease)
	m.Log.Info("worker removed at last: its share of the host is free again", logkey.Attempt, attemptID)
	m.schedule()
	m.notify()
}

// quarantineList says what is in quarantine. The lock is held.
func (m *Manager) quarantineList() []string {
	var list []string
	for _, id := range slices.Sorted(maps.Keys(m.quarantine)) {
		q := m.quarantine[id]
		list = append(list, fmt.Sprintf("%s (%s): %s", id, cores(q.lease.MilliCPU), q.why))
	}
	return list
}
