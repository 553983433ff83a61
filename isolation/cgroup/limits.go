package cgroup

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
)

// Limits bound what the members of a group take together. Zero is no limit of that kind.
type Limits struct {
	// MilliCPU is processor time per time, in thousandths of a core.
	MilliCPU int64
	// Cores are numbers of processors; empty for all.
	Cores []int
	// Memory is in bytes, without swap.
	Memory int64
	// PIDs counts processes and threads.
	PIDs int64
	// Closed are devices that the members can neither open nor make a file of.
	Closed []Device
}

// setting is a value for a file of a controller.
type setting struct {
	controller, file, value string
	// optional says that not every host has the file.
	optional bool
}

const (
	// period is the time over which processor time is accounted, in microseconds: the kernel's default.
	period = 100000
	// quotaMin is the least quota that the kernel takes, in microseconds (kernel/sched/core.c, min_cfs_quota_period).
	quotaMin = 1000
)

// unifiedSettings are the limits as files of version 2.
func (l Limits) unifiedSettings() []setting {
	list := []setting{
		{controller: "cpu", file: "cpu.max", value: "max " + strconv.Itoa(period)},
		{controller: "cpu", file: "cpu.weight", value: strconv.FormatInt(l.share(100, 1, 10000), 10)},
		{controller: "io", file: "io.weight", value: "default " + strconv.FormatInt(l.share(100, 1, 10000), 10), optional: true},
		{controller: "memory", file: "memory.max", value: "max"},
		{controller: "memory", file: "memory.swap.max", value: "max", optional: true},
		{controller: "memory", file: "memory.oom.group", value: "1"},
		{controller: "pids", file: "pids.max", value: "max"},
		{controller: "cpuset", file: "cpuset.cpus", value: ranges(l.Cores)},
	}
	if quota := l.quota(); quota > 0 {
		list[0].value = strconv.FormatInt(quota, 10) + " " + strconv.Itoa(period)
	}
	if l.Memory > 0 {
		list[3].value, list[4].value = strconv.FormatInt(l.Memory, 10), "0"
	}
	if l.PIDs > 0 {
		list[6].value = strconv.FormatInt(l.PIDs, 10)
	}
	return list
}

// legacySettings are the limits as files of version 1, for a group that had the settings before. all are the processors and
// nodes of the group above: there, empty does not mean all.
func (l Limits) legacySettings(all func() (cpus, mems string)) []setting {
	quota, memory, pids := "-1", "-1", "max"
	if n := l.quota(); n > 0 {
		quota = strconv.FormatInt(n, 10)
	}
	if l.Memory > 0 {
		memory = strconv.FormatInt(l.Memory, 10)
	}
	if l.PIDs > 0 {
		pids = strconv.FormatInt(l.PIDs, 10)
	}
	list := []setting{
		{controller: "cpu", file: "cpu.cfs_quota_us", value: quota},
		{controller: "cpu", file: "cpu.shares", value: strconv.FormatInt(l.share(1024, 2, 262144), 10)},
		{controller: "blkio", file: "blkio.bfq.weight", value: strconv.FormatInt(l.share(100, 1, 1000), 10), optional: true},
		{controller: "memory", file: "memory.limit_in_bytes", value: memory},
		// Where swap is not accounted, it can at least be made unattractive.
		{controller: "memory", file: "memory.memsw.limit_in_bytes", value: memory, optional: true},
		{controller: "memory", file: "memory.swappiness", value: "0", optional: true},
		{controller: "pids", file: "pids.max", value: pids},
	}
	cpus, mems := all()
	if len(l.Cores) > 0 {
		cpus = ranges(l.Cores)
	}
	return append(list, setting{controller: "cpuset", file: "cpuset.mems", value: mems}, setting{controller: "cpuset", file: "cpuset.cpus", value: cpus})
}

// quota is the processor time in a period, in microseconds; 0 for none. Who has cores of its own, and no more than it was promised,
// needs none: their number is the bound, and a quota would stop it now and then for its threads' accounts are settled late.
func (l Limits) quota() int64 {
	if l.MilliCPU == 0 || int64(len(l.Cores))*1000 == l.MilliCPU {
		return 0
	}
	return max(quotaMin, l.MilliCPU*period/1000)
}

// share is the group's weight against its neighbours': one for a core, in proportion for others.
func (l Limits) share(one, least, most int64) int64 {
	if l.MilliCPU == 0 {
		return one
	}
	return min(most, max(least, one*l.MilliCPU/1000))
}

// ranges writes numbers as the kernel does: "0-2,5".
func ranges(numbers []int) string {
	sorted := slices.Sorted(slices.Values(numbers))
	var parts []string
	for i := 0; i < len(sorted); {
		j := i
		for j+1 < len(sorted) && sorted[j+1] == sorted[j]+1 {
			j++
		}
		part := strconv.Itoa(sorted[i])
		if j > i {
			part += "-" + strconv.Itoa(sorted[j])
		}
		parts = append(parts, part)
		i = j + 1
	}
	return strings.Join(parts, ",")
}

// order puts the settings in the order in which the kernel takes them: memory with swap is never less than memory alone.
func order(list []setting, last map[string]string) []setting {
	memory := slices.IndexFunc(list, func(s setting) bool { return s.file == "memory.limit_in_bytes" })
	if memory >= 0 && raises(last["memory.limit_in_bytes"], list[memory].value) {
		list[memory], list[memory+1] = list[memory+1], list[memory]
	}
	return list
}

// raises reports whether b is a higher limit than a; -1 and an unset one are none at all.
func raises(a, b string) bool {
	number := func(s string) uint64 {
		n, err := strconv.ParseInt(cmp.Or(s, "-1"), 10, 64)
		if err != nil || n < 0 {
			return 1 << 63
		}
		return uint64(n)
	}
	return number(b) > number(a)
}
