package main

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/mayfly/mayfly/manager"
	"github.com/mayfly/mayfly/queue"
)

// detectCapacity finds what the host can lend, under the limits of this process's own cgroup where it has some, and with
// what the configuration says instead.
func detectCapacity(c *config) (manager.Capacity, error) {
	cpus := c.CPUs
	if cpus == 0 {
		cpus = min(float64(runtime.NumCPU()), cgroupCPUs()) - c.ReservedCPU
	}
	if cpus <= 0 {
		return manager.Capacity{}, fmt.Errorf("cannot use MAYFLY_RESERVED_CPUS=%g: nothing would be left of %d cores", c.ReservedCPU, runtime.NumCPU())
	}
	memory := int64(c.Memory)
	if memory == 0 {
		total, err := totalMemory()
		if err != nil {
			return manager.Capacity{}, fmt.Errorf("cannot find the host's memory, set MAYFLY_MEMORY: %w", err)
		}
		if memory = total - int64(c.ReservedMem); memory <= 0 {
			return manager.Capacity{}, fmt.Errorf("cannot use MAYFLY_RESERVED_MEMORY=%d: nothing would be left of %d bytes", c.ReservedMem, total)
		}
	}
	disk := int64(c.Disk)
	if disk == 0 {
		free, _, err := space(c.StateDir)
		if err != nil {
			return manager.Capacity{}, fmt.Errorf("cannot find the free space of %s, set MAYFLY_DISK: %w", c.StateDir, err)
		}
		disk = max(0, int64(free)-int64(c.ReservedDsk))
	}
	capacity := manager.Capacity{MilliCPU: int64(math.Round(cpus * 1000)), Memory: memory, Disk: disk}
	if math.IsInf(cgroupCPUs(), 1) { // else our time is bounded, but not where we get it
		capacity.Cores = lentCores(capacity.MilliCPU)
	}
	return capacity, nil
}

// memoryLeast is the least memory that can be lent, in bytes.
const memoryLeast = 16 << 20

// overlent says that more memory is lent than the host has: by a slip, or by who knows that workers need less than they ask for.
func overlent(c *config) error {
	total, err := totalMemory()
	if err != nil || int64(c.Memory) <= total {
		return nil
	}
	return fmt.Errorf("MAYFLY_MEMORY=%s is more than the %s that there are: the kernel kills workers and others where all is used", queue.FormatSize(int64(c.Memory)), queue.FormatSize(total))
}

// space measures the file system of a directory: what is free for us, and what there is, in bytes.
func space(dir string) (free, size uint64, err error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return 0, 0, err
	}
	return fs.Bavail * uint64(fs.Bsize), fs.Blocks * uint64(fs.Bsize), nil
}

// lentCores are the processors for so many thousandths of cores: the last ones that this process may run on, as the first ones have
// the host's own work to do. There are none where more is lent than the host has.
func lentCores(milli int64) []manager.Core {
	var allowed unix.CPUSet
	if unix.SchedGetaffinity(0, &allowed) != nil {
		return nil
	}
	nodes := coreNodes()
	var list []manager.Core
	for n := range len(allowed) * 64 {
		if allowed.IsSet(n) {
			list = append(list, manager.Core{Number: n, Node: nodes[n]})
		}
	}
	if need := int((milli + 999) / 1000); need <= len(list) {
		return list[len(list)-need:]
	}
	return nil
}

// coreNodes are the memory nodes of the processors, by number.
func coreNodes() map[int]int {
	nodes := map[int]int{}
	lists, _ := filepath.Glob("/sys/devices/system/node/node[0-9]*/cpulist")
	for _, path := range lists {
		var node int
		if _, err := fmt.Sscanf(filepath.Base(filepath.Dir(path)), "node%d", &node); err != nil {
			continue
		}
		text, _ := os.ReadFile(path)
		for _, part := range strings.Split(strings.TrimSpace(string(text)), ",") {
			var first, last int
			if n, _ := fmt.Sscanf(part, "%d-%d", &first, &last); n == 1 {
				last = first
			} else if n == 0 {
				continue
			}
			for core := first; core <= last; core++ {
				nodes[core] = node
			}
		}
	}
	return nodes
}

// totalMemory is the machine's memory in bytes, or the limit of our cgroup where that is less.
func totalMemory() (int64, error) {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	total := int64(0)
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "MemTotal:" {
			if total, err = strconv.ParseInt(f[1], 10, 64); err != nil {
				return 0, err
			}
			total *= 1024 // the unit is KiB, whatever it says (proc(5))
		}
	}
	if total == 0 {
		return 0, fmt.Errorf("no MemTotal in /proc/meminfo")
	}
	for _, file := range []string{"memory/memory.limit_in_bytes", "memory.max"} {
		if limit, err := strconv.ParseInt(ownCgroupFile(file), 10, 64); err == nil && limit > 0 {
			total = min(total, limit)
		}
	}
	return total, nil
}

// cgroupCPUs is the CPU quota of our cgroup in cores, or infinity.
func cgroupCPUs() float64 {
	quota, period, _ := strings.Cut(ownCgroupFile("cpu.max"), " ")
	if quota == "" {
		quota, period = ownCgroupFile("cpu/cpu.cfs_quota_us"), ownCgroupFile("cpu/cpu.cfs_period_us")
	}
	q, err1 := strconv.ParseFloat(quota, 64)
	p, err2 := strconv.ParseFloat(period, 64)
	if err1 != nil || err2 != nil || q <= 0 || p <= 0 {
		return math.Inf(1)
	}
	return q / p
}

// ownCgroupFile reads a file of the cgroup that this process is in: "file" of the v2 hierarchy, or "controller/file" of a
// v1 one; empty where there is none.
func ownCgroupFile(name string) string {
	controller, file, v1 := strings.Cut(name, "/")
	if !v1 {
		controller, file = "", name
	}
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(text)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) != 3 || f[1] != controller {
			continue
		}
		b, err := os.ReadFile(filepath.Join("/sys/fs/cgroup", controller, f[2], file))
		if err != nil {
			return ""
		}
		return strings.TrimSpace(string(b))
	}
	return ""
}
