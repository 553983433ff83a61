package worker

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mayfly/mayfly/isolation"
	"github.com/mayfly/mayfly/queue"
)

// instant is a sandbox in which a program is a function.
type instant struct {
	program func(isolation.Spec) isolation.Exit
}

func (s instant) Run(_ context.Context, spec *isolation.Spec, started func(isolation.Started)) (*isolation.Exit, error) {
	if err := isolation.Lay(spec); err != nil {
		return nil, err
	}
	started(isolation.Started{PID: 1, At: time.Now()})
	exit := s.program(*spec)
	return &exit, nil
}
func (instant) Held(context.Context) ([]isolation.Held, error) { return nil, nil }
func (instant) Release(string)                                 {}

// variable reads a variable of a program's environment.
func variable(s isolation.Spec, name string) string {
	for _, pair := range s.Env {
		if value, ok := strings.CutPrefix(pair, name+"="); ok {
			return value
		}
	}
	return ""
}

func runner(t *testing.T, program func(isolation.Spec) isolation.Exit) *Files {
	return New(instant{program}, Config{Dir: t.TempDir(), OutputMax: 100, Tail: 10, Log: slog.New(slog.DiscardHandler)})
}

func attempt(t queue.Task) *Attempt {
	t.ID, t.Pool = "t", "default"
	return &Attempt{Task: t, Number: 2, Host: "h", Lease: Lease{MilliCPU: 1500, Memory: 1 << 20}}
}

func TestFilesOfAnAttempt(t *testing.T) {
	t.Parallel()
	var spec isolation.Spec
	r := runner(t, func(s isolation.Spec) isolation.Exit {
		spec = s
		in, err := os.ReadFile(s.Stdin)
		if err != nil || string(in) != "{\"a\":1}\n" {
			t.Errorf("stdin = %q, %v", in, err)
		}
		for name, text := range map[string]string{s.Stdout: "0123456789abcdef\xff", s.Stderr: "short", variable(s, "MAYFLY_RESULT"): `{"answer": 42}`,
			filepath.Join(variable(s, "MAYFLY_SCRATCH"), "junk"): "x"} {
			if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
				t.Error(err)
			}
		}
		return isolation.Exit{}
	})
	a := attempt(queue.Task{Command: []string{"true"}, Params: []byte(`{"a":1}`), Environment: map[string]string{"K": "v", "PATH": "/mine"}})
	o, err := r.Run(t.Context(), a, nil)
	if err != nil || o.Cause != queue.CauseNone || string(o.Result) != `{"answer": 42}` || o.StdoutTail != "789abcdef\uFFFD" || o.StderrTail != "short" {
		t.Errorf("outcome = %+v, %v", o, err)
	}
	for name, want := range map[string]string{"MAYFLY_TASK_ID": "t", "MAYFLY_ATTEMPT": "2", "MAYFLY_HOST": "h", "MAYFLY_POOL": "default",
		"MAYFLY_CPUS": "1.5", "MAYFLY_MEMORY_BYTES": "1048576", "K": "v", "PATH": "/mine"} {
		if got := variable(spec, name); got != want {
			t.Errorf("%s=%s, want %s", name, got, want)
		}
	}
	dir := filepath.Join(r.config.Dir, "t.2")
	for _, name := range []string{"work/scratch", "stdin"} {
		if _, err := os.Lstat(filepath.Join(dir, name)); err == nil {
			t.Errorf("%s is left", name)
		}
	}
	if out, _ := r.Output("t.2"); out != filepath.Join(dir, "stdout") {
		t.Errorf("output lies at %s", out)
	}
	r.Sweep(func(id string) bool { return id == "t.2" })
	if _, err := os.Stat(dir); err != nil {
		t.Error("swept what was to be kept")
	}
	r.Sweep(func(string) bool { return false })
	if _, err := os.Stat(dir); err == nil {
		t.Error("not swept")
	}
}

