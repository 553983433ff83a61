package cgroup

import (
	"maps"
	"testing"
)

func TestParse(t *testing.T) {
	t.Parallel()
	const (
		v2     = "30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n"
		hybrid = "30 24 0:26 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n" +
			"31 24 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n" +
			"32 24 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n" +
			"33 24 0:29 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n" +
			"34 24 0:30 / /sys/fs/cgroup/freezer rw - cgroup cgroup rw,freezer\n"
	)
	own := map[string]string{"cpu": "/a", "cpuacct": "/a", "memory": "/m", "pids": "/", "freezer": "/f"}
	for name, tt := range map[string]struct {
		mounts string
		own    map[string]string
		path2  string
		want   layout
		mode   string
	}{
		"unified":           {v2, nil, "/system.slice/x.service", layout{unified: "/sys/fs/cgroup/system.slice/x.service"}, "unified"},
		"unified, the root": {v2, nil, "/", layout{unified: "/sys/fs/cgroup"}, "unified"},
		"hybrid": {hybrid, own, "/u", layout{unified: "/sys/fs/cgroup/unified/u", "cpu": "/sys/fs/cgroup/cpu,cpuacct/a",
			"memory": "/sys/fs/cgroup/memory/m", "pids": "/sys/fs/cgroup/pids"}, "hybrid"},
		"legacy": {hybrid, own, "", layout{"cpu": "/sys/fs/cgroup/cpu,cpuacct/a", "cpuacct": "/sys/fs/cgroup/cpu,cpuacct/a",
			"memory": "/sys/fs/cgroup/memory/m", "pids": "/sys/fs/cgroup/pids"}, "legacy"},
		"a container's own mount": {"30 24 0:26 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup2 rw\n", nil, "/docker/abc/x",
			layout{unified: "/sys/fs/cgroup/x"}, "unified"},
		"a cgroup namespace":  {"30 24 0:26 /../.. /sys/fs/cgroup ro - cgroup2 cgroup2 rw\n", nil, "/", layout{unified: "/sys/fs/cgroup"}, "unified"},
		"a path with a space": {"30 24 0:26 / /sys/fs/c\\040g rw - cgroup2 cgroup2 rw\n", nil, "/", layout{unified: "/sys/fs/c g"}, "unified"},
	} {
		got, err := parse(tt.mounts, tt.own, tt.path2)
		if err != nil || !maps.Equal(got, tt.want) || got.mode() != tt.mode {
			t.Errorf("%s: %v, %v, %s, want %v, %s", name, got, err, got.mode(), tt.want, tt.mode)
		}
	}
	if l, err := parse("", nil, "/"); err == nil {
		t.Errorf("without any mount: %v", l)
	}
}
