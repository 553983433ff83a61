package manager

import "time"

// watchDeadlines has the manager look again when the next deadline of what waits here is over: nothing else may happen for hours. The lock is held.
func (m *Manager) watchDeadlines(now time.Time) {
	var next time.Time
	for _, e := range m.waiting {
		if at := e.attempt.Task.Deadline; at.After(now) && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	late := &m.tooLate
	if next.Equal(late.at) {
		return
	}
	if late.timer != nil {
		late.timer.Stop()
	}
	if late.at = next; !next.IsZero() {
		late.timer = time.AfterFunc(next.Sub(now)+time.Millisecond, func() {
			m.mu.Lock()
			defer m.mu.Unlock()
			late.at = time.Time{} // by a clock that was set back, it is not over yet
			m.schedule()
		})
	}
}
