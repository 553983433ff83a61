package cgroup

import (
	"fmt"
	"strings"
	"testing"
)

func lines(list []setting) string {
	var text strings.Builder
	for _, s := range list {
		fmt.Fprintf(&text, "%s=%s\n", s.file, s.value)
	}
	return text.String()
}

func TestUnifiedSettings(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		limits Limits
		want   string
	}{
		"none": {Limits{}, "cpu.max=max 100000\ncpu.weight=100\nio.weight=default 100\nmemory.max=max\nmemory.swap.max=max\n" +
			"memory.oom.group=1\npids.max=max\ncpuset.cpus=\n"},
		"a fraction": {Limits{MilliCPU: 250, Memory: 1 << 20, PIDs: 5}, "cpu.max=25000 100000\ncpu.weight=25\nio.weight=default 25\nmemory.max=1048576\n" +
			"memory.swap.max=0\nmemory.oom.group=1\npids.max=5\ncpuset.cpus=\n"},
		"whole cores are bounded by their number": {Limits{MilliCPU: 3000, Cores: []int{7, 2, 3}}, "cpu.max=max 100000\ncpu.weight=300\nio.weight=default 300\nmemory.max=max\n" +
			"memory.swap.max=max\nmemory.oom.group=1\npids.max=max\ncpuset.cpus=2-3,7\n"},
		"one and a half cores of two": {Limits{MilliCPU: 1500, Cores: []int{0, 1}}, "cpu.max=150000 100000\ncpu.weight=150\nio.weight=default 150\nmemory.max=max\n" +
			"memory.swap.max=max\nmemory.oom.group=1\npids.max=max\ncpuset.cpus=0-1\n"},
		"no less than the kernel takes, no more": {Limits{MilliCPU: 1}, "cpu.max=1000 100000\ncpu.weight=1\nio.weight=default 1\nmemory.max=max\n" +
			"memory.swap.max=max\nmemory.oom.group=1\npids.max=max\ncpuset.cpus=\n"},
		"many": {Limits{MilliCPU: 200_000}, "cpu.max=20000000 100000\ncpu.weight=10000\nio.weight=default 10000\nmemory.max=max\n" +
			"memory.swap.max=max\nmemory.oom.group=1\npids.max=max\ncpuset.cpus=\n"},
	} {
		if got := lines(tt.limits.unifiedSettings()); got != tt.want {
			t.Errorf("%s:\n%s\nwant\n%s", name, got, tt.want)
		}
	}
}

func TestLegacySettings(t *testing.T) {
	t.Parallel()
	all := func() (string, string) { return "0-7", "0-1" }
	for name, tt := range map[string]struct {
		limits Limits
		last   map[string]string
		want   string
	}{
		"none": {Limits{}, nil, "cpu.cfs_quota_us=-1\ncpu.shares=1024\nblkio.bfq.weight=100\nmemory.limit_in_bytes=-1\n" +
			"memory.memsw.limit_in_bytes=-1\nmemory.swappiness=0\npids.max=max\ncpuset.mems=0-1\ncpuset.cpus=0-7\n"},
		"lowered: memory alone first": {Limits{MilliCPU: 500, Memory: 100, PIDs: 3, Cores: []int{1}}, map[string]string{"memory.limit_in_bytes": "200"},
			"cpu.cfs_quota_us=50000\ncpu.shares=512\nblkio.bfq.weight=50\nmemory.limit_in_bytes=100\n" +
				"memory.memsw.limit_in_bytes=100\nmemory.swappiness=0\npids.max=3\ncpuset.mems=0-1\ncpuset.cpus=1\n"},
		"raised: memory with swap first": {Limits{MilliCPU: 2000, Memory: 300, Cores: []int{1, 2}}, map[string]string{"memory.limit_in_bytes": "200"},
			"cpu.cfs_quota_us=-1\ncpu.shares=2048\nblkio.bfq.weight=200\nmemory.memsw.limit_in_bytes=300\n" +
				"memory.limit_in_bytes=300\nmemory.swappiness=0\npids.max=max\ncpuset.mems=0-1\ncpuset.cpus=1-2\n"},
	} {
		if got := lines(order(tt.limits.legacySettings(all), tt.last)); got != tt.want {
			t.Errorf("%s:\n%s\nwant\n%s", name, got, tt.want)
		}
	}
}

func TestRaises(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		from, to string
		want     bool
	}{{"", "5", false}, {"5", "6", true}, {"6", "5", false}, {"5", "-1", true}, {"-1", "5", false}, {"-1", "-1", false}} {
		if got := raises(tt.from, tt.to); got != tt.want {
			t.Errorf("raises(%q, %q) = %v", tt.from, tt.to, got)
		}
	}
}
