// Package secret opens files that hold secrets, unless somebody else may have read or written them.
package secret

import (
	"fmt"
	"os"
	"syscall"
)

// Exposed reports whether a file may be read or changed by others than this process's user, or root, and read by others than its group.
func Exposed(info os.FileInfo) bool {
	owner, ok := info.Sys().(*syscall.Stat_t)
	return info.Mode().Perm()&0o027 != 0 || !ok || owner.Uid != 0 && int(owner.Uid) != os.Geteuid()
}

// Open opens a file that a setting names. The error says what mends it.
func Open(setting, path string) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", setting, err)
	}
	info, err := f.Stat()
	switch {
	case err != nil:
		err = fmt.Errorf("cannot read %s: %w", setting, err)
	case !info.Mode().IsRegular():
		err = fmt.Errorf("cannot use %s=%s: it is no file", setting, path)
	case Exposed(info):
		err = fmt.Errorf("cannot use %s=%s: others may read or change it (%s): have this manager's user own it, and chmod 600 %s", setting, path, info.Mode(), path)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
