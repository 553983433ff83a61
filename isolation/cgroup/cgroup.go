// Package cgroup holds all processes of a program together, so that they can be signalled, killed and counted as one
// whatever they do to hide: fork twice, begin a session of their own, or lose their parent.
//
// # Theory of operation
//
// A program is born inside a control group of version 2 (clone3 with CLONE_INTO_CGROUP), so there is no moment at which it
// is outside. cgroup.kill then ends everything in the group at once, and "populated 0" in cgroup.events says when nothing
// of it is left. Hosts with version 1 hierarchies mostly have version 2 mounted beside them ("hybrid"), where all of this
// works too. No controller is enabled here: without controllers the rule against processes in inner nodes does not apply,
// so the groups may lie below the group that we ourselves are in.
package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Root is the directory below which all groups lie. It exists only while there are groups.
type Root struct {
	dir string
	mu  sync.Mutex // makes and removes the directory
	n   int        // groups
}

// Find finds a place for groups: the directory called name below the cgroup of this process. The error says why there is
// none: no version 2 hierarchy, or no right to write to it.
func Find(name string) (*Root, error) {
	mount, err := mountPoint()
	if err != nil {
		return nil, err
	}
	own, err := ownPath()
	if err != nil {
		return nil, err
	}
	r := At(filepath.Join(mount, own, name))
	// Only trying tells: the mount may be read-only, or the directory not delegated to us.
	if err := os.Mkdir(r.dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("cannot make control groups: %w", err)
	}
	defer os.Remove(r.dir)
	if unix.Access(filepath.Join(r.dir, "cgroup.procs"), unix.W_OK) != nil {
		return nil, fmt.Errorf("cannot use control groups: %s is not ours to write", r.dir)
	}
	return r, nil
}

// At returns the root at a path that Dir once returned.
func At(dir string) *Root { return &Root{dir: dir} }

// Dir is the root's path.
func (r *Root) Dir() string { return r.dir }

// mountPoint finds the version 2 hierarchy.
func mountPoint() (string, error) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", fmt.Errorf("cannot read the mounts: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		// See proc(5): the file system's type follows the separator.
		before, after, _ := strings.Cut(line, " - ")
		if f := strings.Fields(before); strings.HasPrefix(after, "cgroup2 ") && len(f) > 4 {
			return f[4], nil
		}
	}
	return "", errors.New("cannot use control groups: no version 2 hierarchy is mounted")
}

// ownPath is our own group in the version 2 hierarchy.
func ownPath() (string, error) {
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", fmt.Errorf("cannot read our own control group: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			return path, nil
		}
	}
	return "", errors.New("cannot use control groups: this process is in no version 2 group")
}

// Group is the control group of one program.
type Group struct {
	root *Root
	dir  string
}

// Create makes a group. Its name must not hold a slash.
func (r *Root) Create(name string) (*Group, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	g := &Group{root: r, dir: filepath.Join(r.dir, name)}
	err := os.Mkdir(g.dir, 0o755)
	if errors.Is(err, os.ErrNotExist) {
		if err = os.Mkdir(r.dir, 0o755); err == nil || errors.Is(err, os.ErrExist) {
			err = os.Mkdir(g.dir, 0o755)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("cannot make a control group: %w", err)
	}
	r.n++
	return g, nil
}

// Open opens the group's directory for SysProcAttr.CgroupFD. The caller closes it.
func (g *Group) Open() (*os.File, error) { return os.Open(g.dir) }

// Signal sends a signal to every process of the group, those in groups below it included.
func (g *Group) Signal(s syscall.Signal) {
	for _, pid := range g.procs() {
		_ = syscall.Kill(pid, s) // gone already: then there is nothing to tell it
	}
}

// procs lists the processes of the group and of those below it.
func (g *Group) procs() []int {
	var all []int
	_ = filepath.WalkDir(g.dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.Name() != "cgroup.procs" {
			return nil // what vanishes meanwhile holds no process
		}
		text, _ := os.ReadFile(path)
		for line := range strings.Lines(string(text)) {
			if pid, err := strconv.Atoi(strings.TrimSpace(line)); err == nil && pid > 0 {
				all = append(all, pid)
			}
		}
		return nil
	})
	return all
}

// Kill kills every process of the group at once; nothing can fork its way out of it. Kernels before 5.14 lack cgroup.kill:
// there the group is swept until it is empty, by WaitEmpty.
func (g *Group) Kill() {
	if err := os.WriteFile(filepath.Join(g.dir, "cgroup.kill"), []byte("1"), 0); err != nil {
		g.Signal(syscall.SIGKILL)
	}
}

// Populated reports whether the group or one below it has a process.
func (g *Group) Populated() bool {
	text, err := os.ReadFile(filepath.Join(g.dir, "cgroup.events"))
	return err == nil && strings.Contains(string(text), "populated 1")
}

// WaitEmpty kills what is left and waits until nothing is. It gives up after the limit: a process that is stuck in the
// kernel cannot be killed.
func (g *Group) WaitEmpty(limit time.Duration) error {
	end := time.Now().Add(limit)
	// The kernel takes the killed ones apart in microseconds to milliseconds; the wait starts that short.
	for pause := 100 * time.Microsecond; g.Populated(); pause = min(2*pause, 50*time.Millisecond) {
		g.Kill()
		if time.Now().After(end) {
			return fmt.Errorf("cannot empty the control group %s: processes %v do not die", g.dir, g.procs())
		}
		<-time.After(pause)
	}
	return nil
}

// CPU is the processor time that all processes of the group have used, the dead ones included.
func (g *Group) CPU() (time.Duration, bool) {
	text, err := os.ReadFile(filepath.Join(g.dir, "cpu.stat"))
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), "usage_usec "); ok {
			n, err := strconv.ParseInt(value, 10, 64)
			return time.Duration(n) * time.Microsecond, err == nil
		}
	}
	return 0, false
}

// Remove removes the empty group and those below it, and the root with the last group.
func (g *Group) Remove() error {
	err := removeTree(g.dir)
	g.root.mu.Lock()
	defer g.root.mu.Unlock()
	if g.root.n--; g.root.n == 0 {
		os.Remove(g.root.dir)
	}
	return err
}

// removeTree removes a directory of the hierarchy and those below it, deepest first. Their files go with them.
func removeTree(dir string) error {
	err := os.Remove(dir)
	if err == nil || errors.Is(err, os.ErrNotExist) {
		return nil
	}
	var dirs []string
	_ = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, path)
		}
		return nil
	})
	for _, d := range slices.Backward(dirs) {
		if err := os.Remove(d); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("cannot remove the control group: %w", err)
		}
	}
	return nil
}

// Sweep kills and removes all groups below the root, and the root: what an earlier life left.
func (r *Root) Sweep(limit time.Duration) error {
	entries, err := os.ReadDir(r.dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot look for control groups: %w", err)
	}
	var failures []error
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		g := &Group{root: r, dir: filepath.Join(r.dir, e.Name())}
		g.Kill()
		if err := g.WaitEmpty(limit); err != nil {
			failures = append(failures, err)
			continue
		}
		failures = append(failures, removeTree(g.dir))
	}
	os.Remove(r.dir)
	return errors.Join(failures...)
}
