package worker

import (
	"strings"
	"testing"

	"github.com/mayfly/mayfly/gpu"
	"github.com/mayfly/mayfly/queue"
)

// TestAccount holds what a GPU's trouble makes of an attempt's outcome.
func TestAccount(t *testing.T) {
	t.Parallel()
	one, app, hard := 1, gpu.Fault{GPU: "GPU-1", Severity: gpu.Application, Text: "XID 31"}, gpu.Fault{GPU: "GPU-1", Severity: gpu.Check, Text: "XID 48"}
	failed := Outcome{Cause: queue.CauseExit, Message: "the worker exited with code 1", ExitCode: &one}
	with := func(o Outcome, stderr string) Outcome { o.StderrTail = stderr; return o }
	for name, tt := range map[string]struct {
		o       Outcome
		r       gpu.Report
		asked   bool
		cause   queue.Cause
		message string
	}{
		"well":                           {Outcome{Cause: queue.CauseNone}, gpu.Report{}, false, queue.CauseNone, ""},
		"it succeeded all the same":      {Outcome{Cause: queue.CauseNone}, gpu.Report{Broken: "XID 79", Over: "it used", Faults: []gpu.Fault{hard}}, false, queue.CauseNone, ""},
		"it failed by itself":            {failed, gpu.Report{}, false, queue.CauseExit, "the worker exited with code 1"},
		"its own fault":                  {failed, gpu.Report{Faults: []gpu.Fault{app, app}}, false, queue.CauseExit, "the worker exited with code 1; the driver reported XID 31, XID 31"},
		"a fault of the GPU":             {failed, gpu.Report{Faults: []gpu.Fault{app, hard}}, false, queue.CauseGPUFault, "the worker exited with code 1; the driver reported XID 48 on GPU-1"},
		"stopped, for the GPU is broken": {Outcome{Cause: queue.CauseCancelled}, gpu.Report{Broken: "GPU 1: XID 79", Faults: []gpu.Fault{hard}}, false, queue.CauseGPUFault, "GPU 1: XID 79"},
		"stopped, for it took too much":  {Outcome{Cause: queue.CauseCancelled}, gpu.Report{Over: "it used 9GB"}, false, queue.CauseGPUOOM, "the worker was stopped: it used 9GB"},
		"cancelled meanwhile":            {Outcome{Cause: queue.CauseCancelled, Message: "m"}, gpu.Report{Broken: "x", Over: "y"}, true, queue.CauseCancelled, "m"},
		"hung on a broken GPU":           {Outcome{Cause: queue.CauseTimeout}, gpu.Report{Broken: "XID 119"}, false, queue.CauseGPUFault, "XID 119"},
		"out of the host's memory":       {Outcome{Cause: queue.CauseOOM, Message: "m"}, gpu.Report{Faults: []gpu.Fault{hard}}, false, queue.CauseOOM, "m"},
		"it says why": {with(failed, "Traceback\ntorch.OutOfMemoryError: CUDA out of memory. Tried"), gpu.Report{}, false, queue.CauseGPUOOM,
			`the worker exited with code 1, and its last words were "CUDA out of memory"`},
		"it said so long before": {with(failed, "CUDA out of memory, trying less"+strings.Repeat(".", lastWords)), gpu.Report{}, false, queue.CauseExit, failed.Message},
		"killed with the words":  {with(Outcome{Cause: queue.CauseSignal, Message: "m"}, "CUDA out of memory"), gpu.Report{}, false, queue.CauseSignal, "m"},
	} {
		o := tt.o
		tt.r.MemoryPeak, tt.r.Energy, tt.r.Utilization = 7, 8, 0.5
		o.account(&tt.r, tt.asked)
		if o.Cause != tt.cause || o.Message != tt.message || o.Usage.GPUMemoryPeakBytes != 7 || o.Usage.GPUEnergyJoules != 8 || o.Usage.GPUUtilization != 0.5 {
			t.Errorf("%s: %+v, want %s: %s", name, o, tt.cause, tt.message)
		}
	}
}

// TestEnvironmentOfGPUs holds what a worker finds of its GPUs.
func TestEnvironmentOfGPUs(t *testing.T) {
	t.Parallel()
	a := Attempt{Task: queue.Task{ID: "x", Command: []string{"x"}}, Number: 1, Lease: Lease{GPUs: []gpu.Grant{{UUID: "GPU-1"}, {UUID: "MIG-2"}}}}
	s := spec(&a, files{"/a"}, &Config{})
	env := strings.Join(s.Env, "\n") + "\n"
	for _, want := range []string{"CUDA_VISIBLE_DEVICES=GPU-1,MIG-2\n", "MAYFLY_GPUS=GPU-1,MIG-2\n", "NVIDIA_VISIBLE_DEVICES=GPU-1,MIG-2\n", "CUDA_DEVICE_ORDER=PCI_BUS_ID\n"} {
		if !strings.Contains(env, want) {
			t.Errorf("not in the environment: %s", want)
		}
	}
	if strings.Join(s.CDI, " ") != "nvidia.com/gpu=GPU-1 nvidia.com/gpu=MIG-2" {
		t.Errorf("%v", s.CDI)
	}
	a.Lease.GPUs = nil
	s = spec(&a, files{"/a"}, &Config{})
	if env := strings.Join(s.Env, "\n") + "\n"; !strings.Contains(env, "CUDA_VISIBLE_DEVICES=\n") || strings.Contains(env, "NVIDIA_VISIBLE") || s.CDI != nil {
		t.Errorf("without: %s, %v", env, s.CDI)
	}
}
