package manager

import (
	"cmp"
	"fmt"
	"math"
	"strconv"

	"github.com/mayfly/mayfly/gpu"
	"github.com/mayfly/mayfly/queue"
	"github.com/mayfly/mayfly/worker"
)

// Capacity is what a host lends to workers.
type Capacity struct {
	// MilliCPU is in thousandths of a core; Memory and Disk are bytes.
	MilliCPU int64
	Memory   int64
	Disk     int64
	// Cores are the processors that are lent one by one, at least as many as MilliCPU stands for; empty where workers run
	// wherever the kernel puts them.
	Cores []Core
}

// Cannot names what a host lacks, in words that follow "this host "; what is empty can be had.
type Cannot struct {
	// Containers, NoNetwork, Mounts and Disk say why no containers are run, no worker's network is off, no worker has a file system of
	// its own, no disk is bounded.
	Containers, NoNetwork, Mounts, Disk string
}

// ledger is the one account of what the host has lent. Its caller holds the manager's lock.
type ledger struct {
	total  Capacity
	lent   Capacity
	cores  *corePool
	gpus   *gpu.Host // nil where there are none
	cannot Cannot
	// defaultMilliCPU and defaultPIDs are lent to a task that does not say.
	defaultMilliCPU, defaultPIDs int64
}

// price returns what a task will hold while it runs. A task that names no memory gets its cores' share of the host's.
func (l *ledger) price(r queue.Resources) worker.Lease {
	lease := worker.Lease{MilliCPU: l.defaultMilliCPU, Memory: r.Memory, Disk: r.Disk, PIDs: int64(r.PIDs)}
	if lease.PIDs == 0 {
		lease.PIDs = l.defaultPIDs
	}
	if r.CPU > 0 {
		lease.MilliCPU = max(1, int64(math.Ceil(r.CPU*1000-1e-6)))
	}
	if lease.Memory == 0 {
		share := float64(lease.MilliCPU) / float64(l.total.MilliCPU)
		lease.Memory = max(1, int64(float64(l.total.Memory)*min(1, share))) // 0 would be no limit
	}
	return lease
}

// never returns why the host can never run the task, or nil.
func (l *ledger) never(t *queue.Task, c *choice) *queue.Refusal {
	r, lease := &c.resources, &c.lease
	refuse := func(field, value, format string, args ...any) *queue.Refusal {
		return &queue.Refusal{Field: field, Value: value, Remedy: "this host " + fmt.Sprintf(format, args...)}
	}
	switch {
	case t.Image != "" && l.cannot.Containers != "":
		return refuse("image", strconv.Quote(t.Image), "%s", l.cannot.Containers)
	case t.Image == "" && r.Network != nil && !*r.Network && l.cannot.NoNetwork != "":
		return refuse("resources.network", "false", "%s", l.cannot.NoNetwork)
	case t.Image == "" && r.Disk > 0 && l.cannot.Disk != "":
		return refuse("resources.disk", queue.FormatSize(r.Disk), "%s", l.cannot.Disk)
	case c.gpus.Count > 0 && l.gpus == nil:
		field, value := gpuField(r)
		return refuse(field, value, "lends no GPU")
	case lease.MilliCPU > l.total.MilliCPU:
		return refuse("resources.cpu", cores(lease.MilliCPU), "lends %s", cores(l.total.MilliCPU))
	case lease.Memory > l.total.Memory:
		return refuse("resources.memory", queue.FormatSize(lease.Memory), "lends %s", queue.FormatSize(l.total.Memory))
	case lease.Disk > l.total.Disk:
		return refuse("resources.disk", queue.FormatSize(lease.Disk), "lends %s", queue.FormatSize(l.total.Disk))
	case c.gpus.Count > 0:
		if why := l.gpus.Never(c.gpus); why != "" {
			field, value := gpuField(r)
			return refuse(field, value, "%s", why)
		}
	}
	return nil
}

// gpuField names the field that asks for GPUs, and its value with all else that is said of them.
func gpuField(r *queue.Resources) (field, value string) {
	for _, f := range []struct {
		said        bool
		name, value string
	}{{r.GPU > 0, "resources.gpu", strconv.Itoa(r.GPU)}, {r.GPUModel != "", "resources.gpu_model", strconv.Quote(r.GPUModel)},
		{r.GPUMemory > 0, "resources.gpu_memory", queue.FormatSize(r.GPUMemory)}} {
		switch {
		case !f.said:
		case field == "":
			field, value = f.name, f.value
		default:
			value += " and " + f.name + " is " + f.value
		}
	}
	return field, value
}

