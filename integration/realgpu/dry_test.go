package realgpu

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mayfly/mayfly/integration/fakegpu"
	"github.com/mayfly/mayfly/integration/need"
)

// compile makes a program or a library of one of the files in cuda/.
func compile(t *testing.T, source, out string, flags ...string) string {
	t.Helper()
	need.Command(t, "cc")
	args := append([]string{"-O2", "-Wall", "-Wextra", "-Werror", "-o", out, filepath.Join("cuda", source)}, flags...)
	if text, err := exec.Command("cc", append(args, "-ldl")...).CombinedOutput(); err != nil {
		t.Fatalf("cannot compile %s: %v\n%s", source, err, text)
	}
	return out
}

// TestTask has the CUDA program say what is wrong, where that is not the GPU.
func TestTask(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	task := compile(t, "task.c", filepath.Join(dir, "cuda-task"))
	broken, foreign := filepath.Join(dir, "broken"), filepath.Join(dir, "foreign")
	if err := errors.Join(os.Mkdir(broken, 0o755), os.Mkdir(foreign, 0o755), os.WriteFile(filepath.Join(broken, "libcuda.so.1"), nil, 0o644),
		os.WriteFile(filepath.Join(dir, "foreign.c"), []byte("int cuInit(unsigned flags) { return (int)flags; }\n"), 0o644)); err != nil {
		t.Fatal(err)
	}
	if text, err := exec.Command("cc", "-shared", "-fPIC", "-o", filepath.Join(foreign, "libcuda.so.1"), filepath.Join(dir, "foreign.c")).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	for name, tt := range map[string]struct {
		libraries string
		args      string
		code      int
		says      string
	}{
		"no library":           {broken, "sum", 6, "cannot find the CUDA driver's library"},
		"no library, none":     {broken, "none", 6, "cannot find the CUDA driver's library"},
		"a library that lacks": {foreign, "hold 1 1", 6, "it lacks cuDriverGetVersion"},
		"no mode":              {"", "", 2, "use: cuda-task sum"},
		"no number":            {"", "hold x 1", 2, "use: cuda-task sum"},
		"too many words":       {"", "sum 1", 2, "use: cuda-task sum"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd := exec.Command(task, strings.Fields(tt.args)...)
			cmd.Env = []string{"LD_LIBRARY_PATH=" + tt.libraries}
			out, _ := cmd.CombinedOutput()
			if code := cmd.ProcessState.ExitCode(); code != tt.code || !strings.Contains(string(out), tt.says) || strings.Count(string(out), "\n") != 1 {
				t.Errorf("exit code %d: %s", code, out)
			}
		})
	}
}

// TestDryRun has the checks run with stand-ins for NVML and CUDA, on three GPUs of which one is divided.
func TestDryRun(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		need.Missing(t, "Mayfly keeps workers from GPUs as root only")
	}
	need.Command(t, "go")
	dir := t.TempDir()
	d := &driver{t: t, fake: fakegpu.New(t, fakegpu.Options{GPUs: 3})}
	d.fake.EnableMIG(2, "1g.10gb", "1g.10gb")
	m := &machine{mayfly: filepath.Join(dir, "mayfly"), task: compile(t, "task.c", filepath.Join(dir, "cuda-task")), smi: d.smi(dir), root: d.fake.Root() + "/",
		memory: "256MiB", hold: 2 * time.Second, short: 5,
		settings: []string{"MAYFLY_NVML=" + d.fake.Library, "MAYFLY_TEST_GPU_ROOT=" + d.fake.Root(), "MAYFLY_CPUS=4", "MAYFLY_MEMORY=1GiB"}}
	// As "make build" does.
	if text, err := exec.Command("go", "build", "-tags", "netgo,osusergo", "-ldflags", "-extldflags=-Wl,-z,lazy", "-o", m.mayfly, "github.com/mayfly/mayfly").CombinedOutput(); err != nil {
		t.Fatalf("cannot build the binary: %v\n%s", err, text)
	}
	libraries, err := os.MkdirTemp(place, "mayfly-cuda-") // workers have /tmp to themselves
	if err == nil {
		err = os.Chmod(libraries, 0o755)
	}
	if err != nil {
		need.Missing(t, "cannot make a directory that workers see: %v", err)
	}
	t.Cleanup(func() { os.RemoveAll(libraries) })
	compile(t, "fake.c", filepath.Join(libraries, "libcuda.so.1"), "-shared", "-fPIC")
	m.variables = map[string]string{"LD_LIBRARY_PATH": libraries, "FAKE_CUDA": d.listen(filepath.Join(libraries, "socket"))}

	r := &report{path: filepath.Join(dir, "report.md"), dry: true}
	(&suite{machine: m, report: r}).checks(t)
	text, err := os.ReadFile(r.path)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s", text)
	if n := r.counts(); n[passed] != len(r.lines) || len(r.lines) < 15 {
		t.Errorf("%v", n)
	}
	if !strings.HasPrefix(string(text), "# Dry run") || strings.Contains(string(text), "real GPUs") || strings.Contains(string(text), "cut short") {
		t.Error("the report does not say what it is")
	}
}

