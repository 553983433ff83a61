package integration

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/mayfly/mayfly/integration/docker"
)

// The ways of others to run many short programs, measured as BenchmarkThroughput measures ours: `true`, four at a time. Each has the settings that suit
// this work best; docs/performance.md says what each does and does not do. integration/setup-peers.sh installs them.

// peer is one of them.
type peer struct {
	name string
	// tasks of a round: some seconds of work.
	tasks int
	// prepare gets it ready. What it returns runs so many tasks, and tells how long that took.
	prepare func(b *testing.B) (run func(tasks int) time.Duration)
}

var peers = []peer{
	{"exec", batch, fourAtOnce("/bin/true")},
	{"xargs", batch, reader("xargs", "-P4", "-n1", "/bin/true")},
	{"parallel", batch / 2, reader("parallel", "--will-cite", "-j4", "/bin/true")},
	// As confined as it is in BenchmarkSpawn.
	{"bubblewrap", batch, fourAtOnce("bwrap", "--ro-bind", "/", "/", "--dev", "/dev", "--tmpfs", "/tmp", "--unshare-ipc", "--new-session", "--cap-drop", "ALL",
		"--die-with-parent", "/bin/true")},
	{"docker-run", 40, dockerRun},
	{"rabbitmq-cli-consumer/classic", batch, cliConsumer("classic")},
	{"rabbitmq-cli-consumer/quorum", batch, cliConsumer("quorum")},
	{"celery", batch, celery(false)},
	{"celery-process-per-task", 100, celery(true)},
	{"slurm-array", 100, slurmArray},
	{"slurm-steps", 100, slurmSteps},
}

// BenchmarkPeers measures the rate of each.
func BenchmarkPeers(b *testing.B) {
	for _, p := range peers {
		b.Run(p.name, func(b *testing.B) {
			run := p.prepare(b)
			var took time.Duration
			for b.Loop() {
				took += run(p.tasks)
			}
			b.ReportMetric(float64(b.N*p.tasks)/took.Seconds(), "tasks/s")
			b.ReportMetric(0, "ns/op")
		})
	}
	b.Run("systemd-run", systemdRun)
}

// absent says on the output which peer is not measured, and why: of a benchmark that is skipped nothing is printed.
func absent(b *testing.B, format string, args ...any) {
	b.Helper()
	fmt.Printf("MISSING %s: %s\n", b.Name(), fmt.Sprintf(format, args...))
	b.SkipNow()
}

// installed ends the benchmark where one of the programs is absent.
func installed(b *testing.B, names ...string) {
	b.Helper()
	for _, name := range names {
		if _, err := exec.LookPath(name); err != nil {
			absent(b, "%s is not installed: run make setup-peers", name)
		}
	}
}

func asRoot(b *testing.B) {
	b.Helper()
	if os.Geteuid() != 0 {
		absent(b, "it takes root")
	}
}

// fourAtOnce starts a program for each task, and waits for it, from four goroutines.
func fourAtOnce(args ...string) func(*testing.B) func(int) time.Duration {
	return func(b *testing.B) func(int) time.Duration {
		installed(b, args[0])
		return func(tasks int) time.Duration {
			begin := time.Now()
			var started atomic.Int64
			var group sync.WaitGroup
			for range 4 {
				group.Go(func() {
					for started.Add(1) <= int64(tasks) {
						if err := exec.Command(args[0], args[1:]...).Run(); err != nil {
							b.Error(err)
						}
					}
				})
			}
			group.Wait()
			return time.Since(begin)
		}
	}
}

// reader is a program that reads tasks, one a line, and ends when all have been run.
func reader(args ...string) func(*testing.B) func(int) time.Duration {
	return func(b *testing.B) func(int) time.Duration {
		installed(b, args[0])
		home := b.TempDir()
		return func(tasks int) time.Duration {
			cmd := exec.Command(args[0], args[1:]...)
			cmd.Stdin = strings.NewReader(numbers(tasks))
			cmd.Env = append(os.Environ(), "HOME="+home)
			begin := time.Now()
			if out, err := cmd.CombinedOutput(); err != nil {
				b.Fatalf("%v: %s", err, out)
			}
			return time.Since(begin)
		}
	}
}

// numbers are so many lines.
func numbers(count int) string {
	var lines strings.Builder
	for i := range count {
		fmt.Fprintln(&lines, i)
	}
	return lines.String()
}

// dockerRun makes a container for each task, with the command that people use. (BenchmarkContainer compares ours with it.)
func dockerRun(b *testing.B) func(int) time.Duration {
	installed(b, "dockerd", "docker")
	asRoot(b)
	d := docker.Start(b)
	return fourAtOnce("docker", "-H", d.Host, "run", "--rm", "--network", "host", docker.Image, "/bin/true")(b)
}

// background runs a program with what it starts until stop, which returns what it printed, or until the benchmark ends; it is killed with this process, too.
func background(b *testing.B, dir string, env []string, args ...string) (stop func() string) {
	b.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	started, ended := make(chan error), make(chan struct{})
	go func() {
		runtime.LockOSThread() // its end is the parent's death
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
			close(ended)
		}
	}()
	if err := <-started; err != nil {
		b.Fatal(err)
	}
	stop = sync.OnceValue(func() string {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(20 * time.Second):
		}
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		<-ended
		return out.String()
	})
	b.Cleanup(func() {
		if text := stop(); b.Failed() {
			b.Logf("%s printed: %s", args[0], tail(text, 3000))
		}
	})
	return stop
}

// steady measures by what is left to do: from the moment in which a twentieth of the tasks is gone, for starting up is measured nowhere, to the one in which
// none is left, scaled to all of them.
func steady(b *testing.B, what string, tasks int, left func() int) time.Duration {
	b.Helper()
	var begin, moved time.Time
	first, last := 0, -1
	for ; ; time.Sleep(10 * time.Millisecond) {
		n := left()
		if n != last {
			last, moved = n, time.Now()
		}
		if first == 0 && n <= tasks-tasks/20 {
			begin, first = time.Now(), n
		} else if first > 0 && n == 0 {
			return time.Since(begin) * time.Duration(tasks) / time.Duration(first)
		}
		if time.Since(moved) > patienceLimit {
			b.Fatalf("%s stands still with %d of %d tasks left", what, n, tasks)
		}
	}
}
