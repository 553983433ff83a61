package queue

import (
	"cmp"
	"encoding/json"
	"time"
)

// Defaults and limits of a task. All of them are ours unless a source is named.
const (
	// MaxBody is the largest accepted message body in bytes: RabbitMQ 4.x refuses larger ones by default.
	MaxBody = 16 << 20
	// MaxDepth is the deepest accepted nesting of JSON arrays and objects.
	MaxDepth = 64
	// MaxID is the longest accepted task id in bytes. A routing key "<pool>.<id>" may have 255 bytes (AMQP 0-9-1 short
	// string), and the id also names a directory.
	MaxID = 128
	// MaxPool is the longest accepted pool name in bytes.
	MaxPool = 64
	// DefaultPool is the pool of a task that names none.
	DefaultPool = "default"
	// DefaultPriority is the priority of a task that names none; the range is 0 (last) to 9 (first).
	DefaultPriority = 5
	// MaxPriority is the highest priority.
	MaxPriority = 9
	// MaxAttempts is the largest accepted value of max_attempts: the history of so many travels in message headers, which
	// must fit one AMQP frame (128 KiB by default).
	MaxAttempts = 100
	// MaxDuration is the longest accepted duration: a year.
	MaxDuration = 365 * 24 * time.Hour
)

// Task is what a producer asked for. It is immutable once decoded: nobody writes to it or to what it refers to.
type Task struct {
	// ID is unique among the tasks that its producer cares to tell apart: 1 to MaxID bytes of A-Z a-z 0-9 . _ : @ + = -,
	// beginning with a letter or a digit.
	ID   string
	Name string
	// Exactly one of Command, Shell and Type was given. After a type is resolved, Command or Shell or Image is set too.
	Command []string
	Shell   string
	Type    string
	// Params is a JSON value for the worker's standard input, or nil.
	Params      json.RawMessage
	Image       string
	Environment map[string]string
	// Workdir is an absolute path, or empty for the attempt's scratch directory; with an image, for the image's own.
	Workdir string
	Stdin   string
	// Resources is what the task asks for; zero fields are the host's to default.
	Resources    Resources
	Alternatives []Resources
	// Timeout limits the running time of one attempt; 0 means none was given.
	Timeout time.Duration
	// Grace is the time between SIGTERM and SIGKILL; negative means none was given, 0 means kill at once.
	Grace time.Duration
	// MaxAttempts is the number of tries, at least 1; 0 means none was given.
	MaxAttempts int
	// Backoff is the wait before the second try, doubled for each further one; negative means none was given.
	Backoff time.Duration
	// Priority is 0 to MaxPriority. NoPriority says that it is DefaultPriority because none was given.
	Priority   int
	NoPriority bool
	// Deadline is the time after which the task must not start; zero means none.
	Deadline time.Time
	Labels   map[string]string
	// OnLost says what becomes of the worker when its host loses the queue; empty means that none was given.
	OnLost OnLost
	// Pool is where the message came from; a pool in the body must agree with it.
	Pool string
}

// OnLost says what a host that is cut off from the queue does with a worker.
type OnLost string

const (
	// KeepOnLost lets it run on: its result is kept until the queue is back. Another host may have begun the task by then.
	KeepOnLost OnLost = "keep"
	// KillOnLost stops it before another host can begin the task.
	KillOnLost OnLost = "kill"
)

// Resources is what a worker is given. A zero (for Network nil) field means that the task did not say.
type Resources struct {
	// CPU is a number of cores, possibly fractional.
	CPU float64
	// Memory, GPUMemory and Disk are bytes.
	Memory    int64
	GPUMemory int64
	Disk      int64
	GPU       int
	GPUModel  string
	// NoGPU says that GPU is 0 because the task says so: an alternative that does without.
	NoGPU   bool
	Network *bool
	PIDs    int
}

// With returns the resources with those changed that over names.
func (r Resources) With(over Resources) Resources {
	if over.NoGPU {
		r.GPU, r.GPUMemory, r.GPUModel = 0, 0, ""
	}
	return Resources{
		CPU:       cmp.Or(over.CPU, r.CPU),
		Memory:    cmp.Or(over.Memory, r.Memory),
		GPU:       cmp.Or(over.GPU, r.GPU),
		GPUMemory: cmp.Or(over.GPUMemory, r.GPUMemory),
		GPUModel:  cmp.Or(over.GPUModel, r.GPUModel),
		NoGPU:     over.NoGPU || r.NoGPU && over.GPU == 0,
		Disk:      cmp.Or(over.Disk, r.Disk),
		Network:   cmp.Or(over.Network, r.Network),
		PIDs:      cmp.Or(over.PIDs, r.PIDs),
	}
}
