package keeper

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/mayfly/mayfly/isolation"
)

func TestExits(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, b *bench) {
		for _, code := range []int{0, 1, 2, 126, 137, 255} {
			if e := b.run(b.spec(fmt.Sprint("code", code), fmt.Sprintf("exit %d", code))); e.Code != code || e.Signal != 0 || e.Stopped != "" {
				t.Errorf("exit %d: %+v", code, e)
			}
		}
		for _, sig := range []int{1, 9, 11, 15} {
			if e := b.run(b.spec(fmt.Sprint("signal", sig), fmt.Sprintf("kill -%d $$", sig))); e.Signal != sig || e.Stopped != "" {
				t.Errorf("signal %d: %+v", sig, e)
			}
		}
		s := b.spec("io", `read line; echo "got $line"; echo oops >&2; env | grep -c . >&2; ulimit -c`)
		s.Stdin = filepath.Join(b.dir, "in")
		if err := os.WriteFile(s.Stdin, []byte("words\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		b.run(s)
		if out, errs := b.read("io.out"), b.read("io.err"); out != "got words\n0\n" || !strings.HasPrefix(errs, "oops\n") {
			t.Errorf("stdout %q, stderr %q", out, errs)
		}
		s = b.spec("both", "echo 1; echo 2 >&2; echo 3")
		s.Stderr = s.Stdout
		b.run(s)
		if out := b.read("both.out"); out != "1\n2\n3\n" {
			t.Errorf("both streams in one file: %q", out)
		}
		e := b.run(b.spec("busy", "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done"))
		if e.CPU <= 0 || e.MemoryPeak <= 0 || !e.FinishedAt.After(e.StartedAt) {
			t.Errorf("account = %+v", e)
		}
	})
}

func TestStartErrors(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	script := filepath.Join(b.dir, "script")
	if err := os.WriteFile(script, []byte("#!/no/such/interpreter\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	plain := filepath.Join(b.dir, "plain")
	if err := os.WriteFile(plain, []byte("text"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		change func(*isolation.Spec)
		want   string
	}{
		"no such command": {func(s *isolation.Spec) { s.Args = []string{"no-such-command"} }, "there is no such command in PATH=/usr/bin:/bin"},
		"no such file":    {func(s *isolation.Spec) { s.Args = []string{"/no/such/file"} }, "cannot start /no/such/file: it does not exist"},
		"not executable":  {func(s *isolation.Spec) { s.Args = []string{plain} }, "nothing that the worker's user may execute"},
		"directory":       {func(s *isolation.Spec) { s.Args = []string{b.dir} }, "it is a directory, or nothing"},
		"interpreter":     {func(s *isolation.Spec) { s.Args = []string{script} }, "the interpreter that"},
		"no directory":    {func(s *isolation.Spec) { s.Dir = "/no/such/dir" }, "cannot start in the working directory /no/such/dir"},
		"too long":        {func(s *isolation.Spec) { s.Env = append(s.Env, "X="+strings.Repeat("x", 4<<20)) }, "longer than the kernel takes"},
	} {
		s := b.spec(strings.ReplaceAll(name, " ", "-"), "true")
		tt.change(&s)
		if e := b.run(s); !strings.Contains(e.StartError, tt.want) {
			t.Errorf("%s: %+v, want %q", name, e, tt.want)
		}
	}
	s := b.spec("host", "true")
	s.Stdin = "/no/such/dir/in"
	if _, err := b.Run(t.Context(), s, nil); err == nil {
		t.Error("an input file that is not there is no error of the sandbox")
	}
}

func TestTimeout(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, b *bench) {
		s := b.spec("term", "sleep 600")
		s.Timeout = 50 * time.Millisecond
		if e := b.run(s); e.Stopped != isolation.TimedOut || e.Signal != 15 || e.Killed {
			t.Errorf("TERM suffices: %+v", e)
		}
		s = b.spec("tidy", "trap 'exit 7' TERM; while :; do sleep 0.01; done")
		s.Timeout, s.Grace = 2*time.Second, 30*time.Second
		if e := b.run(s); e.Stopped != isolation.TimedOut || e.Code != 7 || e.Killed {
			t.Errorf("exits in its grace: %+v", e)
		}
		exe, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		s = b.spec("deaf", "")
		s.Args, s.Env = []string{exe}, append(s.Env, "KEEPER_TEST_ROLE=deaf")
		s.Timeout = 3 * time.Second
		if e := b.run(s); e.Stopped != isolation.TimedOut || e.Signal != 9 || !e.Killed {
			t.Errorf("ignores TERM: %+v", e)
		}
		s = b.spec("frozen", "kill -STOP $$; sleep 600")
		s.Timeout, s.Grace = 2*time.Second, 30*time.Second
		if e := b.run(s); e.Stopped != isolation.TimedOut || e.Signal != 15 {
			t.Errorf("stopped itself: %+v", e)
		}
		s = b.spec("graceless", "trap '' TERM; sleep 600")
		s.Timeout, s.Grace = 50*time.Millisecond, 0
		if e := b.run(s); e.Signal != 9 || !e.Killed {
			t.Errorf("no grace: %+v", e)
		}
		s = b.spec("quick", "exit 5")
		s.Timeout = time.Minute
		if e := b.run(s); e.Stopped != "" || e.Code != 5 {
			t.Errorf("ended before its timeout: %+v", e)
		}
	})
}

func TestStopByContext(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, b *bench) {
		for name, cause := range map[string]error{"asked": nil, "killed": isolation.ErrKill} {
			ctx, cancel := context.WithCancelCause(t.Context())
			s := b.spec(name, "trap 'exit 3' TERM; echo set; while :; do sleep 0.01; done")
			s.Grace = time.Minute
			e, err := b.Run(ctx, s, func(isolation.Started) {
				go func() {
					b.until("the trap is set", func() bool { return b.read(name+".out") != "" })
					cancel(cause)
				}()
			})
			b.Release(s.ID)
			if err != nil || e.Stopped != isolation.Asked || (cause == nil) != (e.Code == 3) || (cause != nil) != e.Killed {
				t.Errorf("%s: %+v, %v", name, e, err)
			}
			cancel(nil)
		}
	})
}

