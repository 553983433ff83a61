package process

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// Images says how file systems in files are made.
type Images struct {
	// Dir is where the files lie. They have no name there, but for the moment of their making.
	Dir string
	// Run runs a command of the host and returns when it has ended, with an error where that was no success.
	Run func(args ...string) error
}

// mke2fs makes the file systems; it is in every distribution's base.
const mke2fs = "mke2fs"

// canMakeImages reports why no file systems in files can be made.
func canMakeImages() error {
	if !slices.ContainsFunc([]string{"/usr/sbin/", "/sbin/", "/usr/bin/", "/bin/"}, func(dir string) bool { return executable(dir+mke2fs) == nil }) {
		return fmt.Errorf("cannot find %s", mke2fs)
	}
	f, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("cannot use loop devices: %w", err)
	}
	return f.Close()
}

// make makes a file system of that size in a file and mounts it nowhere. File and loop device go with the last one who uses
// the file system.
func (i Images) make(size int64) (fd int, err error) {
	f, err := os.CreateTemp(i.Dir, "disk-")
	if err != nil {
		return -1, fmt.Errorf("cannot make a disk: %w", err)
	}
	defer f.Close()
	defer os.Remove(f.Name())
	// What the file system takes for itself comes on top, so that the program has what it asked for.
	if err := f.Truncate(size + size/50 + 4<<20); err != nil {
		return -1, fmt.Errorf("cannot make a disk of %d bytes: %w", size, err)
	}
	// No journal: nobody reads it after a crash.
	if err := i.Run(mke2fs, "-q", "-F", "-t", "ext4", "-m", "0", "-O", "^has_journal,^resize_inode", "-E", "lazy_itable_init=1,nodiscard",
		f.Name()); err != nil {
		return -1, fmt.Errorf("cannot make a disk of %d bytes: %w", size, err)
	}
	loop, name, err := loopDevice(f)
	if err != nil {
		return -1, err
	}
	defer loop.Close()
	return newMount("ext4", map[string]string{"source": name}, noDevices)
}

// New makes a file system in a file, of that many bytes, and mounts it nowhere.
func (i Images) New(size int64) (*os.File, error) {
	fd, err := i.make(size)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "disk"), nil
}

// loopDevice lends a free loop device to the file, until its last user is gone.
func loopDevice(f *os.File) (*os.File, string, error) {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, "", fmt.Errorf("cannot make a disk: %w", err)
	}
	defer control.Close()
	for range 64 { // somebody else may take the one that was free
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, "", fmt.Errorf("cannot find a free loop device: %w", err)
		}
		name := "/dev/loop" + strconv.Itoa(n)
		loop, err := os.OpenFile(name, os.O_RDWR, 0)
		if err != nil {
			return nil, "", fmt.Errorf("cannot open a loop device: %w", err)
		}
		config := unix.LoopConfig{Fd: uint32(f.Fd()), Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR}}
		err = unix.IoctlLoopConfigure(int(loop.Fd()), &config)
		if err == nil {
			return loop, name, nil
		}
		loop.Close()
		if !errors.Is(err, unix.EBUSY) {
			return nil, "", fmt.Errorf("cannot set a loop device up: %w", err)
		}
	}
	return nil, "", errors.New("cannot find a free loop device: others are quicker each time")
}
