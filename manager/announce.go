package manager

import (
	"time"

	"github.com/mayfly/mayfly/queue"
)

// announce tells whoever listens that an entry's state has changed.
func (m *Manager) announce(e *entry, state string, change func(*queue.Event)) {
	if m.Announce == nil || e.attempt.Task.ID == probeID {
		return
	}
	a := &e.attempt
	event := queue.Event{ID: a.Task.ID, Name: a.Task.Name, Pool: a.Task.Pool, Labels: a.Task.Labels, State: state, Host: m.config.Host, At: time.Now().UTC()}
	change(&event)
	m.Announce(event)
}

// announceSettled tells what a verdict has made of a task.
func (m *Manager) announceSettled(e *entry, v *queue.Verdict, r *queue.Result) {
	state := string(r.State)
	if v.Action == queue.Retry {
		state = queue.EventWaiting
	}
	m.announce(e, state, func(event *queue.Event) {
		event.Cause, event.Message, event.Attempt, event.DelaySeconds = r.Cause, r.Message, r.Attempt, v.Delay.Seconds()
	})
}

// announceParked tells, once, that no host can run a task.
func (m *Manager) announceParked(e *entry) {
	if !e.toldParked {
		e.toldParked = true
		m.announce(e, queue.EventParked, func(event *queue.Event) { event.Message = e.misfit })
	}
}
