package process

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestDesks starts programs from a process with many open files: they get theirs and no others, and leave none here; who reads their output comes to its end.
func TestDesks(t *testing.T) { //nolint:paralleltest // it counts descriptors
	if os.Geteuid() != 0 {
		t.Skip("it takes root to confine programs")
	}
	s, err := NewSpawner(2, Policy{Users: DefaultUsers})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for range 300 {
		f, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
	}
	broken := filepath.Join(t.TempDir(), "broken")
	if err := errors.Join(os.WriteFile(broken, []byte("\x7fELF of no machine"), 0o755), os.Chmod(filepath.Dir(broken), 0o755), os.Chmod(filepath.Dir(filepath.Dir(broken)), 0o755)); err != nil {
		t.Fatal(err)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	opened := func() int {
		list, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	one := func(args ...string) (out string, err error) {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		pid, err := s.Start(&Program{Args: args, Env: []string{"PATH=/bin"}, Dir: "/", Files: [3]int{int(null.Fd()), int(w.Fd()), int(w.Fd())}, NoNetwork: s.networks})
		w.Close()
		text, failed := io.ReadAll(r)
		if failed != nil {
			t.Fatal(failed)
		}
		if err == nil {
			for { // by its number: others may have children, too
				if _, failed := unix.Wait4(pid, nil, 0, nil); failed != unix.EINTR { //nolint:forbidigo // see above
					break
				}
			}
		}
		return string(text), err
	}
	if _, err := one("ls"); err != nil { // what is opened once
		t.Fatal(err)
	}
	before := opened()
	for range 10 {
		if out, err := one("ls", "/proc/self/fd"); err != nil || out != "0\n1\n2\n3\n" {
			t.Errorf("its files: %q, %v", out, err)
		}
		var fault *StartError
		if _, err := one(broken); !errors.As(err, &fault) {
			t.Errorf("a broken program: %v", err)
		}
	}
	if after := opened(); after != before {
		t.Errorf("%d files are open, %d were before", after, before)
	}
}