// driver is what the CUDA stand-ins of all programs speak to: it tells NVML's stand-in who is on which GPU.
type driver struct {
	t    *testing.T
	fake *fakegpu.Host
	mu   sync.Mutex // whoever changes the GPUs
}

// smi makes a program that says what nvidia-smi would.
func (d *driver) smi(dir string) string {
	d.t.Helper()
	script := "#!/bin/sh\ncase $1 in --query-compute-apps*) exit 0;; esac\n"
	for i := range 3 {
		g := d.fake.GPU(i)
		script += fmt.Sprintf("echo '%d, %s, %s, %s'\n", g.Memory>>20, g.UUID, g.Name, fakegpu.Driver)
	}
	path := filepath.Join(dir, "nvidia-smi")
	if err := os.WriteFile(path, []byte(script), 0o755); err != nil {
		d.t.Fatal(err)
	}
	return path
}

// listen serves programs until the test ends.
func (d *driver) listen(path string) string {
	d.t.Helper()
	l, err := net.Listen("unix", path)
	if err == nil {
		err = os.Chmod(path, 0o777)
	}
	if err != nil {
		d.t.Fatal(err)
	}
	var all sync.WaitGroup
	d.t.Cleanup(func() {
		l.Close()
		all.Wait()
	})
	all.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() { d.serve(conn.(*net.UnixConn)) })
		}
	})
	return path
}

// serve answers a program until it ends, and with it what it has.
func (d *driver) serve(conn *net.UnixConn) {
	defer conn.Close()
	raw, err := conn.SyscallConn()
	if err != nil {
		d.t.Error(err)
		return
	}
	pid, uuid, bytes := 0, "", uint64(0)
	_ = raw.Control(func(fd uintptr) {
		if c, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			pid = int(c.Pid)
		}
	})
	defer func() { d.place(pid, uuid, 0) }()
	for in := bufio.NewScanner(conn); in.Scan(); {
		verb, word, _ := strings.Cut(in.Text(), " ")
		n, _ := strconv.ParseUint(word, 10, 64)
		answer := "ok"
		switch verb {
		case "gpus":
			answer = d.list()
		case "use":
			uuid = word
		case "allocate":
			if !d.place(pid, uuid, bytes+n) {
				answer = "full"
			} else {
				bytes += n
			}
		case "release":
			bytes -= n
			d.place(pid, uuid, bytes)
		case "fault":
			d.fake.Xid(int(uuid[len(uuid)-1]-'0'), 31)
		}
		if _, err := fmt.Fprintln(conn, answer); err != nil {
			return
		}
	}
}

// list names all devices, each with a file that only its holder can open.
func (d *driver) list() string {
	var text []string
	for i := range 3 {
		g := d.fake.GPU(i)
		if !g.MIG {
			text = append(text, g.UUID, fmt.Sprintf("%s/dev/nvidia%d", d.fake.Root(), g.Minor))
		}
		for _, in := range g.Instances {
			caps, _ := os.ReadFile(fmt.Sprintf("%s/proc/driver/nvidia/capabilities/gpu%d/mig/gi%d/access", d.fake.Root(), g.Minor, in.GI))
			minor := strings.Fields(string(caps))[1]
			text = append(text, in.UUID, d.fake.Root()+"/dev/nvidia-caps/nvidia-cap"+minor)
		}
	}
	return strings.Join(text, " ")
}

// place has a process use so much of a device, if there is room.
func (d *driver) place(pid int, uuid string, bytes uint64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if bytes > 80<<30 {
		return false
	}
	d.fake.RemoveProcess(pid)
	if bytes > 0 {
		d.fake.AddProcess(uuid, pid, bytes)
	}
	d.fake.Update(func(gpus []*fakegpu.GPU) {
		for _, g := range gpus {
			g.Busy = 0
			if len(g.Processes) > 0 {
				g.Busy = 97
			}
		}
	})
	return true
}
