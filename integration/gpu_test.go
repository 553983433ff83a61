package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mayfly/mayfly/gpu"
	"github.com/mayfly/mayfly/integration/fakegpu"
	"github.com/mayfly/mayfly/manager"
	"github.com/mayfly/mayfly/queue"
)

// gpuHost is a host with fake GPUs.
type gpuHost struct {
	*host
	fake *fakegpu.Host
}

func newGPUHost(t *testing.T, env ...string) *gpuHost {
	t.Helper()
	fake := fakegpu.New(t, fakegpu.Options{})
	return &gpuHost{fake: fake, host: newHost(t, append([]string{"MAYFLY_NVML=" + fake.Library, "MAYFLY_TEST_GPU_ROOT=" + fake.Root(),
		"MAYFLY_CPUS=16", "MAYFLY_MEMORY=4GiB", "MAYFLY_GPU_CLEAN=2s", "MAYFLY_GPU_CALL_TIMEOUT=1s"}, env...)...)}
}

// overview shows the GPUs.
func (h *gpuHost) overview() gpu.Overview {
	h.tb.Helper()
	var o gpu.Overview
	if err := h.get("/v1/gpus", &o); err != nil {
		h.tb.Fatal(err)
	}
	return o
}

// device shows one, by its UUID.
func (h *gpuHost) device(uuid string) gpu.Status {
	h.tb.Helper()
	for _, d := range h.overview().GPUs {
		if d.UUID == uuid {
			return d
		}
	}
	h.tb.Fatalf("no device %s", uuid)
	return gpu.Status{}
}

// allFree waits until every device can be lent again.
func (h *gpuHost) allFree() {
	h.tb.Helper()
	h.until("all GPUs are free", func() bool {
		return !slices.ContainsFunc(h.overview().GPUs, func(d gpu.Status) bool { return d.Condition != "free" && d.Condition != "divided" })
	}, func() any { return h.overview() })
}

// task makes a document.
func task(id string, resources map[string]any, shell string, more ...map[string]any) string {
	t := map[string]any{"id": id, "shell": shell, "resources": resources}
	for _, m := range more {
		for k, v := range m {
			t[k] = v
		}
	}
	text, err := json.Marshal(t)
	if err != nil {
		panic(err)
	}
	return string(text)
}

type resources = map[string]any

// runs waits until a task's worker runs, and returns what is shown of it.
func (h *gpuHost) runs(id string) (v manager.View) {
	h.tb.Helper()
	h.until(id+" runs", func() bool {
		for _, w := range h.tasks() {
			if w.ID == id && w.Status == manager.Running && w.PID != 0 {
				v = w
				return true
			}
		}
		return false
	})
	return v
}

// opens tells of device files whether they can be opened: "full: yes, zero: EPERM". It runs in a worker.
const opens = `for f in "$@"; do
  if ! test -e "$f"; then echo "$(basename "$f"): hidden"
  elif out=$( { : <"$f"; } 2>&1 ); then echo "$(basename "$f"): opened"
  else echo "$(basename "$f"): ${out##*: }"; fi
done`

