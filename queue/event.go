package queue

import "time"

// The states of an event beside those of a result: [Succeeded], [Failed], [Cancelled], [Rejected].
const (
	// EventRunning: a worker has begun the task.
	EventRunning = "running"
	// EventWaiting: the attempt has ended, and the task waits for its next one.
	EventWaiting = "waiting"
	// EventParked: no host can run the task now.
	EventParked = "parked"
)

// Event says that a task's state has changed, to whoever listens: nobody need, and none is told twice. What must not be lost is the result.
type Event struct {
	ID     string            `json:"id"`
	Name   string            `json:"name,omitempty"`
	Pool   string            `json:"pool"`
	Labels map[string]string `json:"labels,omitempty"`
	// State is one of the above, or the state of the task's result.
	State string `json:"state"`
	// Cause and Message say why: of the attempt that has ended, or why the task is parked.
	Cause   Cause  `json:"cause,omitempty"`
	Message string `json:"message,omitempty"`
	// Attempt is the number of the attempt that has begun or ended; 0 where there was none.
	Attempt int `json:"attempt,omitempty"`
	// DelaySeconds is about how long the next attempt is put off.
	DelaySeconds float64 `json:"delay_seconds,omitempty"`
	// Host is where it happened.
	Host string    `json:"host"`
	At   time.Time `json:"at"`
}
