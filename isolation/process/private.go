package process

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/mayfly/mayfly/isolation"
)

// Private is what one program has to itself of the file system: its temporary directories and its own directory. It is
// mounted nowhere but in the program's namespace, so nothing of it can outlive both the program and us, and it goes
// without being unmounted or removed.
//
// Most programs leave nothing behind, or little. Theirs is swept, and used again by the next program of the same place, together
// with the namespace that it is mounted in: to make and to drop both costs as much as all the rest of a start.
//
// A program can pass an open directory, be it its root, to one beside it, which then looks into the file systems of whoever is in that
// place next. So what outlives a program is closed to other users than the place's, and where users are shared, nothing outlives one.
type Private struct {
	spawner *Spawner
	place   int
	// room are the namespaces for programs to enter.
	room *room
	// root is the file system that has a bounded size, shared memory aside; our hold on it. parts are what is mounted of it.
	root *os.File
	size int64
	// memory is the file system in memory: root, where the task has no disk.
	memory *os.File
	parts  []part
	// shares are mounts of the host's that lie in a temporary directory, until they are mounted.
	shares map[string]int
	// devices are device files that are the program's alone, at their paths.
	devices []isolation.Device
	// cover is where the program's own directory is mounted, dir its path within root.
	cover, dir string
	// furniture are the directories that were made for one program, the inner ones last.
	furniture []string
	// used is the number of inodes when no program has been there, and sweepable says that it can be told.
	used      uint64
	sweepable bool
	// points are the mount points in it, as places.
	points []string
	// covers are paths behind which the host's files are hidden, shared those where they are seen nevertheless.
	covers, shared []string
}

// privateLayout are the places within the file systems.
const (
	ownPlace   = "own"
	shmPlace   = "shm"
	tmpPlace   = "tmp"
	vartmpName = "var-tmp"
)

// part is a directory of a file system of the program's, and where it is mounted.
type part struct {
	in         *os.File
	name, path string
}

// access is who may enter the directories that one program after the other finds: all, or root and a group.
type access struct {
	all bool
	gid uint32
}

// directory makes such a directory. mode is that for all.
func (a access) directory(root *os.File, path string, mode uint32) error {
	if !a.all {
		mode &^= 0o7
	}
	return directory(root, path, mode, 0, a.gid)
}

// newPrivate makes the private part, but for what differs from one program to the next: see furnish. own is a path below one of
// hidden, or empty. A disk of 0 bytes lies in memory, within size bytes or, with 0, within what the kernel gives to a tmpfs.
func newPrivate(own string, hidden []string, size, disk int64, a access, images Images) (p *Private, err error) {
	p = &Private{shares: map[string]int{}, size: size, covers: slices.Concat(temporary, hidden, []string{"/run", "/dev"}), shared: slices.Clone(runKept)}
	defer func() {
		if err != nil {
			p.drop()
			p = nil
		}
	}()
	fd, err := tmpfs(size)
	if err != nil {
		return p, err
	}
	p.memory = os.NewFile(uintptr(fd), "tmpfs")
	p.root = p.memory
	if disk > 0 {
		if fd, err = images.make(disk); err != nil {
			return p, err
		}
		p.root = os.NewFile(uintptr(fd), "disk")
	}
	p.parts = []part{{p.root, tmpPlace, "/tmp"}, {p.root, vartmpName, "/var/tmp"}, {p.memory, shmPlace, "/dev/shm"}}
	for _, d := range p.parts {
		if err := a.directory(d.in, d.name, 0o1777); err != nil {
			return p, err
		}
	}
	if own == "" {
		return p, nil
	}
	p.cover = own
	for _, h := range hidden {
		if _, ok := below(h, own); ok && len(h) < len(p.cover) {
			p.cover = h
		}
	}
	if err := a.directory(p.root, ownPlace, 0o755); err != nil {
		return p, err
	}
	// What lies in a temporary directory is behind the private one: there it needs something to be mounted on.
	for _, t := range temporary {
		if rel, ok := below(t, p.cover); ok {
			if err := p.point(t, rel, true); err != nil {
				return p, err
			}
		}
	}
	p.parts = append(p.parts, part{p.root, ownPlace, p.cover})
	return p, nil
}

// furnish lays out the program's own directory, with directories in it.
func (p *Private) furnish(own string, dirs []string, uid, gid uint32) error {
	if own == "" {
		return nil
	}
	rel, _ := below(p.cover, own)
	p.dir = filepath.Join(ownPlace, rel)
	p.furniture = nil
	add := func(path string, mode, uid, gid uint32) error {
		p.furniture = append(p.furniture, path)
		return directory(p.root, path, mode, uid, gid)
	}
	for i, c := range p.dir {
		if c == '/' && i > len(ownPlace) {
			if err := add(p.dir[:i], 0o755, 0, 0); err != nil {
				return err
			}
		}
	}
	if p.dir == ownPlace {
		if err := unix.Fchownat(int(p.root.Fd()), ownPlace, int(uid), int(gid), unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return fmt.Errorf("cannot give the program its directory: %w", err)
		}
	} else if err := add(p.dir, 0o700, uid, gid); err != nil {
		return err
	}
	for _, name := range dirs {
		if err := add(filepath.Join(p.dir, name), 0o700, uid, gid); err != nil {
			return err
		}
	}
	return nil
}

// fits reports whether what was made for one program serves another one.
func (p *Private) fits(own string, size int64, devices []isolation.Device) bool {
	if _, ok := below(p.cover, own); !ok && own != "" || (own == "") != (p.cover == "") || !slices.Equal(p.devices, devices) {
		return false
	}
	return p.size == size || p.resize(size) == nil
}

