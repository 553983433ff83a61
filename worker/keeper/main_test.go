package keeper

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/mayfly/mayfly/isolation"
	"github.com/mayfly/mayfly/isolation/process"
)

// TestMain runs the test binary as a keeper, as a manager or as a worker where the environment says so.
func TestMain(m *testing.M) {
	switch os.Getenv("KEEPER_TEST_ROLE") {
	case "keeper":
		if err := Main(os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	case "manager":
		manage(os.Args[1])
	case "stranger":
		stranger(os.Args[1])
		os.Exit(0)
	case "passer":
		passRoot(os.Args[1])
		os.Exit(0)
	case "taker":
		takeRoot(os.Args[1])
		os.Exit(0)
	case "deaf":
		signal.Ignore(syscall.SIGTERM)
		fmt.Println("deaf")
		for {
			time.Sleep(time.Hour) // select would be a deadlock, which ends a program without threads of C
		}
	}
	goleak.VerifyTestMain(m)
}

// bench is a state directory and a client of its keeper.
type bench struct {
	t   testing.TB
	dir string
	*Client
}

// Run is the client's, for a spec that the test goes on changing.
func (b *bench) Run(ctx context.Context, s isolation.Spec, started func(isolation.Started)) (isolation.Exit, error) {
	exit, err := b.Client.Run(ctx, &s, started)
	if err != nil {
		return isolation.Exit{}, err
	}
	return *exit, nil
}

// modes are the two ways of holding a worker's processes together.
var modes = map[string][]string{"cgroups": nil, "marks": {noCgroups + "=1"}}

func eachMode(t *testing.T, test func(t *testing.T, b *bench)) {
	for name, env := range modes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, newBench(t, env...))
		})
	}
}

func newBench(t testing.TB, env ...string) *bench {
	t.Helper()
	b := &bench{t: t, dir: t.TempDir()}
	b.Client = b.client(env...)
	t.Cleanup(func() {
		b.Close()
		b.nothingLeft()
		if t.Failed() {
			text, _ := os.ReadFile(filepath.Join(b.dir, logName))
			t.Logf("keeper's log:\n%s", text)
		}
	})
	return b
}

func (b *bench) client(env ...string) *Client {
	return New(Config{Dir: b.dir, Argv: []string{"/proc/self/exe"}, Policy: process.Policy{Off: true}, Env: append(env, "KEEPER_TEST_ROLE=keeper"),
		Idle: 200 * time.Millisecond, Log: slog.New(slog.NewTextHandler(b.t.Output(), nil))})
}

// spec makes a program of shell commands.
func (b *bench) spec(id, script string) isolation.Spec {
	return isolation.Spec{ID: id, Args: []string{"/bin/sh", "-c", script}, Env: []string{"PATH=/usr/bin:/bin", "DIR=" + b.dir}, Dir: b.dir,
		Stdout: filepath.Join(b.dir, id+".out"), Stderr: filepath.Join(b.dir, id+".err"), OutputMax: 1 << 20, Grace: 200 * time.Millisecond,
		Note: []byte("note of " + id)}
}

// run runs a program to its end and releases it.
func (b *bench) run(s isolation.Spec) isolation.Exit {
	b.t.Helper()
	e, err := b.Run(context.Background(), s, nil)
	if err != nil {
		b.t.Fatalf("%s: %v", s.ID, err)
	}
	b.Release(s.ID)
	return e
}

func (b *bench) read(name string) string {
	text, _ := os.ReadFile(filepath.Join(b.dir, name))
	return string(text)
}

// until waits for what only polling can see.
func (b *bench) until(what string, ok func() bool) {
	b.t.Helper()
	for limit := time.Now().Add(30 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(limit) {
			b.t.Fatalf("waited in vain until %s", what)
		}
	}
}

// processes lists what of the bench lives, the keeper included.
func (b *bench) processes() []string {
	var all []string
	names, _ := filepath.Glob("/proc/[0-9]*")
	for _, name := range names {
		if name == fmt.Sprintf("/proc/%d", os.Getpid()) {
			continue
		}
		args, _ := os.ReadFile(name + "/cmdline")
		env, _ := os.ReadFile(name + "/environ")
		if strings.Contains(string(args), b.dir) || strings.Contains(string(env), b.dir) {
			if stat, err := os.ReadFile(name + "/stat"); err == nil && !strings.Contains(string(stat), ") Z ") {
				all = append(all, filepath.Base(name)+" "+strings.ReplaceAll(string(args), "\x00", " "))
			}
		}
	}
	return all
}

func (b *bench) groupDirs() []string {
	found, _ := filepath.Glob("/sys/fs/cgroup/" + groupName(b.dir))
	more, _ := filepath.Glob("/sys/fs/cgroup/*/" + groupName(b.dir))
	return append(found, more...)
}

// nothingLeft fails the test where a process, a control group or a socket is left once the keeper has nothing to do.
func (b *bench) nothingLeft() {
	b.t.Helper()
	b.until(fmt.Sprintf("nothing is left: %v %v", b.processes(), b.groupDirs()), func() bool {
		return len(b.processes()) == 0 && len(b.groupDirs()) == 0
	})
	for _, name := range []string{socketName, placeName} {
		if _, err := os.Lstat(filepath.Join(b.dir, name)); err == nil {
			b.t.Errorf("%s is left", name)
		}
	}
}

// manage is a manager that runs what lies in DIR/specs... until it is killed: three programs, one of which ends.
func manage(dir string) {
	c := New(Config{Dir: dir, Argv: []string{"/proc/self/exe"}, Policy: process.Policy{Off: true}, Env: []string{"KEEPER_TEST_ROLE=keeper"}, Log: slog.Default()})
	for id, script := range map[string]string{"ends": "exit 3", "waits": "while ! test -e $DIR/go; do sleep 0.01; done; exit 4", "runs": "sleep 600"} {
		b := &bench{dir: dir}
		s := b.spec(id, script)
		go c.Run(context.Background(), &s, func(isolation.Started) { fmt.Println(id) })
	}
	select {}
}

// ofMany is how many of something that is done by the thousand: a tenth with -short, for emulated machines, where the start of a program takes a quarter of a second.
func ofMany(n int) int {
	if testing.Short() {
		return n / 10
	}
	return n
}
