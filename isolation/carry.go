package isolation

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// Notice ends an output file of which something was dropped. Its arguments are the numbers of bytes kept and dropped.
const Notice = "\n[mayfly: output stopped at %d bytes; %d more bytes were dropped]\n"

// OpenBeneath opens a file of a directory that a program may have put there, as what it is: not through links of any kind, and without
// waiting for a pipe's other end. dir is a descriptor.
func OpenBeneath(dir int, rel string) (*os.File, error) {
	how := unix.OpenHow{Flags: unix.O_RDONLY | unix.O_NONBLOCK | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS}
	fd, err := unix.Openat2(dir, filepath.Clean(rel), &how)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), rel), nil
}

// Carry copies a file that a program has left to where the caller looks for it, and closes it; err is why it could not be opened. It
// returns why it was not copied, for Exit.CarryError; a file that is not there is no fault. Only a regular file of at most so many
// bytes is taken: the program may have put anything there.
func Carry(from *os.File, err error, to string, most int64) string {
	switch {
	case errors.Is(err, os.ErrNotExist):
		return ""
	case errors.Is(err, syscall.ELOOP):
		return "it is a symbolic link"
	case err != nil:
		return unreadable(err)
	}
	defer from.Close()
	info, err := from.Stat()
	switch {
	case err != nil:
		return unreadable(err)
	case !info.Mode().IsRegular():
		return "it is no regular file"
	case info.Size() > most:
		return fmt.Sprintf("it has %d bytes, and at most %d are taken", info.Size(), most)
	}
	file, err := Create(to, os.O_EXCL)
	if err != nil {
		return unreadable(err)
	}
	_, err = io.Copy(file, io.LimitReader(from, most))
	if err = errors.Join(err, file.Close()); err != nil {
		return unreadable(err)
	}
	return ""
}

func unreadable(err error) string { return "it cannot be read: " + err.Error() }
