package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/cgroups/v3"
)

// unified is the key of the version 2 hierarchy among the version 1 controllers.
const unified = "unified"

// wanted are the controllers that limits need, and where an old host has them.
var wanted = []string{"cpu", "cpuset", "memory", "pids", "io"}

// legacyWanted are those of version 1 hierarchies.
var legacyWanted = []string{"cpu", "cpuset", "memory", "pids", "blkio", "cpuacct"}

// layout is where this process is in each hierarchy of the host: directories by version 1 controller, and by unified.
type layout map[string]string

// mode names the kind of host.
func (l layout) mode() string {
	switch {
	case l[unified] == "":
		return "legacy"
	case len(l) > 1:
		return "hybrid"
	}
	return "unified"
}

// look finds out where this process is.
func look() (layout, error) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("cannot read the mounts: %w", err)
	}
	own, path2, err := cgroups.ParseCgroupFileUnified("/proc/self/cgroup")
	if err != nil {
		return nil, fmt.Errorf("cannot read our own control groups: %w", err)
	}
	return parse(string(mounts), own, path2)
}

// parse makes the layout from the kernel's words: mounts as in /proc/self/mountinfo, own paths by version 1 controller, and the
// own path in version 2.
func parse(mounts string, own map[string]string, path2 string) (layout, error) {
	l := layout{}
	for line := range strings.Lines(mounts) {
		// See proc(5): the root within the file system, the mount point, then after a separator the type, the source and the options.
		before, after, _ := strings.Cut(line, " - ")
		f, g := strings.Fields(before), strings.Fields(after)
		if len(f) < 6 || len(g) < 3 {
			continue
		}
		root, point := unescape(f[3]), unescape(f[4])
		switch g[0] {
		case "cgroup2":
			if l[unified] == "" && path2 != "" {
				l[unified] = place(root, point, path2)
			}
		case "cgroup":
			for controller := range strings.SplitSeq(g[2], ",") {
				if path, ok := own[controller]; ok && l[controller] == "" && (controller == devices || slices.Contains(legacyWanted, controller)) {
					l[controller] = place(root, point, path)
				}
			}
		}
	}
	if l[unified] != "" {
		delete(l, "cpuacct") // version 2 groups count processor time without any controller
	}
	if len(l) == 0 {
		return nil, errors.New("cannot use control groups: none are mounted")
	}
	return l, nil
}

// place finds a path of a hierarchy under a mount that shows the hierarchy from root on. In a container both may be given as
// seen from outside, and the path may not be below the root: then the mount point is all that we see.
func place(root, point, path string) string {
	if rel, ok := strings.CutPrefix(path, strings.TrimSuffix(root, "/")); ok && (rel == "" || rel[0] == '/') {
		return filepath.Join(point, rel)
	}
	if root == "/" && !strings.HasPrefix(path, "/..") {
		return filepath.Join(point, path)
	}
	return point
}

// unescape undoes the octal escapes of mountinfo.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}
