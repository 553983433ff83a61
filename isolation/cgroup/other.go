package cgroup

import (
	"fmt"
	"os"

	"github.com/containerd/cgroups/v3"
)

// Other is the control groups of somebody else's process, to be looked at only.
type Other struct{ dirs layout }

// Of finds the groups that a process is in.
func Of(pid int) Other {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return Other{}
	}
	own, path2, err := cgroups.ParseCgroupFileUnified(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return Other{}
	}
	if _, ok := own["memory"]; ok {
		path2 = "" // on hybrid hosts, engines make groups in version 1 hierarchies only
	}
	dirs, err := parse(string(mounts), own, path2)
	if err != nil {
		return Other{}
	}
	return Other{dirs}
}

// Look reads the account. It reports false where there is none, or none any more.
func (o Other) Look() (Account, bool) {
	g := Group{dirs: o.dirs}
	a := g.count()
	return a, a.CPU > 0
}
