package cgroup

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// leftover is how much memory a group may still be charged with, in bytes, to be used again: pages of files that its last
// program read, which would count as the next one's.
const leftover = 4 << 20

// Group is the set of control groups of one program, one in each hierarchy that it needs.
type Group struct {
	root *Root
	name string
	dirs layout
	// last are the values that the files have.
	last map[string]string
	// birth is the version 2 directory, or nil; join are the files of version 1 groups by directory.
	birth *os.File
	join  map[string]*os.File
	// files are those that are read for each program, kept open while the group is one that is used again.
	files []file
	// peak is memory.peak of version 2, which can be set back for one who keeps it open (Linux 6.12); nil where it cannot.
	peak *os.File
	// once says that the group is not used again.
	once bool
	// cores are the processors to which its programs are bound; empty for none.
	cores []int
	// closed lists the devices that are closed to the group.
	closed string
	// before is the count at the group's last lending, counted the latest one.
	before, counted Account
	used            bool
	// killed says that the group's members were killed as a whole. Then it is not used again: Linux 6.14 and later, and the
	// stable versions that got the same change ("cgroup: fix race between fork and cgroup.kill"), compare a count of kills of
	// the parent's group with one of the group that a child is born into, and kill every child of one that ever was killed.
	// Without cgroup.kill, its limit of processes is spoilt.
	killed bool
}

// Account is what the members of a group have used since it was lent, the dead ones included.
type Account struct {
	CPU time.Duration
	// MemoryPeak is in bytes; 0 where it is not known.
	MemoryPeak int64
	// OOMKills counts the members that the kernel killed for want of memory.
	OOMKills int64
	// Starved says that they were killed though the group was not at its limit: there was no memory in a group above, or on the host.
	Starved bool
	// met counts how often the group was at its limit with nothing left to take back; 0 in version 1, which does not count that.
	met int64
}

// Lend returns a group within limits, with nobody in it.
func (r *Root) Lend(l Limits) (*Group, error) {
	g, name, err := r.take(l)
	if err != nil {
		return nil, err
	}
	if g == nil {
		if g, err = r.create(name); err != nil {
			return nil, err
		}
	}
	if err = g.set(l); err == nil {
		err = g.fence(l.Closed)
	}
	if err != nil {
		_ = g.remove()
		return nil, err
	}
	if g.used {
		g.reset() // and its counts stand where its last account found them, for nobody has been in it since
	} else {
		g.counted = g.count()
	}
	g.used = true
	g.before = g.counted
	return g, nil
}

// take takes an unused group, one that has these cores and closes these devices if there is such a one: to change a group's is dear. Where none is unused, it
// names a new one.
func (r *Root) take(l Limits) (g *Group, name string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.make(); err != nil {
		return nil, "", err
	}
	i := len(r.unused) - 1
	if i < 0 {
		r.next++
		return nil, "w" + strconv.Itoa(r.next), nil
	}
	closed := listing(l.Closed)
	for j, g := range slices.Backward(r.unused) {
		if slices.Equal(g.cores, l.Cores) && g.closed == closed {
			i = j
			break
		}
	}
	g = r.unused[i]
	r.unused = slices.Delete(r.unused, i, i+1)
	return g, "", nil
}

// create makes a new group.
func (r *Root) create(name string) (*Group, error) {
	g := &Group{root: r, name: name, dirs: layout{}, last: map[string]string{}, join: map[string]*os.File{}}
	for key, base := range r.base {
		dir := filepath.Join(base, g.name)
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			_ = g.remove()
			return nil, fmt.Errorf("cannot make a control group: %w", err)
		}
		g.dirs[key] = dir
	}
	for key, dir := range g.dirs {
		var err error
		if key == unified {
			g.birth, err = open(dir, unix.O_RDONLY|unix.O_DIRECTORY)
		} else if g.join[dir] == nil {
			// For a child that has one thread, this file does the same as cgroup.procs, but without the lock that stops all forks and
			// exits of the host for a while (cgroup_procs_write_start in kernel/cgroup/cgroup.c).
			g.join[dir], err = open(filepath.Join(dir, "tasks"), unix.O_WRONLY)
		}
		if err != nil {
			_ = g.remove()
			return nil, fmt.Errorf("cannot open a control group: %w", err)
		}
	}
	return g, nil
}

// set writes the limits, as far as they are not what they were.
func (g *Group) set(l Limits) error {
	if !slices.Contains(g.root.controllers, "cpuset") {
		l.Cores = nil
	}
	g.cores = l.Cores
	var list []setting
	if g.root.base.mode() == "unified" {
		list = l.unifiedSettings()
	} else {
		list = order(l.legacySettings(g.root.processors), g.last)
	}
	for _, s := range list {
		if !slices.Contains(g.root.controllers, s.controller) {
			continue
		}
		key := s.controller
		if g.dirs[unified] != "" && g.root.base.mode() == "unified" {
			key = unified
		}
		if last, ok := g.last[s.file]; ok && last == s.value {
			continue
		}
		if s.value == "" && s.file == "cpuset.cpus" && g.last[s.file] == "" {
			continue
		}
		err := write(filepath.Join(g.dirs[key], s.file), s.value)
		if err != nil && !s.optional {
			return fmt.Errorf("cannot set %s to %s: %w", s.file, s.value, err)
		}
		g.last[s.file] = s.value // also where the host has no such file: it need not be tried again
	}
	return nil
}

// processors are the processors and memory nodes that groups of version 1 may have.
func (r *Root) processors() (cpus, mems string) { return r.cpus, r.mems }

