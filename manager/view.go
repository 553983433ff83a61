package manager

import (
	"context"
	"errors"
	"time"

	"github.com/mayfly/mayfly/gpu"
	"github.com/mayfly/mayfly/queue"
)

// Status is where a task stands on this host.
type Status string

// The statuses of a task, in the order in which it passes through them.
const (
	// Queued tasks lie in the embedded queue; no host has taken them yet.
	Queued Status = "queued"
	// Waiting tasks were taken by this host and wait for room.
	Waiting Status = "waiting"
	// Parked tasks can be run by no host that lives; they are offered to each one that comes.
	Parked Status = "parked"
	// Elsewhere is where a task stands that another host has.
	Elsewhere Status = "elsewhere"
	// Running tasks have a worker.
	Running Status = "running"
	// Stopping tasks have a worker that was told to stop.
	Stopping Status = "stopping"
	// Settling tasks have ended; their result is not confirmed yet, or their delivery was lost and has not come back.
	Settling Status = "settling"
	// BackingOff tasks wait in the queue for their next try.
	BackingOff Status = "backing_off"
	// Ended tasks are settled for good; their Result is set.
	Ended Status = "ended"
)

// View is one task as this host knows it.
type View struct {
	ID         string            `json:"id"`
	Name       string            `json:"name"`
	Pool       string            `json:"pool"`
	Band       queue.Band        `json:"band"`
	Status     Status            `json:"status"`
	Reason     string            `json:"reason,omitempty"`
	Attempt    int               `json:"attempt"`
	Command    string            `json:"command"`
	PID        int               `json:"pid,omitempty"`
	CPU        float64           `json:"cpu"`
	Memory     int64             `json:"memory"`
	GPUs       []string          `json:"gpus,omitempty"`
	Labels     map[string]string `json:"labels,omitempty"`
	QueuedAt   time.Time         `json:"queued_at"`
	StartedAt  *time.Time        `json:"started_at,omitempty"`
	FinishedAt *time.Time        `json:"finished_at,omitempty"`
	Attempts   []queue.Past      `json:"attempts,omitempty"`
	// Result is set once the task has ended.
	Result *queue.Result `json:"result,omitempty"`
}

// Info is the host at a glance.
type Info struct {
	Host       string    `json:"host"`
	Version    string    `json:"version"`
	State      string    `json:"state"` // serving, draining, stopped
	Queue      string    `json:"queue"` // one line: which queue, and whether it is in reach
	StartedAt  time.Time `json:"started_at"`
	Pools      []string  `json:"pools"`
	CPU        float64   `json:"cpu"`
	CPUUsed    float64   `json:"cpu_used"`
	Memory     int64     `json:"memory"`
	MemoryUsed int64     `json:"memory_used"`
	Disk       int64     `json:"disk"`
	DiskUsed   int64     `json:"disk_used"`
	GPUs       int       `json:"gpus"`
	GPUsFree   int       `json:"gpus_free"`
	Waiting    int       `json:"waiting"`
	Running    int       `json:"running"`
	Settling   int       `json:"settling"`
	// Quarantined says of which ended attempts something is left that does not die and keeps its share of the host, and why.
	Quarantined []string `json:"quarantined,omitempty"`
	// Unfit says why the host takes no tasks, if it does not.
	Unfit string `json:"unfit,omitempty"`
	// Depth counts the messages in each queue "<pool>.<band>" that no host has taken.
	Depth map[string]int `json:"depth,omitempty"`
}

// Output says where a task's output lies.
type Output struct {
	Stdout, Stderr string
	// Kept says that what there is of it is kept: a file that is not there is one to which nothing was written.
	Kept bool
	// Attempt is the number of the attempt.
	Attempt int
	// Live says that more may still come.
	Live bool
}

// ErrUnknownTask says that this host knows no task with the id.
var ErrUnknownTask = errors.New("this host knows no task with this id")

// ErrElsewhere says that a task ran on another host, which has its output.
var ErrElsewhere = errors.New("the task ran on another host, where its output is")

// ErrLeaving says that this host takes no task, for it is about to leave.
var ErrLeaving = errors.New("cannot take a task: this host had nothing to do and leaves; start it anew")

// Backend is what the API needs of the host. All methods may be called from many goroutines at once.
type Backend interface {
	// Submit validates a task document, gives it an id where it has none, and publishes it; nil means confirmed. pool may
	// be empty. The error is a *queue.Refusal where the document is at fault, ErrLeaving where it comes too late.
	Submit(ctx context.Context, body []byte, pool string) (id string, err error)
	// List returns the tasks that this host knows: active ones oldest first, then, with ended > 0, so many that ended,
	// newest first.
	List(ctx context.Context, ended int) ([]View, error)
	// Page returns a part of the list of all tasks that match: those that this host holds, those in its embedded queue, those that have
	// ended, newest first. It begins at a cursor, empty for the beginning, and has at most limit tasks; ErrCursor where that is none.
	Page(ctx context.Context, f Filter, cursor string, limit int) (Page, error)
	// Counts says how many tasks there are of each kind.
	Counts(ctx context.Context) Counts
	// Load counts the tasks that wait on this host, or in its embedded queue, and those that have a worker. It is cheap.
	Load(ctx context.Context) (waiting, running int)
	// Rate counts the tasks that ended in each of so many steps of time since then, by state. It is whole unless there were too many.
	Rate(since time.Time, step time.Duration, steps int) (counts []map[queue.State]int, whole bool)
	// Explain says why a task is where it is, and what each host that answers lacks for it, or ErrUnknownTask.
	Explain(ctx context.Context, id string) (Explanation, error)
	// Demand says how much work there is and how much room.
	Demand(ctx context.Context) (Demand, error)
	// Show returns one task, or ErrUnknownTask.
	Show(ctx context.Context, id string) (View, error)
	// Wait returns when the task has ended for good, or with ctx's error. A task that is not known (yet) is waited for.
	Wait(ctx context.Context, id string) (View, error)
	// Changed returns a channel that is closed at the next change of any task.
	Changed() <-chan struct{}
	// Output locates the output of the task's attempt with this number; 0 means the latest. It returns ErrUnknownTask,
	// ErrElsewhere or a *NoOutput where there is none.
	Output(ctx context.Context, id string, attempt int) (Output, error)
	// Cancel cancels a waiting or running task. The string says in one sentence what was done.
	Cancel(ctx context.Context, id string) (string, error)
	// Hosts lists the hosts that answer, this one included.
	Hosts(ctx context.Context) ([]Info, error)
	// CancelLabel cancels all tasks that have the label with this value.
	CancelLabel(ctx context.Context, label, value string) (string, error)
	// Drain stops the intake and ends the manager when its running tasks have ended, for which they have so long; 0: the drain timeout. It
	// waits for them also where a manager that is stopped leaves its workers to the next one.
	Drain(timeout time.Duration)
	Info(ctx context.Context) (Info, error)
	// GPUs shows the host's GPUs as they are now.
	GPUs(ctx context.Context) (gpu.Overview, error)
	// Cemetery returns the dead letters.
	Cemetery() queue.Cemetery
}
