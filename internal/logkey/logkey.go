// Package logkey holds the attribute keys of all log lines: one word for one thing everywhere.
package logkey

// The keys. Values are strings unless a unit is named.
const (
	Task    = "task"    // a task's id
	Attempt = "attempt" // an attempt's id
	Host    = "host"
	Pool    = "pool"
	Band    = "band"
	Cause   = "cause" // a queue.Cause
	State   = "state" // a queue.State, or the manager's state
	Reason  = "reason"
	PID     = "pid"
	Queue   = "queue" // a queue's name
	Path    = "path"
	Count   = "count"
	Delay   = "delay" // a duration
	GPU     = "gpu"   // the UUID of a GPU, or of an instance of one
	Err     = "err"
)
