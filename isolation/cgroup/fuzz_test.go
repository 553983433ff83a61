package cgroup

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// FuzzParse has the mounts of a host be anything: users mount file systems of their own with names that they choose.
func FuzzParse(f *testing.F) {
	f.Add("30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n", "/a", "/system.slice/x.service")
	f.Add("31 24 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n", "/a", "")
	f.Add("30 24 0:26 /../.. /sys/fs/c\\040g ro - cgroup2 x\\040-\\040cgroup2 rw\n - - \n", "", "/")
	f.Fuzz(func(t *testing.T, mounts, own, path2 string) {
		l, err := parse(mounts, map[string]string{"cpu": own, "memory": own, "pids": own, devices: own}, path2)
		if err != nil {
			return
		}
		for key, dir := range l {
			if strings.HasPrefix(dir, "/") && strings.HasPrefix(own, "/") && strings.HasPrefix(path2, "/") && filepath.Clean(dir) != dir && !strings.Contains(mounts, dir) {
				t.Errorf("%s lies at %q", key, dir)
			}
		}
		if mode := l.mode(); mode != "legacy" && l[unified] == "" {
			t.Errorf("%v is %s", l, mode)
		}
	})
}

// FuzzCounters has a counter's file be anything.
func FuzzCounters(f *testing.F) {
	f.Add("low 0\nhigh 0\nmax 5\noom 1\noom_kill 1\noom_group_kill 1\n")
	f.Add("oom_kill 99999999999999999999\noom_kill")
	f.Add("oom_kill \x00\noom_kill -7")
	f.Add("18446744073709551615\n")
	f.Fuzz(func(t *testing.T, text string) {
		dir := t.TempDir()
		if n := field(text, "oom_kill"); n != 0 && !strings.Contains(text, "oom_kill ") {
			t.Errorf("%q counts %d", text, n)
		}
		_ = number(text)
		for _, pid := range members(dir) {
			t.Errorf("a member %d of no group", pid)
		}
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, pid := range members(dir) { // they are sent signals: not to a group, nor to all
			if pid <= 0 || pid == os.Getpid() {
				t.Errorf("%q has the member %d", text, pid)
			}
		}
	})
}