// lacks returns in a few words what is not free for the lease now, or "".
func (l *ledger) lacks(c *choice) string {
	lease := &c.lease
	switch {
	case lease.MilliCPU > l.total.MilliCPU-l.lent.MilliCPU:
		return fmt.Sprintf("waits for %s: %g of %g CPU cores are free", cores(lease.MilliCPU),
			float64(max(0, l.total.MilliCPU-l.lent.MilliCPU))/1000, float64(l.total.MilliCPU)/1000)
	case lease.Memory > l.total.Memory-l.lent.Memory:
		return fmt.Sprintf("waits for %s of memory: %s of %s are free", queue.FormatSize(lease.Memory),
			queue.FormatSize(max(0, l.total.Memory-l.lent.Memory)), queue.FormatSize(l.total.Memory))
	case lease.Disk > l.total.Disk-l.lent.Disk:
		return fmt.Sprintf("waits for %s of disk: %s of %s are free", queue.FormatSize(lease.Disk),
			queue.FormatSize(max(0, l.total.Disk-l.lent.Disk)), queue.FormatSize(l.total.Disk))
	case c.gpus.Count > 0:
		return l.gpus.Lacks(c.gpus)
	}
	return ""
}

// lend lends to an attempt what the first of the choices that can be had asks for, with its cores beside its GPUs. Where none can, it
// says why the first cannot. What a reservation keeps is not lent, unless there is none or it does not mind (nil).
func (l *ledger) lend(attemptID string, choices []choice, kept *reservation) (taken *choice, lease worker.Lease, why string) {
	for i := range choices {
		c := &choices[i]
		lacks := l.lacks(c)
		var gpus []gpu.Grant
		switch {
		case lacks != "":
		case kept != nil && !kept.spare.holds(&c.lease):
			lacks = "waits behind " + kept.entry.attempt.Task.ID + ", for which room is kept"
		case c.gpus.Count > 0 && kept == nil:
			if gpus = l.gpus.Lend(attemptID, c.gpus, nil); gpus == nil {
				lacks = cmp.Or(l.gpus.Lacks(c.gpus), "waits for GPUs") // taken out of use since
			}
		case c.gpus.Count > 0:
			if gpus = l.gpus.Lend(attemptID, c.gpus, kept.gpus); gpus == nil {
				lacks = "waits behind " + kept.entry.attempt.Task.ID + ", for which GPUs are kept"
			}
		}
		if lacks != "" {
			why = cmp.Or(why, lacks)
			continue
		}
		lease = c.lease
		lease.GPUs = gpus
		var near []int
		for _, g := range gpus {
			near = append(near, g.Node)
		}
		lease.Cores = l.cores.pick(lease.MilliCPU, near...)
		l.takeHost(lease)
		if kept != nil {
			kept.spare = kept.spare.less(&lease)
		}
		return c, lease, ""
	}
	return nil, lease, why
}

// take takes the lease of an adopted worker, even where it does not fit (the capacity may have been lowered since): it runs already.
func (l *ledger) take(attemptID string, lease worker.Lease) {
	l.takeHost(lease)
	if l.gpus != nil && len(lease.GPUs) > 0 {
		l.gpus.Take(attemptID, lease.GPUs)
	}
}

// takeHost takes all but GPUs.
func (l *ledger) takeHost(lease worker.Lease) {
	l.lent.MilliCPU += lease.MilliCPU
	l.lent.Memory += lease.Memory
	l.lent.Disk += lease.Disk
	l.cores.mark(lease.Cores)
}

func (l *ledger) giveBack(attemptID string, lease worker.Lease) {
	if l.gpus != nil && len(lease.GPUs) > 0 {
		l.gpus.Return(attemptID)
	}
	l.lent.MilliCPU -= lease.MilliCPU
	l.lent.Memory -= lease.Memory
	l.lent.Disk -= lease.Disk
	l.cores.giveBack(lease.Cores)
}

func cores(milli int64) string {
	if milli == 1000 {
		return "1 core"
	}
	return fmt.Sprintf("%g cores", float64(milli)/1000)
}
