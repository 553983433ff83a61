package container

import (
	"bufio"
	"encoding/json"
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
	if err := isolation.Lay(s); err != nil {
		return err
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
	if err := isolation.Lay(s); err != nil { // what was covered
		return err
	}
	for _, name := range s.Dirs {
		if err := os.Lchown(filepath.Join(s.Private, name), int(uid), int(gid)); err != nil {
			return fmt.Errorf("cannot give the program its directory: %w", err)
		}
	}
	if err := errors.Join(os.Chmod(s.Private, 0o700), os.Lchown(s.Private, int(uid), int(gid))); err != nil {
		return fmt.Errorf("cannot give the program its directory: %w", err)
	}
	return nil
}

// unmount undoes that, takes the file that is to be carried out with it, and says whether there was room left. Whoever goes on after us,
// at whatever point, finds the same.
func (r *run) unmount() (full bool, fault string) {
	private := r.spec.Private
	if private == "" {
		return false, ""
	}
	if isMount(private) {
		r.setAside()
		// Open files hold it until they are closed; its name is free at once.
		if err := unix.Unmount(private, unix.MNT_DETACH); err != nil {
			r.engine.config.Log.Error("file system of a container not unmounted", "program", r.spec.ID, logkey.Err, err)
		}
	}
	a := r.takeAside()
	return a.Full, a.Fault
}

// aside is what is written down beside a file system before it is unmounted.
type aside struct {
	Full  bool   `json:"full,omitempty"`
	Fault string `json:"fault,omitempty"` // why the file is not carried out
}

// asideOf and carriedOf name what lies beside a program's directory from the unmounting to the release: what was found, and the file that is
// carried out, till its place is not covered any more.
func asideOf(private string) string   { return private + ".found" }
func carriedOf(private string) string { return private + ".carried" }

// forgetAside removes what was written down, once nobody can ask for it any more.
func forgetAside(private string) {
	if private != "" {
		os.Remove(asideOf(private))
		os.Remove(fedOf(private))
	}
}

// setAside takes out of the program's file system what is to outlive it.
func (r *run) setAside() {
	s := &r.spec
	var st unix.Statfs_t
	a := aside{Full: unix.Statfs(s.Private, &st) == nil && isolation.Full(&st)}
	if rel, err := filepath.Rel(s.Private, s.Carry); s.Carry != "" && err == nil {
		os.Remove(carriedOf(s.Private)) // of an earlier life that did not come to its end
		from, err := openBeneath(s.Private, rel)
		a.Fault = isolation.Carry(from, err, carriedOf(s.Private), s.CarryMax)
	}
	text, err := json.Marshal(a)
	if err == nil && a != (aside{}) {
		err = os.WriteFile(asideOf(s.Private), text, 0o600)
	}
	if err != nil {
		r.engine.config.Log.Error("findings of a container not kept", "program", s.ID, logkey.Err, err)
	}
}

// takeAside puts the file that was set aside where it belongs, and returns what was found; nothing where there was nothing to say.
func (r *run) takeAside() (a aside) {
	s := &r.spec
	text, err := os.ReadFile(asideOf(s.Private))
	if err == nil {
		err = json.Unmarshal(text, &a)
	}
	if moved := os.Rename(carriedOf(s.Private), s.Carry); moved != nil && !errors.Is(moved, os.ErrNotExist) {
		a.Fault = "it cannot be read: " + moved.Error()
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		r.engine.config.Log.Error("findings of a container not read", "program", s.ID, logkey.Err, err)
	}
	return a
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
