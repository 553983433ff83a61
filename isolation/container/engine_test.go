package container_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mayfly/mayfly/integration/docker"
	"github.com/mayfly/mayfly/isolation"
	"github.com/mayfly/mayfly/isolation/container"
	"github.com/mayfly/mayfly/isolation/process"
)

// bench is an engine of Docker and one of ours.
type bench struct {
	t      *testing.T
	docker *docker.Engine
	dir    string
	config container.Config
	*container.Engine

	mu       sync.Mutex
	progress []string
}

// Run is the engine's, for a spec that the test goes on changing.
func (b *bench) Run(ctx context.Context, s isolation.Spec, started func(isolation.Started)) (isolation.Exit, error) {
	exit, err := b.Engine.Run(ctx, &s, started)
	if err != nil {
		return isolation.Exit{}, err
	}
	return *exit, nil
}

func newBench(t *testing.T, options ...docker.Option) *bench {
	t.Helper()
	b := &bench{t: t, docker: docker.Start(t, options...), dir: t.TempDir()}
	if err := os.Chmod(b.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	b.config = container.Config{Host: b.docker.Host, Owner: t.Name(), Dir: b.dir, Pull: container.PullMissing, Network: "host",
		User:      func(n int) (uid, gid uint32) { return 70000 + uint32(n), 70000 + uint32(n) },
		NewMemory: process.NewMemory, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
		Progress: func(id, words string) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.progress = append(b.progress, words)
		}}
	b.again()
	t.Cleanup(func() { b.Close() })
	return b
}

// again begins a new life.
func (b *bench) again() {
	b.t.Helper()
	if b.Engine != nil {
		b.Close()
	}
	e, err := container.New(b.config)
	if err != nil {
		b.t.Fatal(err)
	}
	b.Engine = e
}

// spec makes a program of shell commands.
func (b *bench) spec(id, script string) isolation.Spec {
	b.t.Helper()
	dir := filepath.Join(b.dir, id)
	own := filepath.Join(dir, "work")
	return isolation.Spec{ID: id, Image: docker.Image, Args: []string{"/bin/sh", "-c", script}, Env: []string{"OWN=" + own},
		Stdout: filepath.Join(dir, "out"), Stderr: filepath.Join(dir, "err"), OutputMax: 1 << 20, Grace: 300 * time.Millisecond,
		Private: own, Dirs: []string{"scratch"}, Carry: filepath.Join(own, "result"), CarryMax: 100, Note: []byte("note of " + id),
		Limits: isolation.Limits{MilliCPU: 500, Memory: 64 << 20, PIDs: 32}}
}

func (b *bench) read(id, name string) string {
	text, _ := os.ReadFile(filepath.Join(b.dir, id, name))
	return string(text)
}

// run runs a program to its end and releases it.
func (b *bench) run(s isolation.Spec) isolation.Exit {
	b.t.Helper()
	e, err := b.Run(b.t.Context(), s, nil)
	if err != nil {
		b.t.Errorf("%s: %v", s.ID, err)
	}
	b.Release(s.ID)
	return e
}

// nothingLeft fails the test where a container, a mount or a file of a program's is left.
func (b *bench) nothingLeft() {
	b.t.Helper()
	if left := b.docker.Containers(); len(left) > 0 {
		b.t.Errorf("containers left: %v", left)
	}
	if mounts, _ := os.ReadFile("/proc/self/mountinfo"); strings.Contains(string(mounts), b.dir) {
		b.t.Error("a mount is left")
	}
	for _, pattern := range []string{"/sys/fs/cgroup/mayfly-", "/sys/fs/cgroup/*/mayfly-"} {
		if groups, _ := filepath.Glob(pattern + b.config.Owner + "-*"); len(groups) > 0 {
			b.t.Errorf("control groups are left: %v", groups)
		}
	}
}

func TestEngine(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	t.Run("exits", b.exits)
	t.Run("confined", b.confined)
	t.Run("limits", b.limits)
	t.Run("input and output", b.inputAndOutput)
	t.Run("stops", b.stops)
	t.Run("faults", b.faults)
	t.Run("no devices", b.noDevices)
	t.Run("another life", b.anotherLife)
	t.Run("cut off", b.cutOff)
	t.Run("names", b.names)
	t.Run("engine killed", b.engineKilled)
	b.nothingLeft()
}

func (b *bench) exits(t *testing.T) {
	for code, script := range map[int]string{0: "true", 3: "exit 3", 137: "exit 137"} {
		if e := b.run(b.spec(fmt.Sprint("exit", code), script)); e.Code != code || e.Signal != 0 || e.OOMKills != 0 || e.StartedAt.IsZero() || e.FinishedAt.Before(e.StartedAt) {
			t.Errorf("exit %d: %+v", code, e)
		}
	}
	if e := b.run(b.spec("daemon", "setsid sleep 600 & exit 4")); e.Code != 4 {
		t.Errorf("a daemon left: %+v", e)
	}
	b.nothingLeft()
}

