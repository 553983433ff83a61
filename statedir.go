package main

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// ownDirectory reports why a directory is not safely ours: whoever may write to it, or put another one in its place, could have us follow
// links of theirs.
func ownDirectory(dir string) error {
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return fmt.Errorf("cannot use the state directory MAYFLY_STATE_DIR=%s: %w", dir, err)
	}
	info, err := os.Stat(real)
	if err != nil {
		return fmt.Errorf("cannot use the state directory MAYFLY_STATE_DIR=%s: %w", dir, err)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); !ok || int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("cannot use the state directory MAYFLY_STATE_DIR=%s: it is not ours, and its owner could lay traps there: chown -R %d %s, or choose another", dir, os.Geteuid(), dir)
	}
	if info.Mode()&os.ModeSticky != 0 && othersWrite(info) {
		return fmt.Errorf("cannot use the state directory MAYFLY_STATE_DIR=%s: others may write to it (%s): choose one below it", dir, info.Mode())
	}
	for _, chain := range []string{dir, real} {
		for path := chain; ; path = filepath.Dir(path) {
			if err := steady(path); err != nil {
				return fmt.Errorf("cannot use the state directory MAYFLY_STATE_DIR=%s: %w", dir, err)
			}
			if path == filepath.Dir(path) {
				break
			}
		}
	}
	return nil
}

// steady reports why others could put something else in the place of what a directory, or a link to one, holds.
func steady(path string) error {
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || st.Uid != 0 && int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("user %d owns %s: chown %d %s, or choose another", st.Uid, path, os.Geteuid(), path)
	}
	// Where a directory is shared, as /tmp is, its sticky bit keeps others' hands from what is in it.
	if info.IsDir() && othersWrite(info) && info.Mode()&os.ModeSticky == 0 {
		return fmt.Errorf("others may write to %s (%s): chmod go-w %s, or choose another", path, info.Mode(), path)
	}
	return nil
}

// othersWrite reports whether others than we may write to a directory. Whom our own group has is our own affair.
func othersWrite(info os.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return !ok || info.Mode().Perm()&0o002 != 0 || info.Mode().Perm()&0o020 != 0 && int(st.Gid) != os.Getegid()
}
