package manager

import (
	"fmt"
	"math"

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
		lease.Memory = int64(float64(l.total.Memory) * min(1, share))
	}
	return lease
}

// never returns in one sentence why the host can never run the task, or "".
func (l *ledger) never(t *queue.Task, lease worker.Lease) string {
	switch {
	case t.Image != "" && l.cannot.Containers != "":
		return fmt.Sprintf("image is %q: this host %s", t.Image, l.cannot.Containers)
	case t.Image == "" && t.Resources.Network != nil && !*t.Resources.Network && l.cannot.NoNetwork != "":
		return fmt.Sprintf("resources.network is false: this host %s", l.cannot.NoNetwork)
	case t.Image == "" && t.Resources.Disk > 0 && l.cannot.Disk != "":
		return fmt.Sprintf("resources.disk is %s: this host %s", queue.FormatSize(t.Resources.Disk), l.cannot.Disk)
	case t.Resources.GPU > 0:
		return fmt.Sprintf("resources.gpu is %d: this host lends no GPU", t.Resources.GPU)
	case lease.MilliCPU > l.total.MilliCPU:
		return fmt.Sprintf("resources.cpu is %s: this host lends %s", cores(lease.MilliCPU), cores(l.total.MilliCPU))
	case lease.Memory > l.total.Memory:
		return fmt.Sprintf("resources.memory is %s: this host lends %s", queue.FormatSize(lease.Memory), queue.FormatSize(l.total.Memory))
	case lease.Disk > l.total.Disk:
		return fmt.Sprintf("resources.disk is %s: this host lends %s", queue.FormatSize(lease.Disk), queue.FormatSize(l.total.Disk))
	}
	return ""
}

// lacks returns in a few words what is not free for the lease now, or "".
func (l *ledger) lacks(lease worker.Lease) string {
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
	}
	return ""
}

// assign chooses the processors of a lease that is then taken.
func (l *ledger) assign(lease *worker.Lease) { lease.Cores = l.cores.pick(lease.MilliCPU) }

// take lends the lease. An adopted worker's lease is taken even where it does not fit (the capacity may have been
// lowered since): it runs already.
func (l *ledger) take(lease worker.Lease) {
	l.lent.MilliCPU += lease.MilliCPU
	l.lent.Memory += lease.Memory
	l.lent.Disk += lease.Disk
	l.cores.mark(lease.Cores)
}

func (l *ledger) giveBack(lease worker.Lease) {
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