func (b *bench) confined(t *testing.T) {
	for name, c := range map[string]struct{ script, want string }{
		"user":         {"id -u; id -g", "70000\n70000\n"},
		"capabilities": {"grep -E '^(CapEff|CapBnd|NoNewPrivs)' /proc/self/status | tr -d '\\t0\\n'", "CapEff:CapBnd:NoNewPrivs:1"},
		"read-only":    {"touch /x /bin/x /etc/x 2>/dev/null; echo $?", "1\n"},
		"own":          {"touch $OWN/x $OWN/scratch/y /tmp/z && echo writes", "writes\n"},
		"init":         {"cat /proc/1/comm", "docker-init\n"},
	} {
		e := b.run(b.spec("confined-"+name, c.script))
		if got := b.read("confined-"+name, "out"); got != c.want {
			t.Errorf("%s: %q, want %q (%s, %+v)", name, got, c.want, b.read("confined-"+name, "err"), e)
		}
	}
	s := b.spec("no-network", "tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' \\n' || tail -n +3 /proc/net/dev | wc -l")
	s.Args[2] = "tail -n +3 /proc/net/dev | wc -l"
	s.NoNetwork = true
	if b.run(s); b.read("no-network", "out") != "1\n" {
		t.Errorf("network off: %q interfaces", b.read("no-network", "out"))
	}
}

func (b *bench) limits(t *testing.T) {
	e := b.run(b.spec("oom", "exec dd if=/dev/zero of=/dev/null bs=200M count=1"))
	if e.OOMKills == 0 || e.Signal != 9 {
		t.Errorf("over its memory: %+v", e)
	}
	for i := range 8 { // whichever word is quicker, of the kill or of the end
		if e := b.run(b.spec(fmt.Sprint("oom", i), "exec dd if=/dev/zero of=/dev/null bs=200M count=1")); e.OOMKills == 0 {
			t.Errorf("over its memory: %+v", e)
		}
	}
	if e := b.run(b.spec("kills-itself", "kill -9 $$")); e.OOMKills != 0 || e.Code != 137 {
		t.Errorf("killed itself: %+v", e)
	}
	e = b.run(b.spec("survives", "dd if=/dev/zero of=/dev/null bs=200M count=1; exit 0"))
	if e.Code != 0 || e.Signal != 0 {
		t.Errorf("survived: %+v", e)
	}
	e = b.run(b.spec("full", "head -c 50000000 /dev/zero >$OWN/scratch/x"))
	if e.Code == 0 || !e.DiskFull || e.OOMKills != 0 {
		t.Errorf("no room: %+v", e)
	}
	s := b.spec("burn", "i=0; while test $i -lt 300000; do i=$((i+1)); done; exec dd if=/dev/zero of=/dev/null bs=40M count=1")
	if e := b.run(s); e.Code != 0 || e.CPU < 50*time.Millisecond || e.MemoryPeak < 40<<20 || e.MemoryPeak > s.Limits.Memory {
		t.Errorf("usage: %+v", e)
	}
	s = b.spec("pids", "for i in $(seq 20); do sleep 5 >/dev/null 2>&1 & echo x; done | wc -l")
	s.Limits.PIDs = 8
	if b.run(s); !strings.Contains(b.read("pids", "err"), "fork") {
		t.Errorf("processes: %q, %q", b.read("pids", "out"), b.read("pids", "err"))
	}
	s = b.spec("core", "grep Cpus_allowed_list /proc/self/status | tr -d '\\t'")
	s.Limits.Cores = []int{1}
	if b.run(s); b.read("core", "out") != "Cpus_allowed_list:1\n" {
		t.Errorf("cores: %q", b.read("core", "out"))
	}
}

