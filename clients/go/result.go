package mayfly

import (
	"encoding/json"
	"time"
)

// State is how a task ended for good.
type State string

// The states of a result.
const (
	Succeeded State = "succeeded" // its worker exited with 0
	Failed    State = "failed"    // its last try failed, and there is none left
	Cancelled State = "cancelled" // somebody cancelled it
	Rejected  State = "rejected"  // it was refused: Message says what would be right
)

// Cause says why a task, or an attempt at it, ended as it did.
type Cause string

// The causes of a result. With CauseTimeout, exit code or signal tell how the worker ended then.
const (
	CauseNone       Cause = "none"        // it succeeded
	CauseExit       Cause = "exit"        // it exited with another code than 0
	CauseSignal     Cause = "signal"      // it was killed by a signal that was not Mayfly's
	CauseTimeout    Cause = "timeout"     // it ran longer than its timeout
	CauseDeadline   Cause = "deadline"    // it could not start before its deadline
	CauseOOM        Cause = "oom"         // it failed at its memory limit
	CauseGPUOOM     Cause = "gpu_oom"     // it failed for lack of GPU memory
	CauseGPUFault   Cause = "gpu_fault"   // its GPU failed
	CauseDiskFull   Cause = "disk_full"   // it failed with its disk full
	CauseStartError Cause = "start_error" // it could not be started
	CauseHostLost   Cause = "host_lost"   // it was lost with its host, again and again
	CauseCancelled  Cause = "cancelled"
	CauseRejected   Cause = "rejected"
)

// Result is how a task ended. What is said of an attempt is said of the last one.
type Result struct {
	ID    string `json:"id"`
	Name  string `json:"name"`
	Pool  string `json:"pool"`
	State State  `json:"state"`
	Cause Cause  `json:"cause"`
	// Message is the cause in a sentence.
	Message string `json:"message"`
	// ExitCode is nil unless the worker exited by itself.
	ExitCode *int `json:"exit_code"`
	// Signal is the name of the signal that ended the worker ("SIGKILL"), or empty.
	Signal string `json:"signal"`
	// Attempt is the number of the last attempt, from 1; 0 where none was begun.
	Attempt int `json:"attempt"`
	// Attempts are the ended attempts, oldest first.
	Attempts []Attempt `json:"attempts"`
	// Host settled the task.
	Host string `json:"host"`
	// GPUs are the UUIDs of the GPUs that the worker held.
	GPUs []string `json:"gpus"`
	// QueuedAt, StartedAt and FinishedAt are zero where there was no such moment.
	QueuedAt   time.Time `json:"queued_at"`
	StartedAt  time.Time `json:"started_at"`
	FinishedAt time.Time `json:"finished_at"`
	Usage      Usage     `json:"usage"`
	// Result is the JSON that the worker wrote to the path in MAYFLY_RESULT, or null.
	Result json.RawMessage `json:"result"`
	// StdoutTail and StderrTail are the ends of the worker's output.
	StdoutTail string `json:"stdout_tail"`
	StderrTail string `json:"stderr_tail"`
}

// Attempt is one ended try at a task.
type Attempt struct {
	// Attempt is its number, from 1.
	Attempt int    `json:"attempt"`
	Host    string `json:"host"`
	Cause   Cause  `json:"cause"`
	// ExitCode is nil unless the worker exited by itself.
	ExitCode *int `json:"exit_code"`
	// Signal is the name of the signal that ended the worker, or empty.
	Signal     string    `json:"signal"`
	Message    string    `json:"message"`
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