// TestNothingSurvives has workers leave processes behind in all the ways there are.
func TestNothingSurvives(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, b *bench) {
		for name, script := range map[string]string{
			"background":  "sleep 600 & exit 0",
			"session":     "setsid sleep 600 & exit 0",
			"daemon":      "(setsid sh -c 'setsid sleep 600 & ' &) ; exit 0",
			"deaf-daemon": `setsid sh -c 'trap "" TERM HUP; echo up; sleep 600' & sleep 0.1; exit 0`,
			"holds-pipe":  "setsid sleep 600 >&1 2>&2 & echo said; exit 0",
		} {
			if e := b.run(b.spec(name, script)); e.Code != 0 || e.Signal != 0 {
				t.Errorf("%s: %+v", name, e)
			}
		}
		if out := b.read("holds-pipe.out"); out != "said\n" {
			t.Errorf("stdout = %q", out)
		}
		b.until("only the keeper is left", func() bool { return len(b.processes()) <= 1 })
	})
}

func TestOutputCap(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	flood := ofMany(1_000_000_000)
	s := b.spec("flood", fmt.Sprintf("head -c %d /dev/zero; echo end >&2", flood))
	s.OutputMax = 1000
	e := b.run(s)
	out := b.read("flood.out")
	if want := fmt.Sprintf("\n[mayfly: output stopped at 1000 bytes; %d more bytes were dropped]\n", flood-1000); len(out) != 1000+len(want) || !strings.HasSuffix(out, want) {
		t.Errorf("%d bytes are kept, ending with %q", len(out), out[max(0, len(out)-100):])
	}
	if e.StdoutDropped != int64(flood-1000) || e.StderrDropped != 0 || b.read("flood.err") != "end\n" {
		t.Errorf("%+v, stderr %q", e, b.read("flood.err"))
	}
	s = b.spec("exact", "head -c 1000 /dev/zero")
	s.OutputMax = 1000
	if e := b.run(s); e.StdoutDropped != 0 || len(b.read("exact.out")) != 1000 {
		t.Errorf("exactly the cap: %+v, %d bytes", e, len(b.read("exact.out")))
	}
	s = b.spec("closed", "exec >&- 2>&-; sleep 0.05; exit 6")
	if e := b.run(s); e.Code != 6 {
		t.Errorf("closed its output: %+v", e)
	}
}