// resize gives the file system another bound.
func (p *Private) resize(size int64) error {
	if size == 0 {
		return errors.New("cannot lift the bound of a file system")
	}
	fs, err := unix.Fspick(int(p.root.Fd()), "", unix.FSPICK_EMPTY_PATH|unix.FSPICK_CLOEXEC)
	if err != nil {
		return err
	}
	defer unix.Close(fs)
	if err := errors.Join(unix.FsconfigSetString(fs, "size", sizeOption(size)), unix.FsconfigSetString(fs, "nr_inodes", inodesOption(size))); err != nil {
		return err
	}
	if err := unix.FsconfigReconfigure(fs); err != nil {
		return err
	}
	p.size = size
	return nil
}

// shows reports whether the program sees the host's file at a path: it is not behind what is private.
func (p *Private) shows(path string) bool {
	covers := slices.Concat(p.shared, p.covers)
	longest := ""
	for _, c := range covers {
		if _, ok := below(c, path); ok && len(c) > len(longest) {
			longest = c
		}
	}
	return longest == "" || slices.Contains(p.shared, longest)
}

// share has a path of the host that lies in a temporary directory appear in the private one.
func (p *Private) share(path string) error {
	for _, t := range temporary {
		rel, ok := below(t, path)
		if !ok || rel == "." {
			continue
		}
		info, err := os.Stat(path)
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("cannot share %s: %w", path, err)
		}
		if err := p.point(t, rel, info.IsDir()); err != nil {
			return err
		}
		found, err := clones([]string{path})
		if err != nil {
			return err
		}
		for path, fd := range found {
			p.shares[path] = fd
			p.shared = append(p.shared, path)
		}
	}
	return nil
}

// point makes a mount point in a temporary directory. What is above it belongs to nobody.
func (p *Private) point(temporary, rel string, dir bool) error {
	in := p.parts[slices.IndexFunc(p.parts, func(d part) bool { return d.path == temporary })]
	first, _, _ := strings.Cut(rel, "/")
	p.points = append(p.points, in.name+"/"+first)
	if err := mountPoint(fmt.Sprintf("/proc/self/fd/%d/%s/%s", in.in.Fd(), in.name, rel), dir); err != nil {
		return fmt.Errorf("cannot make a mount point for %s/%s: %w", temporary, rel, err)
	}
	return nil
}

// Full reports whether no room is left.
func (p *Private) Full() bool {
	var st unix.Statfs_t
	return p != nil && unix.Fstatfs(int(p.root.Fd()), &st) == nil && isolation.Full(&st)
}

// Open opens a file of the program's own directory, by its path below it, as what it is: not through links of any kind.
func (p *Private) Open(rel string) (*os.File, error) {
	return isolation.OpenBeneath(int(p.root.Fd()), filepath.Join(p.dir, rel))
}

// begun closes the namespaces of a program that runs in them, where no other one is to enter them.
func (p *Private) begun(once bool) {
	if p != nil && (once || !p.sweepable) {
		p.room.close()
		p.room = nil
	}
}

// Close lets go of it. Nothing of the program may be left.
func (p *Private) Close() {
	if p != nil && !p.spawner.keep(p) {
		p.drop()
	}
}

func (p *Private) drop() {
	closeAll(p.shares)
	p.room.close()
	for _, f := range []*os.File{p.root, p.memory} {
		if f != nil {
			f.Close() // one of them perhaps twice, which does no harm
		}
	}
}

func directory(root *os.File, path string, mode, uid, gid uint32) error {
	fd := int(root.Fd())
	err := unix.Mkdirat(fd, path, mode)
	if err == nil && (uid != 0 || gid != 0) {
		err = unix.Fchownat(fd, path, int(uid), int(gid), unix.AT_SYMLINK_NOFOLLOW)
	}
	if err == nil && mode&0o1022 != 0 {
		err = unix.Fchmodat(fd, path, mode, 0) // what the umask takes
	}
	if err != nil {
		return fmt.Errorf("cannot make a private directory: %w", err)
	}
	return nil
}

// NewMemory makes a file system in memory, of at most size bytes or, with 0, what the kernel gives to a tmpfs, and mounts it nowhere.
func NewMemory(size int64) (*os.File, error) {
	fd, err := tmpfs(size)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "tmpfs"), nil
}

// tmpfs makes a file system in memory, of at most size bytes, and mounts it nowhere.
func tmpfs(size int64) (int, error) {
	options := map[string]string{"mode": "0755"}
	if size > 0 {
		options["size"], options["nr_inodes"] = sizeOption(size), inodesOption(size)
	}
	return newMount("tmpfs", options, noDevices)
}

func sizeOption(size int64) string { return strconv.FormatInt(max(size, 1<<16), 10) }

// inodesOption bounds the number of files, each of which takes a good kilobyte of kernel memory, so that files without content are
// refused before the program's memory is at its end for them.
func inodesOption(size int64) string { return strconv.FormatInt(max(size/4096, 1024), 10) }

// noDevices is what is mounted with most file systems of a program: a file of a device is none there.
const noDevices = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV

func newMount(kind string, options map[string]string, attributes int) (int, error) {
	fs, err := unix.Fsopen(kind, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("cannot make a private %s: %w", kind, err)
	}
	defer unix.Close(fs)
	for key, value := range options {
		if err := unix.FsconfigSetString(fs, key, value); err != nil {
			return -1, fmt.Errorf("cannot make a private %s with %s=%s: %w", kind, key, value, err)
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, fmt.Errorf("cannot make a private %s: %w", kind, err)
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, attributes)
	if err != nil {
		return -1, fmt.Errorf("cannot make a private %s: %w", kind, err)
	}
	return fd, nil
}
