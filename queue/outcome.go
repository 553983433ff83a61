package queue

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"
)

// State is how a task ended for good.
type State string

// The states of a result.
const (
	Succeeded State = "succeeded"
	Failed    State = "failed"
	Cancelled State = "cancelled"
	Rejected  State = "rejected"
)

// Cause says why an attempt ended as it did. It is taken from what the kernel or the engine counted, never guessed.
type Cause string

// The causes of an outcome.
const (
	CauseNone       Cause = "none"
	CauseExit       Cause = "exit"
	CauseSignal     Cause = "signal"
	CauseTimeout    Cause = "timeout"
	CauseDeadline   Cause = "deadline"
	CauseOOM        Cause = "oom"
	CauseGPUOOM     Cause = "gpu_oom"
	CauseGPUFault   Cause = "gpu_fault"
	CauseDiskFull   Cause = "disk_full"
	CauseStartError Cause = "start_error"
	CauseHostLost   Cause = "host_lost"
	CauseCancelled  Cause = "cancelled"
	CauseRejected   Cause = "rejected"
)

// HostFault reports whether the cause is a failure of the host rather than of the task; such an attempt does not use up
// one of the task's tries.
func (c Cause) HostFault() bool { return c == CauseHostLost || c == CauseGPUFault }

// Past is one ended attempt, as it travels with a retried message and stands in a result.
type Past struct {
	// Attempt is the number of the attempt, from 1; the attempt's id is "<task id>.<number>".
	Attempt    int       `json:"attempt"`
	Host       string    `json:"host"`
	Cause      Cause     `json:"cause"`
	ExitCode   *int      `json:"exit_code"`
	Signal     string    `json:"signal,omitempty"`
	Message    string    `json:"message,omitempty"`
	StartedAt  time.Time `json:"started_at"`
	FinishedAt time.Time `json:"finished_at"`
}

// Usage is what an attempt consumed.
type Usage struct {
	WallSeconds        float64 `json:"wall_seconds"`
	CPUSeconds         float64 `json:"cpu_seconds"`
	MemoryPeakBytes    int64   `json:"memory_peak_bytes"`
	GPUMemoryPeakBytes int64   `json:"gpu_memory_peak_bytes"`
	GPUEnergyJoules    float64 `json:"gpu_energy_joules"`
	// GPUUtilization is the mean share of the time in which the GPUs were busy, 0 to 1.
	GPUUtilization float64 `json:"gpu_utilization"`
}

// Result is what the producer is told once its task is settled for good. Its JSON form is part of the outside contract.
type Result struct {
	ID      string `json:"id"`
	Name    string `json:"name"`
	Pool    string `json:"pool"`
	State   State  `json:"state"`
	Cause   Cause  `json:"cause"`
	Message string `json:"message"`
	// ExitCode is nil unless the last attempt exited by itself.
	ExitCode *int `json:"exit_code"`
	// Signal is the name of the signal that ended the last attempt ("SIGKILL"), or empty.
	Signal string `json:"signal"`
	// Attempt is the number of the last attempt, 0 where none was begun.
	Attempt    int             `json:"attempt"`
	Attempts   []Past          `json:"attempts"`
	Host       string          `json:"host"`
	GPUs       []string        `json:"gpus"`
	QueuedAt   *time.Time      `json:"queued_at"`
	StartedAt  *time.Time      `json:"started_at"`
	FinishedAt *time.Time      `json:"finished_at"`
	Usage      Usage           `json:"usage"`
	Result     json.RawMessage `json:"result"`
	StdoutTail string          `json:"stdout_tail"`
	StderrTail string          `json:"stderr_tail"`
}

// AttemptID names one try at a task: unique, as long as the history travels with the message.
func AttemptID(taskID string, attempt int) string { return taskID + "." + strconv.Itoa(attempt) }

// Refusal is the reason why a message is not a task that can run: one sentence that names the field, the value and the
// remedy.
type Refusal struct {
	// Field is the path of the offending field ("resources.memory"), or "body".
	Field string
	// Value is the offending value as given, shortened.
	Value string
	// Remedy says what would be right.
	Remedy string
}

// Error returns the sentence.
func (r *Refusal) Error() string {
	if r.Value == "" {
		return fmt.Sprintf("%s: %s", r.Field, r.Remedy)
	}
	return fmt.Sprintf("%s is %s: %s", r.Field, r.Value, r.Remedy)
}