func (b *bench) inputAndOutput(t *testing.T) {
	s := b.spec("input", "cat; echo err >&2; echo 42 >$OWN/result")
	s.Stdin = filepath.Join(b.dir, "stdin")
	text := strings.Repeat("a line of input\n", 10000)
	if err := os.WriteFile(s.Stdin, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	e := b.run(s)
	if e.Code != 0 || b.read("input", "out") != text || b.read("input", "err") != "err\n" || b.read("input", "work/result") != "42\n" {
		t.Errorf("%d bytes, %q, %q, %+v", len(b.read("input", "out")), b.read("input", "err"), b.read("input", "work/result"), e)
	}
	s = b.spec("flood", "head -c 5000000 /dev/zero; ln -s /etc/passwd $OWN/result")
	s.OutputMax = 1000
	e = b.run(s)
	if out := b.read("flood", "out"); len(out) < 1000 || len(out) > 1200 || e.StdoutDropped == 0 || !strings.Contains(out, "output stopped at 1000 bytes") || e.CarryError != "it is a symbolic link" {
		t.Errorf("%d bytes kept: %+v", len(out), e)
	}
}

func (b *bench) stops(t *testing.T) {
	s := b.spec("timeout", "sleep 600")
	s.Timeout = 200 * time.Millisecond
	if e := b.run(s); e.Stopped != isolation.TimedOut || e.Signal != 15 && e.Signal != 9 {
		t.Errorf("timeout: %+v", e)
	}
	s = b.spec("deaf", "trap '' TERM; while :; do sleep 0.1; done")
	s.Timeout = 500 * time.Millisecond
	if e := b.run(s); e.Stopped != isolation.TimedOut || !e.Killed || e.Signal != 9 || e.OOMKills != 0 {
		t.Errorf("deaf: %+v", e)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	s = b.spec("asked", "trap 'exit 5' TERM; echo set; while :; do sleep 0.05; done")
	s.Grace = 30 * time.Second
	e, err := b.Run(ctx, s, func(isolation.Started) {
		go func() {
			for b.read("asked", "out") == "" {
				time.Sleep(5 * time.Millisecond)
			}
			cancel(nil)
		}()
	})
	b.Release("asked")
	if err != nil || e.Stopped != isolation.Asked || e.Code != 5 || e.Killed {
		t.Errorf("asked: %+v, %v", e, err)
	}
}

func (b *bench) faults(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*isolation.Spec)
		want   string
	}{
		"no-command": {func(s *isolation.Spec) { s.Args = []string{"/bin/nothing"} }, "no such file"},
		"no-such":    {func(s *isolation.Spec) { s.Args = []string{"nothing"} }, "no such file"},
		"no-args":    {func(s *isolation.Spec) { s.Args = nil }, "No command specified"},
		"directory":  {func(s *isolation.Spec) { s.Args = []string{"/etc"} }, "permission denied"},
	} {
		s := b.spec("fault-"+name, "")
		c.change(&s)
		if e := b.run(s); !strings.Contains(strings.ToLower(e.StartError), strings.ToLower(c.want)) {
			t.Errorf("%s: %q, want %q", name, e.StartError, c.want)
		}
	}
	b.mu.Lock()
	b.progress = nil
	b.mu.Unlock()
	// No registry is in reach here, which is the host's fault; a policy that forbids to ask is the task's.
	s := b.spec("no-registry", "true")
	s.Image = "127.0.0.1:1/nothing:1"
	if e, err := b.Run(t.Context(), s, nil); err == nil || !strings.Contains(err.Error(), "cannot pull the image 127.0.0.1:1/nothing:1") {
		t.Errorf("a registry out of reach: %+v, %v", e, err)
	}
	b.mu.Lock()
	if len(b.progress) < 2 || b.progress[0] != "pulls 127.0.0.1:1/nothing:1" || b.progress[len(b.progress)-1] != "" {
		t.Errorf("progress: %q", b.progress)
	}
	b.mu.Unlock()
	b.config.Pull = container.PullNever
	b.again()
	s = b.spec("never", "true")
	s.Image = "nothing:1"
	if e := b.run(s); !strings.Contains(e.StartError, "the image nothing:1 is not on this host") {
		t.Errorf("not pulled: %+v", e)
	}
	b.nothingLeft()
}

// names has programs with ids that Docker does not take apart run beside each other.
func (b *bench) names(t *testing.T) {
	first := b.spec("job:1", "while ! test -e $OWN/scratch/go; do sleep 0.05; done; exit 5")
	began, exits := make(chan struct{}), make(chan isolation.Exit, 1)
	go func() {
		e, err := b.Run(t.Context(), first, func(isolation.Started) { close(began) })
		if err != nil {
			t.Errorf("the first: %v", err)
			close(began)
		}
		exits <- e
	}()
	<-began
	if e := b.run(b.spec("job_1", "exit 6")); e.Code != 6 {
		t.Errorf("the second: %+v", e)
	}
	if err := os.WriteFile(filepath.Join(first.Private, "scratch/go"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if e := <-exits; e.Code != 5 {
		t.Errorf("the first: %+v", e)
	}
	b.Release(first.ID)
	b.nothingLeft()
}

// engineKilled kills Docker under containers, and starts it again: it ends what it finds, which is lost then, and not the program's
// failure.
func (b *bench) engineKilled(t *testing.T) {
	s := b.spec("lost", "sleep 600")
	began := make(chan struct{})
	exits := make(chan isolation.Exit, 1)
	go func() {
		e, err := b.Run(context.Background(), s, func(isolation.Started) { close(began) })
		if err != nil {
			t.Error(err)
		}
		exits <- e
	}()
	<-began
	b.docker.Kill()
	b.docker.Up()
	if e := <-exits; !e.Lost {
		t.Errorf("%+v", e)
	}
	b.Release(s.ID)
	if e := b.run(b.spec("after", "exit 2")); e.Code != 2 {
		t.Errorf("after that: %+v", e)
	}
}
