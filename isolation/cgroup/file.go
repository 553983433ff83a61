package cgroup

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// file is one of a group's that is held open.
type file struct {
	name string
	fd   int
}

// legacyPeak is the file of version 1 that has the most memory that was ever used, and that is written to to forget it.
const legacyPeak = "memory.max_usage_in_bytes"

// file returns the descriptor of a file in one of the group's directories, which is opened once; -1 where there is none.
func (g *Group) file(hierarchy, name string) int {
	for _, f := range g.files {
		if f.name == name {
			return f.fd
		}
	}
	flags := unix.O_RDONLY
	if name == legacyPeak {
		flags = unix.O_RDWR
	}
	fd, err := unix.Open(filepath.Join(g.dirs[hierarchy], name), flags|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1
	}
	g.files = append(g.files, file{name, fd})
	return fd
}

// read reads a file in one of the group's directories; empty where there is none. No two of them that are read have the same name.
func (g *Group) read(hierarchy, name string) string {
	if g.once { // nobody will read it again
		text, _ := read(filepath.Join(g.dirs[hierarchy], name))
		return text
	}
	return contents(g.file(hierarchy, name))
}

// contents reads a small file from its beginning, in one call.
func contents(fd int) string {
	b := make([]byte, 1024)
	n, err := unix.Pread(fd, b, 0)
	if err != nil {
		return ""
	}
	return string(b[:n])
}

// number reads a text that is one number; 0 where it is none.
func number(text string) int64 {
	n, _ := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
	return n
}

// field reads a number from a text of lines "name number".
func field(text, name string) int64 {
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return number(value)
		}
	}
	return 0
}

// The files of a hierarchy can be polled, and the standard library would enter each into its poller, which costs more than the file
// itself. So they are opened past it.

// open opens a file of a hierarchy.
func open(path string, flags int) (*os.File, error) {
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), "a control group's file"), nil // of a thousand workers, the paths are half a megabyte
}

// read reads a small file of a hierarchy in one call.
func read(path string) (string, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	b := make([]byte, 4096)
	n, err := unix.Read(fd, b)
	if err != nil {
		return "", &os.PathError{Op: "read", Path: path, Err: err}
	}
	return string(b[:n]), nil
}

// write writes a value to a file of a hierarchy in one call.
func write(path, value string) error {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	if _, err := unix.Write(fd, []byte(value)); err != nil {
		return &os.PathError{Op: "write", Path: path, Err: err}
	}
	return nil
}
