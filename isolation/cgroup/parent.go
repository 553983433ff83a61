package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Parent is a group at the top of the hierarchies, below which somebody else, as a container engine, makes one for a program. That one
// goes with the program, and its account with it; the parent keeps the account of all that happened below it.
type Parent struct {
	name string
	dirs layout
	// oom counts the kills at the memory limit of a version 1 group, which counts only its own members. It is nil elsewhere.
	oom *os.File
}

// slack is by how much the limit of a group must exceed its version 1 parent's, in bytes, so that it is the parent's limit that is
// met, and the parent that is told: the kernel asks the group first, for up to eight pages at once where it would kill for them
// (PAGE_ALLOC_COSTLY_ORDER in mm/memcontrol.c).
const slack = 64 << 10

// NewParent makes the group of that name for a program that may have that many bytes of memory; 0 is no limit. It fails where not all
// of a hierarchy can be seen, as in most containers.
func NewParent(name string, memory int64) (*Parent, error) {
	p, err := parentOf(name)
	if err != nil {
		return nil, err
	}
	if err := RemoveParents(name, nil); err != nil { // of an earlier life
		return nil, err
	}
	for _, dir := range p.dirs {
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			return nil, fmt.Errorf("cannot make a control group: %w", err)
		}
	}
	dir := p.dirs["memory"]
	if dir == "" {
		return p, nil
	}
	_ = write(filepath.Join(dir, "memory.use_hierarchy"), "1") // Linux before 5.11; later ones have nothing else
	if memory > 0 {
		if err = write(filepath.Join(dir, "memory.limit_in_bytes"), strconv.FormatInt(memory, 10)); err == nil {
			p.oom, err = listen(dir)
		}
	}
	if err != nil {
		return nil, errors.Join(err, RemoveParents(name, nil))
	}
	return p, nil
}

// FindParent finds the group of that name, made in an earlier life.
func FindParent(name string) (*Parent, error) {
	p, err := parentOf(name)
	if err != nil {
		return nil, err
	}
	for _, dir := range p.dirs {
		if _, err := os.Stat(dir); err != nil {
			return nil, fmt.Errorf("cannot find a control group: %w", err)
		}
	}
	if dir := p.dirs["memory"]; dir != "" {
		p.oom, err = listen(dir)
	}
	return p, err
}

// parentOf says where the group lies.
func parentOf(name string) (*Parent, error) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("cannot read the mounts: %w", err)
	}
	tops, err := parse(string(mounts), map[string]string{"memory": "/", "cpuacct": "/"}, "")
	if err != nil || len(tops) < 2 { // where there are these version 1 controllers, engines use them
		if tops, err = parse(string(mounts), nil, "/"); err != nil {
			return nil, err
		}
	}
	p := &Parent{name: name, dirs: layout{}}
	for key, dir := range tops {
		// One of these files is in a root of version 1 only, the other in all but a root of version 2.
		_, release := os.Stat(filepath.Join(dir, "release_agent"))
		_, kind := os.Stat(filepath.Join(dir, "cgroup.type"))
		if release != nil && (key != unified || kind == nil) {
			return nil, fmt.Errorf("cannot make a control group at the top: %s is not the whole hierarchy", dir)
		}
		p.dirs[key] = filepath.Join(dir, name)
	}
	return p, nil
}

// listen has the kernel count the kills at a version 1 group's limit (cgroup-v1/memory.rst, "OOM Control").
func listen(dir string) (*os.File, error) {
	control, err := open(filepath.Join(dir, "memory.oom_control"), unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer control.Close()
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("cannot make a counter: %w", err)
	}
	counter := os.NewFile(uintptr(fd), "eventfd")
	if err := write(filepath.Join(dir, "cgroup.event_control"), fmt.Sprintf("%d %d", fd, control.Fd())); err != nil {
		counter.Close()
		return nil, err
	}
	return counter, nil
}

// Path is the group's path in each hierarchy.
func (p *Parent) Path() string { return "/" + p.name }

// Limit is the memory limit for the group below, of a program that may have that many bytes.
func (p *Parent) Limit(memory int64) int64 {
	if memory > 0 && p.dirs["memory"] != "" {
		return memory + slack
	}
	return memory
}

// Account returns what was used below the group, by the dead too.
func (p *Parent) Account() Account {
	g := Group{dirs: p.dirs}
	a := g.count()
	if p.oom != nil {
		var b [8]byte // a number in the machine's order: any bit will do
		n, _ := unix.Read(int(p.oom.Fd()), b[:])
		a.OOMKills = 0
		if n == len(b) && b != [8]byte{} {
			a.OOMKills = 1 // at least: kills that come together are told once
		}
	}
	return a
}

// Close ends the counting. The group stays.
func (p *Parent) Close() {
	if p.oom != nil {
		p.oom.Close()
	}
}

// everywhere finds the groups with names of that pattern at the top of all hierarchies.
func everywhere(pattern string) []string {
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	var dirs []string
	for line := range strings.Lines(string(mounts)) {
		before, after, _ := strings.Cut(line, " - ")
		if f := strings.Fields(before); len(f) > 4 && strings.HasPrefix(after, "cgroup") {
			found, _ := filepath.Glob(filepath.Join(unescape(f[4]), pattern))
			dirs = append(dirs, found...)
		}
	}
	slices.Sort(dirs)
	return slices.Compact(dirs)
}

// RemoveParents removes the groups with names of that pattern in all hierarchies, for engines make them in each, but not those that are
// to be kept, by their names.
func RemoveParents(pattern string, keep map[string]bool) error {
	var failures []error
	for _, dir := range everywhere(pattern) {
		if !keep[filepath.Base(dir)] {
			failures = append(failures, removeTree(dir))
		}
	}
	return errors.Join(failures...)
}
