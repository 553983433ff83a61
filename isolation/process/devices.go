package process

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/mayfly/mayfly/isolation"
)

// ordinary are the device files that every program sees, with their numbers as Documentation/admin-guide/devices.txt
// of the kernel has them.
var ordinary = []isolation.Device{{Path: "/dev/null", Major: 1, Minor: 3}, {Path: "/dev/zero", Major: 1, Minor: 5}, {Path: "/dev/full", Major: 1, Minor: 7},
	{Path: "/dev/random", Major: 1, Minor: 8}, {Path: "/dev/urandom", Major: 1, Minor: 9}, {Path: "/dev/tty", Major: 5, Minor: 0}}

// dev replaces /dev by what programs need, and by what one of them has beside that. terminals mounts /dev/pts.
func dev(more []isolation.Device, terminals func() error) error {
	if err := unix.Mount("tmpfs", "/dev", "tmpfs", unix.MS_NOSUID|unix.MS_NOEXEC, "mode=0755,size=64k"); err != nil {
		return fmt.Errorf("cannot replace /dev: %w", err)
	}
	old := unix.Umask(0) // of this thread alone: it has a file system context of its own
	defer unix.Umask(old)
	for _, name := range []string{"/dev/pts", "/dev/shm"} {
		if err := unix.Mkdir(name, 0o755); err != nil {
			return fmt.Errorf("cannot make %s: %w", name, err)
		}
	}
	for name, target := range map[string]string{"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1",
		"stderr": "/proc/self/fd/2", "ptmx": "pts/ptmx"} {
		if err := unix.Symlink(target, "/dev/"+name); err != nil {
			return fmt.Errorf("cannot make /dev/%s: %w", name, err)
		}
	}
	if err := terminals(); err != nil {
		return fmt.Errorf("cannot mount /dev/pts: %w", err)
	}
	for _, d := range slices.Concat(ordinary, more) {
		if err := os.MkdirAll(filepath.Dir(d.Path), 0o755); err != nil {
			return fmt.Errorf("cannot make the device %s: %w", d.Path, err)
		}
		if err := node(d.Path, d); err != nil {
			return err
		}
	}
	return readOnly("/dev")
}

// newTerminals mounts terminals that are not the host's. Their number is bounded: all terminals of a kernel count against kernel.pty.max (4096, of which 1024
// are kept for the host's own; Documentation/filesystems/devpts.rst), and programs that take all that is left would leave none to containers and to whatever else
// has a /dev/pts of its own.
func newTerminals() error {
	return unix.Mount("devpts", "/dev/pts", "devpts", unix.MS_NOSUID|unix.MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,max=1024")
}

// node makes the file of a device. Who is shown a device may use it: what the host's file says of its users says nothing of the
// program's.
func node(path string, d isolation.Device) error {
	mode, number := uint32(unix.S_IFCHR|0o666), unix.Mkdev(d.Major, d.Minor)
	if d.Block {
		mode = unix.S_IFBLK | 0o666
	}
	err := unix.Mknod(path, mode, int(number))
	var there unix.Stat_t
	if errors.Is(err, unix.EEXIST) && unix.Lstat(path, &there) == nil && there.Mode == mode && there.Rdev == number {
		return nil // named twice
	}
	if err != nil {
		return fmt.Errorf("cannot make the device %s: %w", d.Path, err)
	}
	return nil
}

// add has the program see a device. One in /dev is made there, and one in a temporary directory needs something to be mounted on; all
// others are mounted on what is there.
func (p *Private) add(d isolation.Device, hidden []string) error {
	no := func(why string) error { return fmt.Errorf("cannot show the program the device %q: %s", d.Path, why) }
	if !filepath.IsAbs(d.Path) || filepath.Clean(d.Path) != d.Path {
		return no("its path is not absolute and clean")
	}
	for _, h := range hidden {
		if _, ok := below(h, d.Path); ok {
			return no("it lies in " + h + ", which is hidden from programs")
		}
	}
	if _, ok := below("/dev/pts", d.Path); ok || d.Path == "/dev" {
		return no("that is no place for a device")
	}
	for _, t := range temporary {
		if rel, ok := below(t, d.Path); ok {
			if rel == "." {
				return no("that is no place for a device")
			}
			if err := p.point(t, rel, false); err != nil {
				return no(err.Error())
			}
		}
	}
	p.devices = append(p.devices, d)
	return nil
}

// made reports whether a device gets its file in /dev itself.
func made(d isolation.Device) bool {
	_, inShm := below("/dev/shm", d.Path)
	_, inDev := below("/dev", d.Path)
	return inDev && !inShm
}

// furnishDevices puts the devices that belong there into a new /dev, and makes the others in a file system of their own, of which it
// takes their files for mounts.
func furnishDevices(devices []isolation.Device, hidden []string, nodes map[string]int) error {
	old := unix.Umask(0)
	defer unix.Umask(old)
	elsewhere := slices.DeleteFunc(slices.Clone(devices), made)
	if len(elsewhere) < len(devices) {
		if err := renewDev(slices.DeleteFunc(slices.Clone(devices), func(d isolation.Device) bool { return !made(d) }), hidden); err != nil {
			return err
		}
	}
	if len(elsewhere) == 0 {
		return nil
	}
	fd, err := newMount("tmpfs", map[string]string{"mode": "0755", "size": "64k"}, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.MoveMount(fd, "", unix.AT_FDCWD, stage, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("cannot mount devices: %w", err)
	}
	names := make([]string, len(elsewhere))
	for i, d := range elsewhere {
		names[i] = stage + "/" + strconv.Itoa(i)
		if err := node(names[i], d); err != nil {
			return err
		}
	}
	if err := readOnly(stage); err != nil {
		return err
	}
	for i, d := range elsewhere {
		file, err := unix.OpenTree(unix.AT_FDCWD, names[i], unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
		if err != nil {
			return fmt.Errorf("cannot take the device %s: %w", d.Path, err)
		}
		if earlier, ok := nodes[d.Path]; ok {
			unix.Close(earlier)
		}
		nodes[d.Path] = file
	}
	if err := unix.Unmount(stage, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("cannot unmount devices: %w", err)
	}
	return nil
}

// renewDev makes a /dev that has more than the one that all programs see, with the same terminals. What was hidden in that stays so.
func renewDev(more []isolation.Device, hidden []string) error {
	terminals, err := clones([]string{"/dev/pts"})
	if err != nil {
		return err
	}
	defer closeAll(terminals)
	if err := dev(more, func() error { return attach(terminals) }); err != nil {
		return err
	}
	for _, h := range hidden {
		if _, ok := below("/dev", h); ok {
			if err := hide(h); err != nil {
				return err
			}
		}
	}
	return nil
}

// attachNodes mounts the files of devices at their paths.
func attachNodes(nodes map[string]int) error {
	for _, path := range sorted(nodes) {
		if err := unix.MoveMount(nodes[path], "", unix.AT_FDCWD, path, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
			return fmt.Errorf("cannot show the program the device %q: there is nothing that it can be mounted on: %w", path, err)
		}
	}
	return nil
}
