package manager

import (
	"github.com/mayfly/mayfly/gpu"
	"github.com/mayfly/mayfly/queue"
	"github.com/mayfly/mayfly/worker"
)

// choice is one of the ways in which a task may run: by its resources, or by one of its alternatives.
type choice struct {
	resources queue.Resources
	lease     worker.Lease // without what is chosen when it is lent: cores and GPUs
	gpus      gpu.Request
}

// choices lists the ways that the host has for a task, the task's favourite first; why says, where there are none, why its resources
// cannot be had.
func (l *ledger) choices(t *queue.Task) (list []choice, why *queue.Refusal) {
	for _, over := range append([]queue.Resources{t.Resources}, t.Alternatives...) {
		r := t.Resources.With(over)
		c := choice{resources: r, lease: l.price(r), gpus: requestOf(r)}
		never := l.never(t, &c)
		if never == nil {
			list = append(list, c)
		} else if why == nil {
			why = never
		}
	}
	if len(list) > 0 {
		return list, nil
	}
	if len(t.Alternatives) > 0 {
		why.Remedy += "; none of the alternatives can be had either"
	}
	return nil, why
}

// within reports whether a host that has room for o has room for c.
func (c *choice) within(o *choice) bool {
	off := func(c *choice) bool { return c.resources.Network != nil && !*c.resources.Network }
	return c.lease.MilliCPU <= o.lease.MilliCPU && c.lease.Memory <= o.lease.Memory && c.lease.Disk <= o.lease.Disk &&
		c.gpus.Count <= o.gpus.Count && c.gpus.Memory <= o.gpus.Memory && (c.gpus.Model == "" || c.gpus.Model == o.gpus.Model) &&
		(!off(c) || off(o))
}

// requestOf is what a task asks of the GPUs. Who names their memory or their model wants one.
func requestOf(r queue.Resources) gpu.Request {
	if r.NoGPU || r.GPU == 0 && r.GPUMemory == 0 && r.GPUModel == "" {
		return gpu.Request{}
	}
	return gpu.Request{Count: max(1, r.GPU), Memory: r.GPUMemory, Model: r.GPUModel}
}
