package manager

// Progress says in a few words what a running attempt waits for, or with none that it waits no more.
func (m *Manager) Progress(attemptID, words string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range m.active {
		if e.attempt.ID() == attemptID && e.reason != words {
			e.reason = words
			m.notify()
		}
	}
}