// TestHostileResults has workers leave what must not be read.
func TestHostileResults(t *testing.T) {
	t.Parallel()
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte(`"secret"`), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		leave func(path string) error
		want  string
	}{
		"a link": {func(p string) error { return os.Symlink(secret, p) }, "it is a symbolic link"},
		"a hard link": {func(p string) error {
			if os.Geteuid() != 0 {
				return os.Symlink(secret, p) // it takes root to have two users
			}
			return errors.Join(os.Chown(filepath.Dir(p), 65534, -1), os.Link(secret, p))
		}, "it is a"},
		"a device":     {func(p string) error { return unix.Mknod(p, unix.S_IFCHR|0o600, 0x105) }, "it is no regular file"},
		"a socket":     {func(p string) error { return unix.Mknod(p, unix.S_IFSOCK|0o600, 0) }, "ignored"},
		"deep nesting": {func(p string) error { return os.WriteFile(p, bytes.Repeat([]byte("["), maxResult), 0o600) }, "does not hold one JSON value"},
		"nesting that JSON allows": {func(p string) error {
			return os.WriteFile(p, []byte(strings.Repeat("[", 9999)+strings.Repeat("]", 9999)), 0o600)
		}, "its arrays and objects are nested deeper than 64"},
		"a pipe":          {func(p string) error { return unix.Mkfifo(p, 0o600) }, "it is no regular file"},
		"a directory":     {func(p string) error { return os.Mkdir(p, 0o700) }, "it is no regular file"},
		"too much":        {func(p string) error { return os.WriteFile(p, make([]byte, maxResult+1), 0o600) }, "it has 1048577 bytes"},
		"no JSON":         {func(p string) error { return os.WriteFile(p, []byte("{} {}"), 0o600) }, "does not hold one JSON value"},
		"no UTF-8":        {func(p string) error { return os.WriteFile(p, []byte("\"\xff\""), 0o600) }, "does not hold one JSON value"},
		"nothing in it":   {func(p string) error { return os.WriteFile(p, nil, 0o600) }, ""},
		"output replaced": {func(p string) error { return os.Symlink(secret, filepath.Join(filepath.Dir(p), "../stdout")) }, ""},
	} {
		r := runner(t, func(s isolation.Spec) isolation.Exit {
			if err := tt.leave(variable(s, "MAYFLY_RESULT")); err != nil {
				t.Error(err)
			}
			return isolation.Exit{}
		})
		o, err := r.Run(t.Context(), attempt(queue.Task{Shell: "x"}), nil)
		if err != nil || o.Result != nil || !strings.Contains(o.Message, tt.want) || (tt.want == "") != (o.Message == "") || o.StdoutTail != "" {
			t.Errorf("%s: outcome = %+v, %v", name, o, err)
		}
		if o.Cause != queue.CauseNone {
			t.Errorf("%s: cause = %s: the worker itself succeeded", name, o.Cause)
		}
	}
}

// TestRemoveStaysInside holds that an id that is a path removes nothing.
func TestRemoveStaysInside(t *testing.T) {
	t.Parallel()
	r := runner(t, nil)
	victim := filepath.Join(filepath.Dir(r.config.Dir), "victim.1")
	if err := os.Mkdir(victim, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"../victim.1", "..", ".", "", "/", victim, "a/../../victim.1"} {
		if err := r.Remove(id); err == nil {
			t.Errorf("%q is removed", id)
		}
	}
	for _, dir := range []string{victim, r.config.Dir} {
		if _, err := os.Stat(dir); err != nil {
			t.Error(err)
		}
	}
}

func TestSandboxFails(t *testing.T) {
	t.Parallel()
	r := runner(t, func(isolation.Spec) isolation.Exit { return isolation.Exit{} })
	for dir, why := range map[string]string{"/no/such/directory": "no such file or directory", full(t): "no space left on device"} {
		r.config.Dir = dir
		o, err := r.Run(t.Context(), attempt(queue.Task{Shell: "x"}), nil)
		if err != nil || o.Cause != queue.CauseHostLost || !strings.HasPrefix(o.Message, "cannot make the attempt's directory") || !strings.HasSuffix(o.Message, why) {
			t.Errorf("outcome = %+v, %v", o, err)
		}
	}
}

// full is a directory with no room.
func full(t *testing.T) string {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=4096"); err != nil {
		t.Skip("it takes root: ", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	if err := os.WriteFile(filepath.Join(dir, "all"), make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestNothingMade runs a worker that writes nothing, in a sandbox that has its own place for what it has to itself: nothing is made on the host.
func TestNothingMade(t *testing.T) {
	t.Parallel()
	r := New(elsewhere{}, Config{Dir: t.TempDir(), OutputMax: 100, Tail: 10, Log: slog.New(slog.DiscardHandler)})
	old := filepath.Join(r.config.Dir, "t.2")
	if err := os.Mkdir(old, 0o700); err != nil { // of a task that had the same id
		t.Fatal(err)
	}
	if o, err := r.Run(t.Context(), attempt(queue.Task{Shell: "x"}), nil); err != nil || o.Cause != queue.CauseNone || o.Message != "" {
		t.Errorf("outcome = %+v, %v", o, err)
	}
	if _, err := os.Lstat(old); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the attempt's directory is there: %v", err)
	}
}

// elsewhere is a sandbox that needs nothing of the host.
type elsewhere struct{ instant }

func (elsewhere) Run(context.Context, *isolation.Spec, func(isolation.Started)) (*isolation.Exit, error) {
	return &isolation.Exit{}, nil
}
