package isolation

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// OuterMode is the mode of the directory in which the files of a program lie: it lets a program of another user through to what is its own,
// where it has no file system of its own; it cannot list or read the rest.
const OuterMode = 0o711

// Lay makes the program's own directory on the host, with what belongs into it, as far as it is not there.
func Lay(s *Spec) error {
	if s.Private == "" {
		return nil
	}
	for i, dir := range append([]string{filepath.Dir(s.Private), s.Private}, s.Dirs...) {
		mode := os.FileMode(0o700)
		switch {
		case i == 0:
			mode = OuterMode
		case i > 1:
			dir = filepath.Join(s.Private, dir)
		}
		if err := os.Mkdir(dir, mode); err != nil && !errors.Is(err, os.ErrExist) {
			return fmt.Errorf("cannot make the program's directory: %w", err)
		}
	}
	return nil
}

// Create makes a file for a program's output or result, with the directory in which it lies where that is not there; flags are those of open(2)
// beside O_CREAT and O_WRONLY.
func Create(path string, flags int) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|flags, 0o600)
	if errors.Is(err, os.ErrNotExist) {
		if err := os.MkdirAll(filepath.Dir(path), OuterMode); err != nil {
			return nil, err
		}
		f, err = os.OpenFile(path, os.O_CREATE|os.O_WRONLY|flags, 0o600)
	}
	return f, err
}