// TestManagerDies kills a manager by SIGKILL: what ran goes on, what ended is held, and the next manager gets all of it.
// TestNoOutput has programs write nothing, and where nothing can be kept: the first makes no file, the second is told why, and how much was lost.
func TestNoOutput(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	if e := b.run(b.spec("silent", "exit 3")); e.Code != 3 || e.OutputError != "" {
		t.Errorf("exit = %+v", e)
	}
	for _, name := range []string{"silent.out", "silent.err"} {
		if _, err := os.Lstat(filepath.Join(b.dir, name)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is there: %v", name, err)
		}
	}
	s := b.spec("lost", "head -c 100000 /dev/zero; echo x >&2")
	s.Stdout, s.Stderr = "/proc/no/out", filepath.Join(b.dir, "later", "err")
	if e := b.run(s); e.Code != 0 || e.StdoutDropped != 100000 || e.StderrDropped != 0 || !strings.Contains(e.OutputError, "/proc/no") {
		t.Errorf("exit = %+v", e)
	}
	if text := b.read("later/err"); text != "x\n" {
		t.Errorf("output = %q", text)
	}
}

func TestManagerDies(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	m := exec.Command(os.Args[0], b.dir)
	m.Env = []string{"KEEPER_TEST_ROLE=manager"}
	m.Stderr = os.Stderr
	out, err := m.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Start(); err != nil {
		t.Fatal(err)
	}
	for lines, n := bufio.NewScanner(out), 0; n < 3 && lines.Scan(); n++ {
	}
	m.Process.Kill()
	m.Wait()
	if err := os.WriteFile(filepath.Join(b.dir, "go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var held []isolation.Held
	b.until("two have ended", func() bool {
		c := b.client()
		defer c.Close()
		held, err = c.Held(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		ended := 0
		for _, h := range held {
			if h.Exit != nil {
				ended++
			}
		}
		return ended == 2
	})
	if len(held) != 3 {
		t.Fatalf("held = %+v", held)
	}
	for _, h := range held {
		if string(h.Note) != "note of "+h.ID || h.Started.PID == 0 {
			t.Errorf("held = %+v", h)
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		if h.ID == "runs" {
			cancel(isolation.ErrKill)
		}
		started := 0
		e, err := b.Run(ctx, isolation.Spec{ID: h.ID}, func(st isolation.Started) {
			if started++; st != h.Started {
				t.Errorf("%s: started %+v, held %+v", h.ID, st, h.Started)
			}
		})
		want := map[string]isolation.Exit{"ends": {Code: 3}, "waits": {Code: 4}, "runs": {Signal: 9}}[h.ID]
		if err != nil || e.Code != want.Code || e.Signal != want.Signal || started != 1 {
			t.Errorf("%s: %+v, %v, started %d times", h.ID, e, err, started)
		}
		b.Release(h.ID)
		cancel(nil)
	}
}

// TestKeeperDies kills the keeper: every process of its workers dies, and the runs are told that they are lost.
func TestKeeperDies(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, b *bench) {
		var wg, up sync.WaitGroup
		for i := range 5 {
			up.Add(1)
			wg.Go(func() {
				e, err := b.Run(t.Context(), b.spec(fmt.Sprint("p", i), "setsid sleep 600 & sleep 600"), func(isolation.Started) { up.Done() })
				if err != nil || !e.Lost || e.StartedAt.IsZero() {
					t.Errorf("%+v, %v", e, err)
				}
			})
		}
		up.Wait()
		for _, p := range b.processes() {
			if strings.Contains(p, "mayfly") {
				pid, _ := strconv.Atoi(strings.Fields(p)[0])
				syscall.Kill(pid, syscall.SIGKILL)
			}
		}
		wg.Wait()
		if left := b.processes(); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
		// The next program gets a new keeper.
		if e := b.run(b.spec("next", "exit 9")); e.Code != 9 {
			t.Errorf("%+v", e)
		}
	})
}

// TestBothDie kills the manager and the keeper: the next manager sweeps what they left.
func TestBothDie(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, b *bench) {
		up := make(chan struct{})
		go b.Run(context.Background(), b.spec("p", "setsid sleep 600 & sleep 600"), func(isolation.Started) { close(up) })
		<-up
		b.until("the daemon runs", func() bool { return len(b.processes()) >= 4 })
		b.Close()
		for _, p := range b.processes() {
			if strings.Contains(p, "mayfly") {
				pid, _ := strconv.Atoi(strings.Fields(p)[0])
				syscall.Kill(pid, syscall.SIGKILL)
			}
		}
		b.Client = b.client()
		b.until("the keeper is dead", func() bool { return !b.alive() })
		held, err := b.Held(t.Context())
		if err != nil || len(held) != 0 {
			t.Errorf("held = %+v, %v", held, err)
		}
		b.until("all is swept", func() bool { return len(b.processes()) == 0 })
	})
}

