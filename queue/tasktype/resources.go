package tasktype

import (
	"strconv"

	"github.com/mayfly/mayfly/queue"
)

// quantity is one field of a task's resources beside its limit, both as a sentence shows them.
type quantity struct {
	name         string
	given        bool
	value, limit string
	// over says that there is a limit and the value exceeds it.
	over bool
}

// quantities lists every field of resources.
func quantities(r, limit queue.Resources) []quantity {
	network := ""
	if r.Network != nil {
		network = strconv.FormatBool(*r.Network)
	}
	return []quantity{
		measure("cpu", r.CPU, limit.CPU, func(n float64) string { return strconv.FormatFloat(n, 'g', -1, 64) }),
		measure("memory", r.Memory, limit.Memory, queue.FormatSize),
		measure("gpu", r.GPU, limit.GPU, strconv.Itoa),
		measure("gpu_memory", r.GPUMemory, limit.GPUMemory, queue.FormatSize),
		{name: "gpu_model", given: r.GPUModel != "", value: r.GPUModel},
		measure("disk", r.Disk, limit.Disk, queue.FormatSize),
		{name: "network", given: r.Network != nil, value: network},
		measure("pids", r.PIDs, limit.PIDs, strconv.Itoa),
	}
}

// measure compares a number with its limit; 0 is neither given nor a limit.
func measure[N int | int64 | float64](name string, n, limit N, format func(N) string) quantity {
	return quantity{name: name, given: n != 0, value: format(n), limit: format(limit), over: limit != 0 && n > limit}
}