// Birth is the directory for a clone into the group, or nil; Join are the files to which a child writes that it joins.
func (g *Group) Birth() *os.File { return g.birth }

// Join are the files to which a child writes "0" to join, before it executes its program.
func (g *Group) Join() []*os.File {
	var files []*os.File
	for dir, f := range g.join {
		if len(g.cores) == 0 && dir == g.dirs["cpuset"] && dir != g.dirs[devices] {
			continue // it has no processors of its own
		}
		files = append(files, f)
	}
	return files
}

// Once closes the files that are kept for the group's next program, and keeps it from being used again.
func (g *Group) Once() {
	g.once = true
	g.close()
}

// Signal sends a signal to every member, those of groups below it included.
func (g *Group) Signal(s syscall.Signal) {
	for _, pid := range below(g.holder()) {
		_ = syscall.Kill(pid, s) // gone already: then there is nothing to tell it
	}
}

// holder is the directory by which the members are found.
func (g *Group) holder() string {
	if dir := g.dirs[unified]; dir != "" {
		return dir
	}
	return g.dirs["pids"]
}

// Kill kills every member at once; nothing can fork its way out of it.
func (g *Group) Kill() {
	g.killed = true
	kill(g.holder())
}

// Populated reports whether the group has a member.
func (g *Group) Populated() bool {
	if g.dirs[unified] == "" {
		return populated(g.holder())
	}
	return strings.Contains(g.read(unified, "cgroup.events"), "populated 1")
}

// WaitEmpty kills what is left and waits until nothing is. It gives up after the limit: a process that is stuck in the
// kernel cannot be killed.
func (g *Group) WaitEmpty(limit time.Duration) error {
	if !g.Populated() {
		return nil
	}
	g.killed = true
	return waitEmpty(g.holder(), limit)
}

// Account returns what the members have used.
func (g *Group) Account() Account {
	a := g.count()
	g.counted = a
	a.CPU -= g.before.CPU
	a.OOMKills -= g.before.OOMKills
	a.met -= g.before.met
	a.Starved = a.OOMKills > 0 && !g.full(&a)
	return a
}

// full reports whether the group was at its limit. In version 1 its peak shows it: the kernel kills for no more than slack.
func (g *Group) full(a *Account) bool {
	if g.dirs["memory"] == "" {
		return a.met > 0
	}
	limit, _ := strconv.ParseInt(g.last["memory.limit_in_bytes"], 10, 64)
	return limit > 0 && a.MemoryPeak+slack >= limit
}

// count reads the group's counters.
func (g *Group) count() (a Account) {
	memory := g.dirs["memory"] != ""
	if g.dirs[unified] != "" {
		a.CPU = time.Duration(field(g.read(unified, "cpu.stat"), "usage_usec")) * time.Microsecond
		if !memory {
			events := g.read(unified, "memory.events")
			a.OOMKills, a.met = field(events, "oom_kill"), field(events, "oom")
			if g.peak != nil {
				a.MemoryPeak = number(contents(int(g.peak.Fd())))
			} else {
				a.MemoryPeak = number(g.read(unified, "memory.peak"))
			}
		}
	} else if g.dirs["cpuacct"] != "" {
		a.CPU = time.Duration(number(g.read("cpuacct", "cpuacct.usage")))
	}
	if memory {
		a.OOMKills = field(g.read("memory", "memory.oom_control"), "oom_kill")
		a.MemoryPeak = number(g.read("memory", legacyPeak))
	}
	return a
}

// reset sets back what can be, of a group that is used again.
func (g *Group) reset() {
	if g.dirs["memory"] != "" {
		_, _ = unix.Pwrite(g.file("memory", legacyPeak), []byte("0"), 0)
	} else if g.peak != nil {
		_, _ = g.peak.WriteAt([]byte("reset"), 0)
	}
}

// resettable reports whether the group can be used again: clean, and with a peak that can be set back.
func (g *Group) resettable() bool {
	if g.dirs["memory"] != "" {
		return g.counted.MemoryPeak < leftover || number(g.read("memory", "memory.usage_in_bytes")) < leftover
	}
	dir := g.dirs[unified]
	if dir == "" || !slices.Contains(g.root.controllers, "memory") {
		return true
	}
	if number(g.read(unified, "memory.current")) >= leftover {
		return false
	}
	if g.peak == nil {
		f, err := open(filepath.Join(dir, "memory.peak"), unix.O_RDWR)
		if err != nil {
			return false
		}
		if _, err := f.WriteAt([]byte("reset"), 0); err != nil {
			f.Close()
			return false
		}
		g.peak = f
	}
	return true
}

// Return gives an empty group back. It is used again, or removed.
func (g *Group) Return() error {
	if !g.killed && !g.once && g.resettable() && g.root.keep(g) {
		return nil
	}
	return g.remove()
}

// keep keeps a group for the next program, unless there are enough.
func (r *Root) keep(g *Group) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.unused) >= spare {
		return false
	}
	r.unused = append(r.unused, g)
	return true
}

// close closes what is held open for the next program.
func (g *Group) close() {
	for _, f := range g.files {
		unix.Close(f.fd)
	}
	g.files = nil
	for _, f := range append(slices.Collect(maps.Values(g.join)), g.birth) {
		if f != nil {
			f.Close()
		}
	}
	g.birth, g.join = nil, nil
}

// remove removes the group.
func (g *Group) remove() error {
	g.close()
	if g.peak != nil {
		g.peak.Close()
	}
	var failures []error
	for _, dir := range g.dirs {
		failures = append(failures, removeTree(dir))
	}
	return errors.Join(failures...)
}