// TestGPUFence has workers with and without GPUs try all device files.
func TestGPUFence(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		env  []string
		shut string
	}{
		"sandbox":    {nil, "hidden"},
		"no sandbox": {[]string{"MAYFLY_SANDBOX=off"}, "Operation not permitted"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newGPUHost(t, tt.env...)
			h.fake.EnableMIG(7, "1g.10gb", "1g.10gb")
			h.start()
			dev := h.fake.Root() + "/dev/"
			try := func(id string, r resources) queue.Result {
				r["cpu"], r["memory"] = 1, "64MiB"
				files, _ := filepath.Glob(dev + "nvidia*")
				caps, _ := filepath.Glob(dev + "nvidia-caps/*")
				h.submit(task(id, r, "set -- "+strings.Join(append(files, caps...), " ")+"\n"+opens+"\necho \"visible: $CUDA_VISIBLE_DEVICES\""))
				res := h.result(id)
				if res.Cause != queue.CauseNone {
					t.Fatalf("%s: %s: %s", id, res.Message, res.StderrTail)
				}
				return res
			}
			// The first GPUs' files are other devices that can be opened; those of a driver that is not there cannot, but that is another error.
			r := try("none", resources{})
			for line := range strings.Lines(r.StdoutTail) {
				if line = strings.TrimSpace(line); line != "visible:" && line != "nvidia-caps: opened" && !strings.HasSuffix(line, ": "+tt.shut) {
					t.Errorf("without GPUs: %s", line)
				}
			}
			r = try("four", resources{"gpu": 4}) // those that are linked; of the others one is divided
			var uuids []string
			for i := range 4 {
				uuids = append(uuids, h.fake.GPU(i).UUID)
			}
			want := strings.Join(uuids, ",")
			if strings.Join(r.GPUs, ",") != want {
				t.Errorf("GPUs %v", r.GPUs)
			}
			for _, line := range []string{"nvidia0: opened", "nvidia1: opened", "nvidia3: opened", "nvidia4: " + tt.shut, "nvidia6: " + tt.shut, "nvidia7: " + tt.shut, "nvidiactl: opened",
				"nvidia-uvm: opened", "visible: " + want} {
				if !strings.Contains(r.StdoutTail, line+"\n") {
					t.Errorf("with four GPUs, not %q:\n%s", line, r.StdoutTail)
				}
			}
			r = try("instance", resources{"gpu_memory": "5GB"})
			o := h.overview()
			if len(o.GPUs) != 10 || len(r.GPUs) != 1 || r.GPUs[0] != o.GPUs[8].UUID {
				t.Fatalf("instance: %v of %+v", r.GPUs, o)
			}
			for i, other := range o.GPUs[9].Files {
				mine := o.GPUs[8].Files[i]
				if mine == other { // that of the GPU itself
					if !strings.Contains(r.StdoutTail, filepath.Base(mine.Path)+": No such device or address\n") {
						t.Errorf("with an instance, its GPU is shut:\n%s", r.StdoutTail)
					}
					continue
				}
				for file, want := range map[string]string{mine.Path: "No such device or address", other.Path: tt.shut} {
					if line := filepath.Base(file) + ": " + want; !strings.Contains(r.StdoutTail, line+"\n") {
						t.Errorf("with an instance, not %q:\n%s", line, r.StdoutTail)
					}
				}
			}
		})
	}
}

