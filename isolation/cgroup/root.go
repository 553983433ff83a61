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
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// spare is how many unused groups are kept for the next programs.
const spare = 64

// Root is the place below which all groups lie, in each hierarchy of the host. Its directories exist only while there are
// groups.
type Root struct {
	base layout // directories
	// controllers are those whose limits hold; lacking says what does not, and why.
	controllers []string
	lacking     map[string]error
	// filters says that devices are closed by programs of version 2 groups. Else devices is the root's directory in the hierarchy of the
	// version 1 controller, or empty where there is neither.
	filters bool
	devices string

	mu   sync.Mutex
	made bool
	// cpus and mems are what a version 1 cpuset above all groups has.
	cpus, mems string
	next       int
	unused     []*Group
	programs   map[string]int // descriptors of filters, by what they close
}

// Find finds a place for groups: directories called name below the groups of this process. On a host with version 2 alone
// it moves this process, and in a container all of them, into a group beside that, as no group may have both members and
// limited groups below it. The error says why there is no place: no hierarchy, or no right to write to it.
func Find(name string) (*Root, error) {
	l, err := look()
	if err != nil {
		return nil, err
	}
	legacyDevices := l[devices]
	delete(l, devices)
	r := &Root{base: layout{}, lacking: map[string]error{}, programs: map[string]int{}}
	if l.mode() == "unified" {
		// Where a keeper before us has moved all of a container, the groups go beside that leaf, not below it.
		if filepath.Base(l[unified]) == leafName {
			l[unified] = filepath.Dir(l[unified])
		}
		if err = makeRoom(l[unified], leafName); err != nil {
			r.lacking["limits"] = err
		}
	}
	for key, dir := range l {
		r.base[key] = filepath.Join(dir, name)
	}
	if err := r.try(l); err != nil {
		r.Close()
		return nil, err
	}
	r.findFence(legacyDevices, name)
	return r, nil
}

// try makes a group and removes it: the mounts may be read-only, or the directories not delegated to us.
func (r *Root) try(l layout) error {
	for key, dir := range maps.Clone(r.base) {
		err := os.Mkdir(dir, 0o755)
		if errors.Is(err, os.ErrExist) {
			err = nil
		}
		if err == nil && unix.Access(filepath.Join(dir, "cgroup.procs"), unix.W_OK) != nil {
			err = fmt.Errorf("cannot use control groups: %s is not ours to write", dir)
		}
		if err != nil {
			delete(r.base, key)
			r.lacking[key] = err
		}
	}
	defer r.removeBase()
	if r.base[unified] == "" && r.base["pids"] == "" {
		return fmt.Errorf("cannot make control groups: %w", errors.Join(slices.Collect(maps.Values(r.lacking))...))
	}
	if l.mode() == "unified" {
		r.controllers = enable(l[unified], r.base[unified], r.lacking)
		return nil
	}
	for _, c := range legacyWanted {
		if r.base[c] != "" {
			r.controllers = append(r.controllers, c)
		} else if r.lacking[c] == nil && (c != "cpuacct" || r.base[unified] == "") {
			r.lacking[c] = errors.New("no hierarchy has this controller")
		}
	}
	return nil
}

// leafName is the group that we are in. It is one for all keepers of a container, and is not removed: what we are in we cannot remove,
// and a scope goes with all that is in it.
const leafName = "mayfly-keeper"