// TestIdle looks at what is left when there was nothing to do for a while, and that the next program finds a new keeper.
func TestIdle(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, b *bench) {
		for i := range 3 {
			b.run(b.spec(fmt.Sprint("p", i), "true"))
			b.nothingLeft()
		}
	})
}

func TestManyAtOnce(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	var wg sync.WaitGroup
	for i := range ofMany(500) {
		wg.Go(func() {
			s := b.spec(fmt.Sprint("p", i), fmt.Sprintf("echo %d; exit %d", i, i%200))
			if e, err := b.Run(t.Context(), s, nil); err != nil || e.Code != i%200 {
				t.Errorf("%d: %+v, %v", i, e, err)
			}
			if out := b.read(s.ID + ".out"); out != fmt.Sprintln(i) {
				t.Errorf("%d: stdout %q", i, out)
			}
			b.Release(s.ID)
		})
	}
	wg.Wait()
}

func TestDetach(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	up, done := make(chan struct{}), make(chan error)
	go func() {
		_, err := b.Run(context.Background(), b.spec("p", "sleep 600"), func(isolation.Started) { close(up) })
		done <- err
	}()
	<-up
	b.Close()
	if err := <-done; !errors.Is(err, isolation.ErrDetached) {
		t.Errorf("Run = %v", err)
	}
	b.Client = b.client()
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(isolation.ErrKill)
	if e, err := b.Run(ctx, isolation.Spec{ID: "p"}, nil); err != nil || e.Signal != 9 {
		t.Errorf("%+v, %v", e, err)
	}
	b.Release("p")
}

// TestLongPath has a state directory whose path is longer than a socket's address may be.
func TestLongPath(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.Close()
	b.dir = filepath.Join(b.dir, strings.Repeat("long", 20), strings.Repeat("path", 20))
	if err := os.MkdirAll(b.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	b.Client = b.client()
	if e := b.run(b.spec("p", "exit 2")); e.Code != 2 {
		t.Errorf("%+v", e)
	}
}

// TestLastWords has a client ask for programs and vanish, and the next one connect at once: it is told of all of them.
func TestLastWords(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.run(b.spec("first", "true"))
	n := ofMany(200)
	c := b.client()
	b.Close()
	if _, err := c.connect(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		s := b.spec(fmt.Sprint("p", i), "exit 3")
		c.tell(&frame{Op: opRun, Spec: &s})
	}
	c.Close()
	b.Client = b.client()
	held, err := b.Held(t.Context())
	if err != nil || len(held) != n {
		t.Errorf("%d programs are held, %v; want %d", len(held), err, n)
	}
	for _, h := range held {
		if e, err := b.Run(t.Context(), isolation.Spec{ID: h.ID}, nil); err != nil || e.Code != 3 {
			t.Errorf("%+v, %v", e, err)
		}
		b.Release(h.ID)
	}
}
