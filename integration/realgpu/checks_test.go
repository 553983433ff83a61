package realgpu

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mayfly/mayfly/gpu"
	"github.com/mayfly/mayfly/queue"
)

const (
	gib = 1 << 30
	// slack is how much more of a GPU's memory may be used than before: drivers keep some for themselves.
	slack = 64 << 20
	// contextMax bounds what CUDA takes of a GPU's memory for a program beside what that asks for.
	contextMax = 3 * gib / 2
)

var one = resources{"gpu": 1}

// size writes an amount of bytes.
func size(n int64) string { return queue.FormatSize(n) }

// inventory has the GPUs compared with what NVIDIA's tool says.
func inventory(c *check) {
	text, err := c.host.say(c.ctx, "gpus", "--json")
	c.must(err)
	var o gpu.Overview
	c.must(json.Unmarshal([]byte(text), &o))
	ours, theirs, memory := map[string]string{}, map[string]string{}, map[string]int64{}
	for _, d := range o.GPUs {
		if d.Parent != "" {
			c.measured("instance %s of GPU %d: %s", d.Profile, d.Index, size(d.Memory))
			continue
		}
		c.measured("GPU %d: %s, %s, memory node %d", d.Index, d.Model, size(d.Memory), d.Node)
		ours[d.UUID] = fmt.Sprintf("%s, %s", d.Model, o.Driver)
		memory[d.UUID] = d.Memory
	}
	if c.smi == "" {
		c.without("there is no nvidia-smi to compare that with")
	}
	out, err := exec.CommandContext(c.ctx, c.smi, "--query-gpu=memory.total,uuid,name,driver_version", "--format=csv,noheader,nounits").CombinedOutput()
	if err != nil {
		c.fatal("nvidia-smi: %v: %s", err, out)
	}
	for text := range strings.Lines(string(out)) {
		if fields := strings.SplitN(strings.TrimSpace(text), ", ", 3); len(fields) == 3 {
			theirs[fields[1]] = fields[2]
			if mib, err := strconv.ParseInt(fields[0], 10, 64); err != nil || max(mib<<20-memory[fields[1]], memory[fields[1]]-mib<<20) > 1<<20 {
				c.wrong("nvidia-smi says that a GPU has %s MiB of memory, mayfly %s", fields[0], size(memory[fields[1]]))
			}
		}
	}
	if !maps.Equal(ours, theirs) {
		c.wrong("mayfly has %v, nvidia-smi %v", ours, theirs)
	}
	if !c.Failed() {
		c.measured("nvidia-smi says the same")
	}
}

// noGPU has a task without GPU look for one, as it is told and then against what it is told.
func noGPU(c *check) {
	r := c.shell(nil, `$CUDA none; echo "code $?"; unset CUDA_VISIBLE_DEVICES; $CUDA none; echo "code $?"`)
	s := c.succeeded(&r)
	if !slices.Equal(s["code"], []string{"0", "0"}) {
		c.wrong("it saw GPUs: %s%s", r.StdoutTail, r.StderrTail)
	}
	if len(r.GPUs) > 0 || r.Usage.GPUMemoryPeakBytes != 0 {
		c.wrong("its result has GPUs: %v, %+v", r.GPUs, r.Usage)
	}
	c.measured("cuInit says %s, and with CUDA_VISIBLE_DEVICES unset, too: %s", s["init"][0], s.of("init"))
}

// oneGPU has a task with one GPU compute on it, and look for more.
func oneGPU(c *check) {
	c.whole()
	r := c.run(one, "sum")
	s := c.succeeded(&r)
	c.measured("%s; %s; CUDA took %s s to begin", c.seen(&r, s), c.sum(s), s.of("begun_seconds"))
	r = c.shell(one, "unset CUDA_VISIBLE_DEVICES; $CUDA sum")
	c.measured("with CUDA_VISIBLE_DEVICES unset %s, of the host's %d", c.seen(&r, c.succeeded(&r)), len(c.all))
}

// seen says in a few words which devices a task has seen, which are to be the one that it had.
func (c *check) seen(r *queue.Result, s said) string {
	c.Helper()
	list := s.uuids()
	if len(r.GPUs) != 1 || s.of("devices") != "1" || !slices.Equal(list, []string{bare(r.GPUs[0])}) {
		c.wrong("it saw %v, and has %v", list, r.GPUs)
		return fmt.Sprintf("it saw %d devices", len(list))
	}
	return "it saw 1 device, with the UUID of its result"
}