// makeRoom moves this process out of its group, into leaf below it, where the group is not the hierarchy's root.
func makeRoom(dir, leaf string) error {
	if _, err := os.Stat(filepath.Join(dir, "cgroup.type")); errors.Is(err, os.ErrNotExist) {
		return nil // the root may have both
	}
	path := filepath.Join(dir, leaf)
	if err := os.Mkdir(path, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("cannot make a control group for ourselves: %w", err)
	}
	if err := os.WriteFile(filepath.Join(path, "cgroup.procs"), []byte("0"), 0); err != nil {
		os.Remove(path)
		return fmt.Errorf("cannot move to a control group of our own: %w", err)
	}
	others := members(dir)
	if len(others) == 0 {
		return nil
	}
	if !filepath.IsAbs(dir) || !insideContainer(dir) {
		return fmt.Errorf("the control group %s has other members (processes %v), so its groups cannot be limited: start the manager as a systemd service, or in a group of its own", dir, others)
	}
	// In a container the group is the container's, and all of its processes are.
	for range 10 { // they may fork meanwhile
		for _, pid := range others {
			_ = os.WriteFile(filepath.Join(path, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0) // gone, or it shows below
		}
		if others = members(dir); len(others) == 0 {
			return nil
		}
	}
	return fmt.Errorf("cannot move the processes %v out of the control group %s", others, dir)
}

// insideContainer reports whether the directory is what the hierarchy's mount shows first, without being its root: so it is
// in a cgroup namespace or a mount of a container's group.
func insideContainer(dir string) bool {
	var above, here unix.Stat_t
	if unix.Stat(dir, &here) != nil || unix.Stat(filepath.Dir(dir), &above) != nil {
		return false
	}
	return above.Dev != here.Dev
}

// enable gives the groups below base the controllers that they need, and returns those that they have.
func enable(own, base string, lacking map[string]error) []string {
	var have []string
	for _, c := range wanted {
		var err error
		for _, dir := range []string{own, base} {
			if err = os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+c), 0); err != nil {
				break
			}
		}
		if err != nil {
			lacking[c] = fmt.Errorf("cannot enable the controller: %w", err)
			continue
		}
		have = append(have, c)
	}
	return have
}

// Mode is unified, hybrid or legacy.
func (r *Root) Mode() string {
	return r.base.mode()
}

// Controllers are those whose limits hold.
func (r *Root) Controllers() []string { return r.controllers }

// Lacking says for each controller, or for "limits" as a whole, why its limits do not hold; for "devices", why none can be closed.
func (r *Root) Lacking() map[string]error { return r.lacking }

// Place names the root's directories in a text that Restore takes.
func (r *Root) Place() string {
	dirs := slices.Collect(maps.Values(r.base))
	if r.devices != "" {
		dirs = append(dirs, r.devices)
	}
	slices.Sort(dirs)
	return strings.Join(slices.Compact(dirs), "\n")
}

// make makes the root's directories. The lock is held.
func (r *Root) make() error {
	if r.made {
		return nil
	}
	for key, dir := range r.base {
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			return fmt.Errorf("cannot make a control group: %w", err)
		}
		if key == "cpuset" {
			// What is new is empty there, and must not be.
			var err error
			if r.cpus, err = inherit(dir, "cpuset.cpus"); err == nil {
				r.mems, err = inherit(dir, "cpuset.mems")
			}
			if err != nil {
				return fmt.Errorf("cannot set a control group up: %w", err)
			}
		}
	}
	if r.base.mode() == "unified" {
		for _, c := range r.controllers {
			if err := os.WriteFile(filepath.Join(r.base[unified], "cgroup.subtree_control"), []byte("+"+c), 0); err != nil {
				return fmt.Errorf("cannot set a control group up: %w", err)
			}
		}
	}
	r.made = true
	return nil
}

// inherit gives a group the value of the one above, and returns it.
func inherit(dir, file string) (string, error) {
	text, err := os.ReadFile(filepath.Join(filepath.Dir(dir), file))
	if err != nil {
		return "", err
	}
	return strings.TrimSpace(string(text)), os.WriteFile(filepath.Join(dir, file), text, 0)
}

func (r *Root) removeBase() {
	for _, dir := range r.base {
		os.Remove(dir)
	}
	if r.devices != "" {
		os.Remove(r.devices)
	}
	r.made = false
}

// Close removes the unused groups and, where none is used, the root. A group that this process is in stays: whoever starts or
// sweeps next removes it.
func (r *Root) Close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, g := range r.unused {
		_ = g.remove()
	}
	r.unused = nil
	r.closePrograms()
	r.removeBase()
}

// Sweep kills all that lives below the places that Place once named, and removes them: what an earlier life left.
func Sweep(place string, limit time.Duration) error {
	dirs := strings.Split(strings.TrimSpace(place), "\n")
	var failures []error
	// First everywhere, then remove: a process may be in groups of several hierarchies.
	for _, dir := range dirs {
		if err := end(dir, limit); err != nil {
			failures = append(failures, err)
		}
	}
	for _, dir := range dirs {
		if err := removeTree(dir); err != nil {
			failures = append(failures, err)
		}
	}
	return errors.Join(failures...)
}
