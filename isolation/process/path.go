package process

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// lookPath finds a command as execvp does, in the program's own PATH and relative to its own directory. In what is private
// to the program there is nothing yet. A path it takes as it is: the child looks there itself, as its user and with what that sees, and not with our eyes and at our
// risk, for a file system may not answer.
func lookPath(name string, env []string, dir string, private *Private) (string, error) {
	executable := func(path string) error {
		if private != nil && !private.shows(path) {
			return os.ErrNotExist
		}
		return executable(path)
	}
	if strings.Contains(name, "/") {
		path := name
		if !filepath.IsAbs(path) {
			path = filepath.Join(dir, path)
		}
		return path, nil
	}
	search := ""
	for _, pair := range env {
		if value, ok := strings.CutPrefix(pair, "PATH="); ok {
			search = value // the last one counts, as for the shell
		}
	}
	var denied error
	for _, d := range filepath.SplitList(search) {
		if !filepath.IsAbs(d) {
			d = filepath.Join(dir, d)
		}
		path := filepath.Join(d, name)
		err := executable(path)
		if err == nil {
			return path, nil
		}
		if !errors.Is(err, os.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
			denied = err
		}
	}
	if denied != nil {
		return "", &StartError{fmt.Sprintf("cannot start %s: %v", name, denied)}
	}
	return "", &StartError{fmt.Sprintf("cannot start %s: there is no such command in PATH=%s", name, search)}
}

func executable(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if info.IsDir() {
		return fmt.Errorf("%s is a directory", path)
	}
	if unix.Access(path, unix.X_OK) != nil || info.Mode()&0o111 == 0 {
		return fmt.Errorf("%s is not executable", path)
	}
	return nil
}

// reason shortens the words of os for what everybody knows.
func reason(err error) error {
	switch {
	case errors.Is(err, os.ErrNotExist):
		return errors.New("it does not exist")
	case errors.Is(err, os.ErrPermission):
		return errors.New("permission denied")
	}
	return err
}