// usage compares the account of a task with what it did.
func usage(c *check) {
	d := c.whole()
	const held = 2 * gib
	if d.Memory < held+contextMax {
		c.without("the GPU has %s only", size(d.Memory))
	}
	r := c.run(one, "hold", fmt.Sprint(held), fmt.Sprint(c.hold.Seconds()))
	s := c.succeeded(&r)
	u := r.Usage
	if u.GPUMemoryPeakBytes < held || u.GPUMemoryPeakBytes > held+contextMax {
		c.wrong("gpu_memory_peak_bytes is %s, for %s", size(u.GPUMemoryPeakBytes), size(held))
	}
	if u.GPUEnergyJoules <= 0 {
		c.wrong("gpu_energy_joules is %.1f", u.GPUEnergyJoules)
	}
	if u.GPUUtilization <= 0.3 || u.GPUUtilization > 1 {
		c.wrong("gpu_utilization is %.2f", u.GPUUtilization)
	}
	c.measured("for %s held and the GPU kept busy for %s: memory peak %s, %.0f J, utilization %.2f, %.1f s in all, of which CUDA took %s s to begin", size(held), c.hold,
		size(u.GPUMemoryPeakBytes), u.GPUEnergyJoules, u.GPUUtilization, u.WallSeconds, s.of("begun_seconds"))
}

// tooMuch has a task take more memory than there is.
func tooMuch(c *check) {
	d := c.whole()
	r := c.run(one, "too-much")
	if r.Cause != queue.CauseGPUOOM || r.ExitCode == nil || *r.ExitCode != 1 {
		c.wrong("%s: %s: %s", r.Cause, r.Message, r.StderrTail)
	}
	c.measured("cause %s after %d GiB of %s: %q; free again after %s", r.Cause, len(listen(r.StdoutTail)["held_bytes"]), size(d.Memory), r.Message, c.free())
}

// fault has a kernel write where there is no memory.
func fault(c *check) {
	c.whole()
	r := c.run(one, "fault")
	if r.State != queue.Failed || r.ExitCode == nil || *r.ExitCode != 3 || !strings.Contains(r.StderrTail, "CUDA_ERROR_ILLEGAL_ADDRESS") {
		c.wrong("%s: %s: %s", r.Cause, r.Message, r.StderrTail)
	}
	if !strings.Contains(r.Message, "XID") {
		c.wrong("the message names no XID: %q", r.Message)
	}
	c.measured("cause %s: %q; free again after %s", r.Cause, r.Message, c.free())
	r = c.run(one, "sum")
	c.measured("the next task: %s", c.sum(c.succeeded(&r)))
}

// linger has a task leave a process with memory of the GPU behind.
func linger(c *check) {
	c.whole()
	r := c.run(one, "linger", fmt.Sprint(gib))
	s := c.succeeded(&r)
	took := c.free()
	d, err := c.host.device(c.ctx, r.GPUs[0])
	c.must(err)
	c.asBefore(&d)
	child := s.of("child")
	if _, err := os.Stat("/proc/" + child); child == "" || err == nil {
		c.wrong("the process %q is still there", child)
	}
	if c.smi != "" {
		out, err := exec.CommandContext(c.ctx, c.smi, "--query-compute-apps=pid", "--format=csv,noheader").CombinedOutput()
		if err != nil || slices.Contains(strings.Fields(string(out)), child) {
			c.wrong("nvidia-smi: %v: %s", err, out)
		}
	}
	c.measured("after a process in a session of its own had kept %s, the GPU was free after %s, with %s used (before all tasks: %s) by %d processes", s.of("held_bytes"),
		took, size(d.State.Used), size(c.idle[d.UUID].State.Used), len(d.State.Processes))
}

// asBefore compares a device with how it was before all tasks.
func (c *check) asBefore(d *gpu.Status) {
	c.Helper()
	before := c.idle[d.UUID]
	if d.State.Used > before.State.Used+slack {
		c.wrong("%s of its memory are used, before all tasks %s", size(d.State.Used), size(before.State.Used))
	}
	for _, p := range d.State.Processes {
		if !slices.ContainsFunc(before.State.Processes, func(b gpu.Process) bool { return b.PID == p.PID }) {
			c.wrong("the process %d is on it", p.PID)
		}
	}
}

