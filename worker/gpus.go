package worker

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/mayfly/mayfly/gpu"
	"github.com/mayfly/mayfly/isolation"
	"github.com/mayfly/mayfly/queue"
)

// GPUs runs attempts whose lease has GPUs: it looks at those before and after, and stops the attempt when they cannot go on.
type GPUs struct {
	Runner
	Host *gpu.Host
}

// endLimit is how long the last look at an ended attempt's GPUs may take.
const endLimit = 10 * time.Second

// Run implements Runner.
func (r *GPUs) Run(ctx context.Context, a *Attempt, started func(pid int, at time.Time)) (*Outcome, error) {
	if len(a.Lease.GPUs) == 0 {
		return r.Runner.Run(ctx, a, started)
	}
	return r.lend(ctx, a, started)
}

// lend runs an attempt that has GPUs.
func (r *GPUs) lend(ctx context.Context, a *Attempt, started func(pid int, at time.Time)) (*Outcome, error) {
	id := a.ID()
	running, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	begun := time.Now()
	if err := r.Host.Begin(ctx, id, a.joined, func() { stop(isolation.ErrKill) }); err != nil {
		o := &Outcome{Cause: queue.CauseGPUFault, Message: err.Error(), StartedAt: begun, FinishedAt: time.Now()}
		if ctx.Err() != nil {
			o.Cause, o.Message = queue.CauseCancelled, "the worker was stopped before it began"
		}
		return o, nil
	}
	o, err := r.Runner.Run(running, a, func(pid int, at time.Time) {
		r.Host.Started(id, pid)
		if started != nil {
			started(pid, at)
		}
	})
	if err != nil {
		return o, err
	}
	look, cancel := context.WithTimeout(context.WithoutCancel(ctx), endLimit)
	defer cancel()
	report := r.Host.End(look, id, o.Cause != queue.CauseNone)
	o.account(&report, ctx.Err() != nil)
	return o, nil
}

// account adds what became of an attempt's GPUs to its outcome. asked says that somebody asked for its end. A worker that succeeded has,
// whatever its GPUs went through.
func (o *Outcome) account(r *gpu.Report, asked bool) {
	o.Usage.GPUMemoryPeakBytes = r.MemoryPeak
	o.Usage.GPUEnergyJoules = r.Energy
	o.Usage.GPUUtilization = r.Utilization
	if o.Cause == queue.CauseNone || o.Cause == queue.CauseStartError || asked {
		return
	}
	hard := ""
	var soft []string
	for _, f := range r.Faults {
		if f.Severity == gpu.Application {
			soft = append(soft, f.Text)
		} else if hard == "" {
			hard = f.Text + " on " + f.GPU
		}
	}
	ended := o.Cause == queue.CauseExit || o.Cause == queue.CauseSignal || o.Cause == queue.CauseCancelled || o.Cause == queue.CauseTimeout
	switch {
	case ended && r.Broken != "":
		o.Cause, o.Message = queue.CauseGPUFault, r.Broken
	case ended && r.Over != "":
		o.Cause, o.Message = queue.CauseGPUOOM, "the worker was stopped: "+r.Over
	case ended && hard != "":
		o.Cause, o.Message = queue.CauseGPUFault, fmt.Sprintf("%s; the driver reported %s", o.Message, hard)
	case o.Cause == queue.CauseExit:
		if words := outOfMemory(o.StderrTail); words != "" {
			o.Cause, o.Message = queue.CauseGPUOOM, fmt.Sprintf("%s, and its last words were %q", o.Message, words)
		}
	}
	if len(soft) > 0 && o.Cause != queue.CauseGPUFault {
		o.note("the driver reported " + strings.Join(soft, ", "))
	}
}

// lastWords is how much of the end of standard error is looked through, in bytes. What was said before that did not end the worker.
const lastWords = 4096

// outOfMemory returns the words by which CUDA, or a library above it, says at the end of a program's standard error that the GPU's memory
// did not suffice; empty where it does not. Nothing else tells: a request that fails takes no memory that the driver could show.
func outOfMemory(stderr string) string {
	stderr = stderr[max(0, len(stderr)-lastWords):]
	at, found := -1, ""
	for _, words := range []string{
		"CUDA_ERROR_OUT_OF_MEMORY",                                   // the driver API's name for it
		"cudaErrorMemoryAllocation",                                  // the runtime API's
		"CUDA out of memory",                                         // PyTorch
		"CUDA error: out of memory",                                  // PyTorch, from the runtime
		"cuda out of memory",                                         // others
		"cudaMalloc failed: out of memory",                           // ggml
		"RESOURCE_EXHAUSTED: Out of memory while trying to allocate", // XLA: JAX, TensorFlow
	} {
		if n := strings.LastIndex(stderr, words); n > at {
			at, found = n, words
		}
	}
	return found
}
