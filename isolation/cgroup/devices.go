package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// devices is the version 1 controller of devices. It has no place among the others: groups join it when they first close something.
const devices = "devices"

// Device is the number of a device, whatever names it has.
type Device struct {
	// Block says that it is a block device, not a character device.
	Block        bool
	Major, Minor uint32
}

// String writes the device as the version 1 controller reads it.
func (d Device) String() string {
	kind := "c"
	if d.Block {
		kind = "b"
	}
	return fmt.Sprintf("%s %d:%d", kind, d.Major, d.Minor)
}

// The largest numbers, see makedev(3) and the kernel's MINORBITS.
const (
	majorMax = 1<<12 - 1
	minorMax = 1<<20 - 1
)

// listing writes a set of devices as a text that is the same for the same set.
func listing(list []Device) string {
	if len(list) == 0 {
		return ""
	}
	lines := make([]string, len(list))
	for i, d := range list {
		lines[i] = d.String()
	}
	slices.Sort(lines)
	return strings.Join(slices.Compact(lines), "\n")
}

// findFence finds out how devices are closed here: by programs in version 2 groups, or by the version 1 controller, where this process
// is in legacy. The root's directories in the other hierarchies are known.
func (r *Root) findFence(legacy, name string) {
	err := errors.New("no hierarchy has this controller")
	if r.base[unified] != "" {
		if err = canFilter(); err == nil {
			r.filters = true
			return
		}
	}
	if legacy == "" {
		r.lacking[devices] = err
		return
	}
	dir := filepath.Join(legacy, name)
	if failed := os.Mkdir(dir, 0o755); failed != nil && !errors.Is(failed, os.ErrExist) {
		r.lacking[devices] = failed
		return
	}
	defer os.Remove(dir)
	if unix.Access(filepath.Join(dir, "devices.deny"), unix.W_OK) != nil {
		r.lacking[devices] = fmt.Errorf("cannot use the control group %s: it is not ours to write", dir)
		return
	}
	r.devices = dir
}

// fence closes devices to the members of the group, and opens all that it closed before.
func (g *Group) fence(closed []Device) error {
	for _, d := range closed {
		if d.Major > majorMax || d.Minor > minorMax {
			return fmt.Errorf("cannot close devices to a program: %s is not the number of any", d)
		}
	}
	text := listing(closed)
	if text == g.closed {
		return nil
	}
	err := g.root.lacking[devices]
	switch {
	case g.root.filters && text == "":
		err = detach(g.birth)
	case g.root.filters:
		err = g.root.attach(g, text, closed)
	case g.root.devices != "":
		err = g.deny(closed)
	}
	if err != nil {
		return fmt.Errorf("cannot close devices to a program: %w", err)
	}
	g.closed = text
	return nil
}

// programs is how many filters are held ready. The groups hold those that they have.
const programs = 64

// attach closes the devices to the group by a filter.
func (r *Root) attach(g *Group, text string, closed []Device) error {
	r.mu.Lock() // as long as the filter is used, which nobody else is to close
	defer r.mu.Unlock()
	program, err := r.program(text, closed)
	if err != nil {
		return err
	}
	return attach(g.birth, program)
}

// program returns the filter that closes the devices. The lock is held.
func (r *Root) program(text string, closed []Device) (int, error) {
	if fd, ok := r.programs[text]; ok {
		return fd, nil
	}
	if len(r.programs) >= programs {
		r.closePrograms()
	}
	fd, err := loadFilter(filter(closed))
	if err != nil {
		return -1, err
	}
	r.programs[text] = fd
	return fd, nil
}

// closePrograms lets go of the filters that are held ready. The lock is held.
func (r *Root) closePrograms() {
	for _, fd := range r.programs {
		unix.Close(fd)
	}
	clear(r.programs)
}

// deny writes the list to the version 1 controller. The group gets a directory there when it is first fenced, and its members join it
// from then on.
func (g *Group) deny(closed []Device) error {
	if g.dirs[devices] == "" {
		dir := filepath.Join(g.root.devices, g.name)
		for _, d := range []string{g.root.devices, dir} {
			// Where the controller shares its hierarchy with others, they are there.
			if err := os.Mkdir(d, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
				return err
			}
		}
		g.dirs[devices] = dir
		if g.join[dir] == nil {
			f, err := open(filepath.Join(dir, "tasks"), unix.O_WRONLY)
			if err != nil {
				return err
			}
			g.join[dir] = f
		}
	}
	// This fails below a group that allows some devices only. There, to deny one has no effect when it is allowed together with others.
	if err := write(filepath.Join(g.dirs[devices], "devices.allow"), "a"); err != nil {
		return err
	}
	for _, d := range closed {
		if err := write(filepath.Join(g.dirs[devices], "devices.deny"), d.String()+" rwm"); err != nil {
			return err
		}
	}
	return nil
}
