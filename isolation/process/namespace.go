package process

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// runKept are what programs need of /run, where nothing else is to be seen: it is full of sockets of the host's services.
// They are name resolution, the driver's daemon, and what a NixOS host runs from.
var runKept = []string{"/run/systemd/resolve", "/run/resolvconf", "/run/NetworkManager/resolv.conf", "/run/connman/resolv.conf",
	"/run/nvidia-persistenced", "/run/nvidia-topologyd", "/run/opengl-driver", "/run/current-system", "/run/booted-system"}

// temporary are the directories of which every program has its own.
var temporary = []string{"/tmp", "/var/tmp", "/dev/shm"}

// view makes the calling thread's mount namespace what programs get a copy of. The thread has unshared it. It returns
// what could not be had.
func view(p *Policy) error {
	// What the host mounts or unmounts later is passed on to here; nothing from here to the host.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("cannot separate the mounts: %w", err)
	}
	writable, err := clones(p.Writable)
	if err != nil {
		return err
	}
	defer closeAll(writable)
	kept, err := clones(runKept)
	if err != nil {
		return err
	}
	defer closeAll(kept)
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV}
	if err := unix.MountSetattr(unix.AT_FDCWD, "/", unix.AT_RECURSIVE, &attr); err != nil {
		return fmt.Errorf("cannot make the system read-only (Linux 5.12 or later can): %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "hidepid=invisible"); err != nil {
		return fmt.Errorf("cannot hide other users' processes: %w", err)
	}
	if err := dev(nil, newTerminals); err != nil {
		return err
	}
	if err := run(kept); err != nil {
		return err
	}
	if err := attach(writable); err != nil {
		return err
	}
	for _, path := range p.Hidden { // last: what is hidden is so within what is writable, too
		if err := hide(path); err != nil {
			return err
		}
	}
	return nil
}

// clones returns a detached copy of the mounts at each path that exists.
func clones(paths []string) (map[string]int, error) {
	found := map[string]int{}
	for _, path := range paths {
		fd, err := unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
		switch {
		case err == nil:
			found[path] = fd
		case !errors.Is(err, unix.ENOENT):
			closeAll(found)
			return nil, fmt.Errorf("cannot take %s over: %w", path, err)
		}
	}
	return found, nil
}

func closeAll(fds map[string]int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}

// attach mounts the copies at their paths, where those exist. The outer ones come first.
func attach(trees map[string]int) error {
	for _, path := range sorted(trees) {
		err := unix.MoveMount(trees[path], "", unix.AT_FDCWD, path, unix.MOVE_MOUNT_F_EMPTY_PATH)
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("cannot mount %s: %w", path, err)
		}
	}
	return nil
}

// run replaces /run by what programs need.
func run(kept map[string]int) error {
	if info, err := os.Lstat("/run"); err != nil || !info.IsDir() {
		return nil // no such thing here
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0755,size=64k"); err != nil {
		return fmt.Errorf("cannot replace /run: %w", err)
	}
	if err := os.MkdirAll("/run/lock", 0o755); err != nil {
		return fmt.Errorf("cannot fill /run: %w", err)
	}
	for path, fd := range kept {
		var st unix.Stat_t
		err := unix.Fstat(fd, &st)
		if err == nil {
			err = mountPoint(path, st.Mode&unix.S_IFMT == unix.S_IFDIR)
		}
		if err != nil {
			return fmt.Errorf("cannot fill /run: %w", err)
		}
	}
	if err := attach(kept); err != nil {
		return err
	}
	return readOnly("/run")
}

// mountPoint makes something to mount on.
func mountPoint(path string, directory bool) error {
	if directory {
		return os.MkdirAll(path, 0o755)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDONLY, 0o444)
	if err != nil {
		return err
	}
	return f.Close()
}

// hide covers a path. What does not exist, or is gone with what is above it, needs no cover.
func hide(path string) error {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot hide %s: %w", path, err)
	}
	if !info.IsDir() {
		err = unix.Mount("/dev/null", path, "", unix.MS_BIND, "")
	} else {
		err = unix.Mount("tmpfs", path, "tmpfs", unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0755,size=4k")
	}
	if err != nil {
		return fmt.Errorf("cannot hide %s: %w", path, err)
	}
	return nil
}

func readOnly(path string) error {
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	if err := unix.MountSetattr(unix.AT_FDCWD, path, 0, &attr); err != nil {
		return fmt.Errorf("cannot make %s read-only: %w", path, err)
	}
	return nil
}

// below returns path relative to dir where it lies in it.
func below(dir, path string) (string, bool) {
	if dir == path {
		return ".", true
	}
	return strings.CutPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}