// restart kills the manager while a CUDA program runs.
func restart(c *check) {
	c.whole()
	const held = gib
	id := c.begin(one, "hold", fmt.Sprint(held), fmt.Sprint(2*c.hold.Seconds()+2))
	v, err := c.host.runs(c.ctx, id)
	c.must(err)
	uuid := v.GPUs[0]
	c.must(c.host.until(c.ctx, "the program has its memory", func() (bool, error) {
		d, err := c.host.device(c.ctx, uuid)
		return d.State.Used >= c.idle[uuid].State.Used+held, err
	}))
	c.host.kill()
	c.must(c.host.start(c.ctx))
	d, err := c.host.device(c.ctx, uuid)
	c.must(err)
	if d.Condition != "held" || d.Holders[queue.AttemptID(id, 1)] == 0 {
		c.wrong("after the restart the GPU is %s, by %v %s", d.Condition, d.Holders, d.Reason)
	}
	if after, err := c.host.runs(c.ctx, id); err != nil || after.PID != v.PID {
		c.wrong("after the restart the worker is %d, before it was %d: %v", after.PID, v.PID, err)
	}
	r := c.result(id)
	sum := c.sum(c.succeeded(&r))
	if len(r.Attempts) != 1 || !slices.Equal(r.GPUs, v.GPUs) {
		c.wrong("%d attempts, the last on %v", len(r.Attempts), r.GPUs)
	}
	if r.Usage.GPUMemoryPeakBytes < held {
		c.wrong("gpu_memory_peak_bytes is %s, for %s", size(r.Usage.GPUMemoryPeakBytes), size(held))
	}
	c.measured("the same worker, adopted with its GPU: %d attempt, %s, memory peak %s for %s; free again after %s", len(r.Attempts), sum, size(r.Usage.GPUMemoryPeakBytes), size(held), c.free())
}

// manyShort runs short tasks one after the other.
func manyShort(c *check) {
	c.whole()
	var turn, run, clean []time.Duration
	defer func() {
		c.measured("%d tasks, and a clean GPU after %d of them; from submission to result %s; of that the worker %s; from result to a free GPU %s", len(turn), len(clean), spread(turn), spread(run), spread(clean))
	}()
	for range c.short {
		began := time.Now()
		r := c.run(one, "sum")
		turn = append(turn, time.Since(began))
		c.sum(c.succeeded(&r))
		run = append(run, r.FinishedAt.Sub(*r.StartedAt))
		clean = append(clean, c.free()) // or the GPU is in quarantine
		d, err := c.host.device(c.ctx, r.GPUs[0])
		c.must(err)
		if c.asBefore(&d); c.Failed() {
			return
		}
	}
}

// spread describes a sample of times.
func spread(list []time.Duration) string {
	if len(list) == 0 {
		return "unknown"
	}
	slices.Sort(list)
	ms := func(d time.Duration) int64 { return d.Milliseconds() }
	return fmt.Sprintf("%d ms (%d to %d)", ms(list[len(list)/2]), ms(list[0]), ms(list[len(list)-1]))
}

// idle waits until nobody speaks to the driver any more.
func idle(c *check) {
	c.free()
	if len(c.host.helpers()) == 0 {
		c.wrong("there is no helper while there is something to ask") // or it would not be found when it is there
	}
	began := time.Now()
	c.must(c.host.until(c.ctx, "the helper is gone", func() (bool, error) { return len(c.host.helpers()) == 0, nil }))
	c.measured("gone %.1f s after the last question", time.Since(began).Seconds())
}

// shares has two tasks on one GPU, of which one takes more than its share.
func shares(c *check) {
	d := c.whole()
	share := min(8*gib, d.Memory/3)
	if share < contextMax {
		c.without("the GPU has %s only", size(d.Memory))
	}
	r := resources{"gpu_memory": share}
	fair := c.begin(r, "hold", fmt.Sprint(share/8), fmt.Sprint(2*c.hold.Seconds()+4))
	v, err := c.host.runs(c.ctx, fair)
	c.must(err)
	began := time.Now()
	greedy := c.begin(r, "hold", fmt.Sprint(share+share/2), "60")
	w, err := c.host.runs(c.ctx, greedy)
	c.must(err)
	if !slices.Equal(v.GPUs, w.GPUs) {
		c.wrong("they run on %v and %v", v.GPUs, w.GPUs)
	}
	over := c.result(greedy)
	if over.Cause != queue.CauseGPUOOM || !strings.Contains(over.Message, "it had asked for") {
		c.wrong("over its share: %s: %s: %s", over.Cause, over.Message, over.StderrTail)
	}
	c.measured("two with %s each on one GPU; the one that took %s ended after %.1f s with cause %s: %q", size(share), size(share+share/2), time.Since(began).Seconds(), over.Cause, over.Message)
	if after, err := c.host.runs(c.ctx, fair); err != nil || after.PID != v.PID {
		c.wrong("the other one did not outlive it: %v", err)
	}
	beside := c.result(fair)
	sum := c.sum(c.succeeded(&beside))
	if beside.Usage.GPUMemoryPeakBytes < share/8 || beside.Usage.GPUMemoryPeakBytes > share {
		c.wrong("the other one's gpu_memory_peak_bytes is %s, for %s", size(beside.Usage.GPUMemoryPeakBytes), size(share/8))
	}
	c.measured("the other one went on: %s, with a memory peak of %s for %s; free again after %s", sum, size(beside.Usage.GPUMemoryPeakBytes), size(share/8), c.free())
}