// TestGPUTasks runs what may happen to a task with GPUs, each case on GPUs of its own.
func TestGPUTasks(t *testing.T) {
	t.Parallel()
	h := newGPUHost(t, "MAYFLY_GPU_SHARING=memory", "MAYFLY_MAX_ATTEMPTS=2", "MAYFLY_BACKOFF=1ms")
	h.start()
	small := func(r resources) resources {
		r["cpu"], r["memory"] = 0.5, "64MiB"
		return r
	}
	file := func(name string) string { return filepath.Join(h.shared, name) }
	wait := func(name string) string { return "while ! test -e " + file(name) + "; do sleep 0.02; done; " }
	let := func(name string) {
		if err := os.WriteFile(file(name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}

	// What it used.
	h.submit(task("used", small(resources{"gpu": 1}), wait("used")+"exit 0"))
	v := h.runs("used")
	h.fake.AddProcess(v.GPUs[0], v.PID, 3<<30)
	h.until("its memory was seen", func() bool { return h.device(v.GPUs[0]).State.Used == 3<<30 })
	time.Sleep(1500 * time.Millisecond) // a sample, and some energy
	h.fake.RemoveProcess(v.PID)
	let("used")
	r := h.result("used")
	if u := r.Usage; r.Cause != queue.CauseNone || u.GPUMemoryPeakBytes != 3<<30 || u.GPUEnergyJoules <= 0 || !slices.Equal(r.GPUs, v.GPUs) {
		t.Errorf("%+v", r)
	}

	// A process is left, and killed; one that cannot be is what only its GPU suffers from.
	left := exec.Command("sleep", "600")
	if err := left.Start(); err != nil {
		t.Fatal(err)
	}
	h.submit(task("leaves", small(resources{"gpu": 1}), wait("leaves")))
	v = h.runs("leaves")
	h.fake.AddProcess(v.GPUs[0], left.Process.Pid, 1<<30)
	let("leaves")
	h.result("leaves")
	if err := left.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("what was left on a GPU: %v", err)
	}
	const unknown = 1 << 22                      // beyond all PIDs
	h.fake.AddProcess(v.GPUs[0], unknown, 1<<30) // before the other one goes, for then the GPU is clean
	h.fake.RemoveProcess(left.Process.Pid)
	h.until("the GPU is in quarantine", func() bool { return h.device(v.GPUs[0]).Condition == "quarantined" }, func() any { return h.device(v.GPUs[0]) })
	h.expect(0, "has been in quarantine for", "", "gpus")
	h.submit(task("others", small(resources{"gpu": 7}), "true"))
	if r := h.result("others"); r.Cause != queue.CauseNone || slices.Contains(r.GPUs, v.GPUs[0]) {
		t.Errorf("on the other GPUs: %+v", r)
	}
	h.submit(task("all", small(resources{"gpu": 8}), "true"))
	h.until("it waits", func() bool {
		list := h.tasks()
		return len(list) == 1 && strings.Contains(list[0].Reason, "7 of 8 are free, 1 in quarantine")
	}, func() any { return h.tasks() })
	h.fake.RemoveProcess(unknown)
	if r := h.result("all"); r.Cause != queue.CauseNone || len(r.GPUs) != 8 {
		t.Errorf("on all GPUs: %+v", r)
	}

	// A fault of the application's, then one of the GPU's.
	h.submit(task("faulty", small(resources{"gpu": 1}), wait("faulty")+"exit 3", resources{"max_attempts": 1}))
	v = h.runs("faulty")
	h.fake.Xid(h.index(v.GPUs[0]), 31)
	let("faulty")
	if r := h.result("faulty"); r.Cause != queue.CauseExit || !strings.Contains(r.Message, "XID 31: GPU memory page fault") {
		t.Errorf("XID 31: %s: %s", r.Cause, r.Message)
	}
	h.allFree()
	h.submit(task("lost", small(resources{"gpu": 1}), `test "$MAYFLY_ATTEMPT" = 2 || sleep 600; echo "$CUDA_VISIBLE_DEVICES"`))
	v = h.runs("lost")
	broken := h.index(v.GPUs[0])
	h.fake.Update(func(gpus []*fakegpu.GPU) { gpus[broken].Recovery = 2 })
	h.fake.Xid(broken, 79)
	r = h.result("lost")
	if r.State != queue.Succeeded || len(r.Attempts) != 2 || r.Attempts[0].Cause != queue.CauseGPUFault || !strings.Contains(r.Attempts[0].Message, "XID 79") ||
		strings.TrimSpace(r.StdoutTail) == v.GPUs[0] {
		t.Errorf("XID 79: %+v", r)
	}
	if d := h.device(v.GPUs[0]); d.Condition != "quarantined" {
		t.Errorf("after XID 79: %+v", d)
	}
	h.fake.Update(func(gpus []*fakegpu.GPU) { gpus[broken].Recovery = 0 })
	h.allFree()

	// Shares: two on one GPU, of which one takes too much.
	h.submit(task("fair", small(resources{"gpu_memory": "30GiB"}), wait("fair")))
	fair := h.runs("fair")
	h.submit(task("greedy", small(resources{"gpu_memory": "40GiB"}), "sleep 600", resources{"max_attempts": 1}))
	greedy := h.runs("greedy")
	if fair.GPUs[0] != greedy.GPUs[0] {
		t.Errorf("shares on %v and %v", fair.GPUs, greedy.GPUs)
	}
	h.fake.AddProcess(fair.GPUs[0], fair.PID, 30<<30)
	h.fake.AddProcess(fair.GPUs[0], greedy.PID, 41<<30)
	if r := h.result("greedy"); r.Cause != queue.CauseGPUOOM || !strings.Contains(r.Message, "it had asked for") || r.Usage.GPUMemoryPeakBytes != 41<<30 {
		t.Errorf("over its share: %+v", r)
	}
	h.fake.RemoveProcess(greedy.PID)
	h.fake.RemoveProcess(fair.PID)
	let("fair")
	if r := h.result("fair"); r.Cause != queue.CauseNone || r.Usage.GPUMemoryPeakBytes != 30<<30 {
		t.Errorf("beside one over its share: %+v", r)
	}

	// A program that says that the memory did not suffice.
	h.submit(task("words", small(resources{"gpu": 1}), "echo 'torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 GiB' >&2; exit 1", resources{"max_attempts": 1}))
	if r := h.result("words"); r.Cause != queue.CauseGPUOOM || *r.ExitCode != 1 {
		t.Errorf("out of memory: %+v", r)
	}
	h.submit(task("no-gpu-words", small(resources{}), "echo 'CUDA out of memory' >&2; exit 1", resources{"max_attempts": 1}))
	if r := h.result("no-gpu-words"); r.Cause != queue.CauseExit {
		t.Errorf("out of memory without a GPU: %+v", r)
	}

	// Alternatives, and what cannot be had.
	h.submit(task("or-none", small(resources{"gpu": 1, "gpu_model": "A100"}), "echo \"<$CUDA_VISIBLE_DEVICES>\"", resources{"alternatives": []resources{{"gpu": 9}, {"gpu": 0}}}))
	if r := h.result("or-none"); r.Cause != queue.CauseNone || r.StdoutTail != "<>\n" || len(r.GPUs) != 0 {
		t.Errorf("the last alternative: %+v", r)
	}
	h.expect(1, "", `resources.gpu_model is "A100": this host lends 8 NVIDIA H100 80GB HBM3`, "submit", "--gpu-model", "A100", "--", "true")
	h.expect(1, "", `resources.gpu is 9: this host lends 8 such`, "submit", "--gpu", "9", "--", "true")

	// The manager dies, and its successor goes on with the worker and its GPU.
	h.submit(task("survivor", small(resources{"gpu": 2}), wait("survivor")+"exit 5", resources{"max_attempts": 1}))
	v = h.runs("survivor")
	h.fake.AddProcess(v.GPUs[0], v.PID, 1<<30)
	h.kill()
	h.start()
	for _, uuid := range v.GPUs {
		if d := h.device(uuid); d.Condition != "held" || d.Holders["survivor.1"] == 0 {
			t.Errorf("after a restart: %+v", d)
		}
	}
	h.fake.RemoveProcess(v.PID)
	let("survivor")
	if r := h.result("survivor"); r.ExitCode == nil || *r.ExitCode != 5 || len(r.Attempts) != 1 || !slices.Equal(r.GPUs, v.GPUs) {
		t.Errorf("after a restart: %+v", r)
	}
	h.allFree()

	// The driver hangs: what runs goes on, and all is well when it answers again.
	h.submit(task("steady", small(resources{"gpu": 1}), wait("steady")+"exit 0"))
	h.runs("steady")
	h.fake.Hang(fakegpu.All)
	if o := h.overview(); !strings.Contains(o.Note, "does not answer") {
		t.Errorf("a driver that hangs: %+v", o.Note)
	}
	let("steady")
	if r := h.result("steady"); r.Cause != queue.CauseNone {
		t.Errorf("while the driver hung: %+v", r)
	}
	h.fake.ClearFaults()
	h.allFree()
	// Nothing is left to look at, so nobody looks.
	h.until("the helper is gone", func() bool { return len(h.helpers()) == 0 })
}

// helpers lists the processes that speak to the driver.
func (h *gpuHost) helpers() (pids []int) {
	paths, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range paths {
		text, _ := os.ReadFile(path)
		var pid int
		if _, err := fmt.Sscanf(path, "/proc/%d/", &pid); err == nil && strings.Contains(string(text), "gpu-helper") && strings.Contains(string(text), h.fake.Library) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// index is the number of a GPU.
func (h *gpuHost) index(uuid string) int {
	h.tb.Helper()
	return h.device(uuid).Index
}
