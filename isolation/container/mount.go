package container

import (
	"bufio"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/mayfly/mayfly/internal/logkey"
	"github.com/mayfly/mayfly/isolation"
)

// mount gives the program's own directory a file system of its own, which bounds it, with the directories that are in it.
func (r *run) mount(uid, gid uint32) error {
	s := &r.spec
	if s.Private == "" {
		return nil
	}
	entries, err := os.ReadDir(s.Private)
	if err != nil {
		return fmt.Errorf("cannot read the program's directory: %w", err)
	}
	make := func() (*os.File, error) { return r.engine.config.NewMemory(s.Limits.Memory / 2) }
	if s.Limits.Disk > 0 {
		make = func() (*os.File, error) { return r.engine.config.NewDisk(s.Limits.Disk) }
	}
	if r.engine.config.NewMemory != nil && (s.Limits.Disk == 0 || r.engine.config.NewDisk != nil) {
		disk, err := make()
		if err != nil {
			return err
		}
		defer disk.Close()
		if err := unix.MoveMount(int(disk.Fd()), "", unix.AT_FDCWD, s.Private, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
			return fmt.Errorf("cannot mount the program's directory: %w", err)
		}
	}
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		if err := os.Mkdir(filepath.Join(s.Private, e.Name()), 0o700); err != nil && !errors.Is(err, os.ErrExist) {
			return fmt.Errorf("cannot make the program's directory: %w", err)
		}
		if err := os.Lchown(filepath.Join(s.Private, e.Name()), int(uid), int(gid)); err != nil {
			return fmt.Errorf("cannot give the program its directory: %w", err)
		}
	}
	if err := errors.Join(os.Chmod(s.Private, 0o700), os.Lchown(s.Private, int(uid), int(gid))); err != nil {
		return fmt.Errorf("cannot give the program its directory: %w", err)
	}
	return nil
}

// unmount undoes that, takes the file that is to be carried out with it, and says whether there was room left.
func (r *run) unmount() (full bool, fault string) {
	s := &r.spec
	if s.Private == "" || !isMount(s.Private) {
		return false, ""
	}
	var st unix.Statfs_t
	full = unix.Statfs(s.Private, &st) == nil && st.Bavail*uint64(st.Bsize) < isolation.FullBelow
	var from *os.File
	rel, err := filepath.Rel(s.Private, s.Carry)
	if s.Carry != "" && err == nil {
		from, err = openBeneath(s.Private, rel)
	} else {
		err = os.ErrNotExist
	}
	// Open files hold it until they are closed; its name is free at once.
	if unmountErr := unix.Unmount(s.Private, unix.MNT_DETACH); unmountErr != nil {
		r.engine.config.Log.Error("file system of a container not unmounted", "program", s.ID, logkey.Err, unmountErr)
	}
	return full, isolation.Carry(from, err, s.Carry, s.CarryMax)
}

// openBeneath opens a file of a directory as what it is: not through links of any kind.
func openBeneath(dir, rel string) (*os.File, error) {
	root, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(root)
	return isolation.OpenBeneath(root, rel)
}

// isMount reports whether a file system is mounted there.
func isMount(path string) bool {
	var here, above unix.Stat_t
	return unix.Lstat(path, &here) == nil && unix.Lstat(filepath.Dir(path), &above) == nil && here.Dev != above.Dev
}

// sweepMounts unmounts what an earlier life has mounted below a directory, but for what is kept.
func sweepMounts(dir string, keep map[string]bool, log *slog.Logger) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		log.Error("mounts not looked through", logkey.Err, err)
		return
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 5 || !strings.HasPrefix(fields[4], dir+"/") || keep[fields[4]] {
			continue
		}
		if err := unix.Unmount(fields[4], unix.MNT_DETACH); err != nil {
			log.Error("mount of an earlier life left", logkey.Path, fields[4], logkey.Err, err)
		}
	}
}
