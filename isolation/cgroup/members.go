package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// members lists the processes of one group.
func members(dir string) []int {
	var all []int
	text, _ := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	for line := range strings.Lines(string(text)) {
		// Zero is one that cannot be seen from here. A thread of ours that is in a version 1 group shows as ourselves.
		if pid, err := strconv.Atoi(strings.TrimSpace(line)); err == nil && pid > 0 && pid != os.Getpid() {
			all = append(all, pid)
		}
	}
	return all
}

// below lists the processes of a group and of those below it.
func below(dir string) []int {
	var all []int
	for _, d := range tree(dir) {
		all = append(all, members(d)...)
	}
	return all
}

// tree lists a group and those below it, the outer ones first.
func tree(dir string) []string {
	dirs := []string{dir}
	for i := 0; i < len(dirs); i++ {
		entries, _ := os.ReadDir(dirs[i]) // what vanishes meanwhile holds nobody
		for _, e := range entries {
			if e.IsDir() {
				dirs = append(dirs, filepath.Join(dirs[i], e.Name()))
			}
		}
	}
	return dirs
}

// kill kills a group's members at once. Where there is no cgroup.kill (version 1, and Linux before 5.14), the group is kept
// from forking and swept, by waitEmpty again and again.
func kill(dir string) {
	if write(filepath.Join(dir, "cgroup.kill"), "1") == nil {
		return
	}
	// Lowered below what there is, the limit ends nothing, but lets nothing begin.
	_ = os.WriteFile(filepath.Join(dir, "pids.max"), []byte("0"), 0)
	for _, pid := range below(dir) {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}

// populated reports whether a group or one below it has a member.
func populated(dir string) bool {
	text, err := read(filepath.Join(dir, "cgroup.events"))
	if errors.Is(err, os.ErrNotExist) { // version 1, or no such group
		return len(below(dir)) > 0
	}
	return err == nil && strings.Contains(text, "populated 1")
}

func waitEmpty(dir string, limit time.Duration) error {
	end := time.Now().Add(limit)
	// The kernel takes the killed ones apart in microseconds to milliseconds; the wait starts that short.
	for pause := 100 * time.Microsecond; populated(dir); pause = min(2*pause, 50*time.Millisecond) {
		kill(dir)
		if time.Now().After(end) {
			return fmt.Errorf("cannot empty the control group %s: processes %v do not die", dir, below(dir))
		}
		<-time.After(pause)
	}
	return nil
}

// end kills all that lives in a tree.
func end(dir string, limit time.Duration) error {
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return waitEmpty(dir, limit)
}

// removeTree removes a group and those below it, deepest first. Their files go with them.
func removeTree(dir string) error {
	err := os.Remove(dir)
	if err == nil || errors.Is(err, os.ErrNotExist) {
		return nil
	}
	for _, d := range slices.Backward(tree(dir)) {
		if err := os.Remove(d); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("cannot remove the control group: %w", err)
		}
	}
	return nil
}
