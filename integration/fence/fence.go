// Package fence makes control groups in which hostile tests run: what gets out of the limits that are tested must not get at the
// machine. A fork bomb that did so has taken one.
package fence

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/containerd/cgroups/v3"
	"golang.org/x/sys/unix"

	"github.com/mayfly/mayfly/integration/need"
)

// What a fence holds back, in bytes and in processes and threads.
const (
	Memory = 1 << 30
	PIDs   = 1500
)

// New makes a fence and returns the beginning of a command line that goes into it and executes the rest. At the test's end the fence
// must be empty, or the test fails.
func New(tb testing.TB) []string {
	tb.Helper()
	name := fmt.Sprintf("mayfly-fence-%d-%d", os.Getpid(), time.Now().UnixNano())
	own, path2, err := cgroups.ParseCgroupFileUnified("/proc/self/cgroup")
	if err != nil {
		tb.Fatal(err)
	}
	var joins []string
	put := func(dir string, values map[string]string) {
		if err := os.Mkdir(dir, 0o755); err != nil {
			need.Missing(tb, "no fence can be made: %v", err)
		}
		tb.Cleanup(func() { remove(tb, dir) })
		for file, value := range values {
			if err := os.WriteFile(filepath.Join(dir, file), []byte(value), 0); err != nil {
				tb.Fatalf("no fence can be made: %v", err)
			}
		}
		joins = append(joins, filepath.Join(dir, "cgroup.procs"))
	}
	memory, pids := strconv.Itoa(Memory), strconv.Itoa(PIDs)
	if cgroups.Mode() == cgroups.Unified {
		const top = "/sys/fs/cgroup"
		if err := os.WriteFile(top+"/cgroup.subtree_control", []byte("+memory +pids +cpu +cpuset +io"), 0); err != nil {
			need.Missing(tb, "no fence can be made: %v", err)
		}
		put(filepath.Join(top, name), map[string]string{"memory.max": memory, "memory.swap.max": "0", "pids.max": pids,
			"cgroup.subtree_control": "+memory +pids +cpu +cpuset +io"})
		// Each that comes in gets a group of its own: one that divides its group among others lets nobody else into it.
		return []string{"/bin/sh", "-c", `d="$0/$$"; mkdir $d && echo $$ >$d/cgroup.procs && exec "$@"`, filepath.Join(top, name)}
	}
	put(filepath.Join("/sys/fs/cgroup/memory", own["memory"], name), map[string]string{"memory.limit_in_bytes": memory})
	put(filepath.Join("/sys/fs/cgroup/pids", own["pids"], name), map[string]string{"pids.max": pids})
	if cgroups.Mode() == cgroups.Hybrid {
		put(filepath.Join("/sys/fs/cgroup/unified", path2, name), nil)
	}
	return []string{"/bin/sh", "-c", "for f in " + strings.Join(joins, " ") + `; do echo $$ >$f || exit 1; done; exec "$@"`, "fence"}
}

// inside lists the groups in a fence, the innermost first.
func inside(dir string) (groups []string) {
	for depth := 4; depth > 0; depth-- {
		files, _ := filepath.Glob(dir + strings.Repeat("/*", depth) + "/cgroup.procs")
		for _, file := range files {
			groups = append(groups, filepath.Dir(file))
		}
	}
	return groups
}

// remove waits until a fence is empty, kills what is left after a while, and removes it.
func remove(tb testing.TB, dir string) {
	var err error
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		for _, group := range inside(dir) {
			os.Remove(group)
		}
		if err = os.Remove(dir); err == nil || errors.Is(err, os.ErrNotExist) {
			return
		}
	}
	var left []string
	for _, group := range append(inside(dir), dir) {
		text, _ := os.ReadFile(filepath.Join(group, "cgroup.procs"))
		left = append(left, strings.Fields(string(text))...)
	}
	for _, pid := range left {
		if n, err := strconv.Atoi(pid); err == nil {
			_ = unix.Kill(n, unix.SIGKILL)
		}
	}
	tb.Errorf("the fence is not empty: %v, processes %s", err, left)
}
