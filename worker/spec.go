package worker

import (
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/mayfly/mayfly/isolation"
	"github.com/mayfly/mayfly/queue"
)

// path is the PATH of a worker whose task sets none: that of a Debian login shell for root.
const path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// files are the places of an attempt within its directory.
type files struct{ dir string }

func (f files) stdin() string  { return filepath.Join(f.dir, "stdin") }
func (f files) stdout() string { return filepath.Join(f.dir, "stdout") }
func (f files) stderr() string { return filepath.Join(f.dir, "stderr") }

// own is the part that is the worker's.
func (f files) own() string     { return filepath.Join(f.dir, "work") }
func (f files) result() string  { return filepath.Join(f.own(), "result") }
func (f files) scratch() string { return filepath.Join(f.own(), "scratch") }

// input returns what the worker reads on standard input: the task's params as JSON, or its stdin.
func input(t *queue.Task) []byte {
	if t.Params != nil {
		return append(slices.Clone([]byte(t.Params)), '\n')
	}
	return []byte(t.Stdin)
}

// spec says what to run for the attempt.
func spec(a *Attempt, f files, c *Config) isolation.Spec {
	t, l := &a.Task, &a.Lease
	s := isolation.Spec{
		ID:        a.ID(),
		Args:      t.Command,
		Env:       environment(a, f, c),
		Dir:       t.Workdir,
		Stdout:    f.stdout(),
		Stderr:    f.stderr(),
		OutputMax: c.OutputMax,
		Timeout:   t.Timeout,
		Grace:     t.Grace,
		Image:     t.Image,
		Private:   f.own(),
		Dirs:      []string{filepath.Base(f.scratch())},
		Carry:     f.result(),
		CarryMax:  maxResult,
		Limits:    isolation.Limits{MilliCPU: l.MilliCPU, Cores: l.cores(), Memory: l.Memory, PIDs: l.PIDs, Disk: l.Disk},
		NoNetwork: t.Resources.Network != nil && !*t.Resources.Network,
	}
	if c.Devices != nil {
		s.Devices, s.Closed = c.Devices(l.GPUs)
	}
	for _, name := range l.GPUNames() {
		s.CDI = append(s.CDI, "nvidia.com/gpu="+name)
	}
	if t.Shell != "" {
		s.Args = []string{"/bin/sh", "-c", t.Shell}
	}
	if s.Dir == "" && s.Image == "" { // an image has one of its own
		s.Dir = f.scratch()
	}
	if t.Params != nil || t.Stdin != "" {
		s.Stdin = f.stdin()
	}
	return s
}

// environment is everything that the worker finds in its environment. Nothing is inherited; a task may set all names but
// the reserved ones, which the decoder refuses and which are set last.
func environment(a *Attempt, f files, c *Config) []string {
	t, user := &a.Task, c.User
	env := map[string]string{"PATH": path, "HOME": f.scratch(), "TMPDIR": f.scratch(), "LANG": "C.UTF-8"}
	if t.Image != "" {
		delete(env, "PATH") // the image knows where its programs are
	} else if user != "" {
		env["USER"], env["LOGNAME"] = user, user
	}
	maps.Copy(env, t.Environment)
	if a.Trace.Parent != "" { // who sent the message knows better than who wrote the task
		trace := a.Trace
		if c.Spans {
			trace = trace.within(a.ID())
		}
		env["TRACEPARENT"] = trace.Parent
		delete(env, "TRACESTATE")
		if trace.State != "" {
			env["TRACESTATE"] = trace.State
		}
	}
	maps.Copy(env, map[string]string{
		"MAYFLY_TASK_ID":      t.ID,
		"MAYFLY_ATTEMPT":      strconv.Itoa(a.Number),
		"MAYFLY_HOST":         a.Host,
		"MAYFLY_POOL":         t.Pool,
		"MAYFLY_CPUS":         strconv.FormatFloat(float64(a.Lease.MilliCPU)/1000, 'f', -1, 64),
		"MAYFLY_MEMORY_BYTES": strconv.FormatInt(a.Lease.Memory, 10),
		"MAYFLY_GPUS":         strings.Join(a.Lease.GPUNames(), ","),
		"MAYFLY_RESULT":       f.result(),
		"MAYFLY_SCRATCH":      f.scratch(),
		// Unset would show all GPUs to CUDA; empty shows none.
		"CUDA_VISIBLE_DEVICES": strings.Join(a.Lease.GPUNames(), ","),
	})
	if len(a.Lease.GPUs) > 0 {
		env["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
		env["NVIDIA_VISIBLE_DEVICES"] = strings.Join(a.Lease.GPUNames(), ",")
	}
	list := make([]string, 0, len(env))
	for _, name := range slices.Sorted(maps.Keys(env)) {
		list = append(list, name+"="+env[name])
	}
	return list
}
