package integration

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/mayfly/mayfly/integration/fence"
	"github.com/mayfly/mayfly/queue"
)

// hostile runs what means harm, as its only task's shell or command, beside a neighbour.
type hostile struct {
	task  map[string]any
	cause queue.Cause
	// output is what it must have said, as far as that is known; check looks further.
	output string
	check  func(t *testing.T, r queue.Result)
}

// python makes a task of a Python program.
func python(lines ...string) map[string]any {
	return map[string]any{"command": []string{"python3", "-c", strings.Join(lines, "\n")}}
}

func shell(script string, pairs ...any) map[string]any {
	task := map[string]any{"shell": script}
	for i := 0; i < len(pairs); i += 2 {
		task[pairs[i].(string)] = pairs[i+1]
	}
	return task
}

// TestHostileTasks has tasks take, see and leave what they can. Each ends with its true cause, a neighbour does not notice, and
// nothing is left: no process, mount, control group or file.
func TestHostileTasks(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("it takes root to confine tasks")
	}
	enter := fence.New(t)
	h := newHost(t, "MAYFLY_CPUS=2", "MAYFLY_OUTPUT_MAX=1MiB")
	h.enter = enter
	h.start()
	listener, err := net.Listen("tcp", "127.0.0.1:0") // a port that is free now
	if err != nil {
		t.Fatal(err)
	}
	port := listener.Addr().(*net.TCPAddr).Port
	listener.Close()

	neighbour := h.submit(`{"id":"neighbour","resources":{"cpu":1,"memory":"64MiB"},"shell":"grep ^Cpus_allowed_list /proc/self/status; echo mine >$MAYFLY_SCRATCH/x; while ! test -e ` +
		h.shared + `/go; do sleep 0.05; done; cat $MAYFLY_SCRATCH/x; exit 3"}`)
	h.until("the neighbour runs", func() bool { return h.running() == 1 })
	manager := h.cmd.Process.Pid
	limits := map[string]any{"cpu": 1, "memory": "64MiB", "pids": 100}

	for name, x := range map[string]hostile{
		"memory hog":         {shell("exec dd if=/dev/zero of=/dev/null bs=300M count=1"), queue.CauseOOM, "", nil},
		"memory hog's child": {shell("dd if=/dev/zero of=/dev/null bs=300M count=1"), queue.CauseOOM, "", nil},
		"fork bomb":          {shell("f() { f | f & }; f; sleep 600", "timeout", "1s", "grace", "100ms"), queue.CauseTimeout, "", nil},
		"cpu hog":            {shell("grep ^Cpus_allowed_list /proc/self/status; for i in 1 2 3 4 5 6 7 8; do while :; do :; done & done; wait", "timeout", "1s", "grace", "0s"), queue.CauseTimeout, "", nil},
		"flood":              {shell("head -c 10G /dev/zero"), queue.CauseNone, "", nil},
		"disk filler":        {shell("head -c 200M /dev/zero >$MAYFLY_SCRATCH/x", "disk", "32MiB"), queue.CauseDiskFull, "", nil},
		"tmp filler":         {shell("head -c 200M /dev/zero >/tmp/x"), queue.CauseDiskFull, "", nil},
		"many files":         {python("import os", "n = 0", "try:", " while True:", "  open('/tmp/%d' % n, 'w').close(); n += 1", "except OSError: print('stopped'); raise SystemExit(1)"), queue.CauseDiskFull, "stopped\n", nil},
		"signal-ignorer": {shell("trap '' TERM INT HUP; while :; do sleep 0.1; done", "timeout", "500ms", "grace", "200ms"), queue.CauseTimeout, "", func(t *testing.T, r queue.Result) {
			if r.Signal != "SIGKILL" {
				t.Errorf("ended by %q", r.Signal)
			}
		}},
		"daemon with a port": {python("import os, socket, time", fmt.Sprintf("s = socket.create_server(('127.0.0.1', %d))", port), "if os.fork() == 0:", " os.setsid()",
			" if os.fork() == 0: time.sleep(600)", " os._exit(0)", "time.sleep(0.2)"), queue.CauseNone, "", func(t *testing.T, _ queue.Result) {
			if l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err != nil {
				t.Errorf("the port is not free: %v", err)
			} else {
				l.Close()
			}
		}},
		"tree of 500": {shell("t() { test $1 -gt 0 && for i in 1 2 3 4 5 6 7 8 9 10; do sleep 600 & done; test $1 -gt 1 && setsid sh -c \"$(command -v true)\"; }; for i in $(seq 50); do t 1; done; exit 0", "pids", 600, "memory", "512MiB"), queue.CauseNone, "", nil},
		"reader": {python("import glob, os, socket", "seen = []", "def look(what, f):", " try: seen.append(what) if f() else None", " except OSError: pass",
			fmt.Sprintf("look('environment', lambda: open('/proc/%d/environ').read())", manager), fmt.Sprintf("look('command line', lambda: open('/proc/%d/cmdline').read())", manager),
			fmt.Sprintf("look('state', lambda: [f for f in glob.glob('%s/state/**', recursive=True) if os.path.isfile(f)])", h.dir),
			fmt.Sprintf("look('history', lambda: open('%s/state/history.db').read(1))", h.dir),
			"look('shadow', lambda: open('/etc/shadow').read())", "look('docker', lambda: os.path.exists('/var/run/docker.sock') or os.path.exists('/run/docker.sock'))",
			fmt.Sprintf("s = socket.socket(socket.AF_UNIX); look('api', lambda: s.connect('%s') or True)", h.socket),
			fmt.Sprintf("k = socket.socket(socket.AF_UNIX); look('keeper', lambda: k.connect('%s/state/keeper.sock') or True)", h.dir),
			"look('others', lambda: [p for p in glob.glob('/proc/[0-9]*') if int(p[6:]) != os.getpid()])", "look('disks', lambda: glob.glob('/dev/[sv]d*') + glob.glob('/dev/loop*'))",
			"print(seen)"), queue.CauseNone, "[]\n", nil},
		"climber": {python("import ctypes, os", "c = ctypes.CDLL(None, use_errno=True)", "got = []", "def attempt(what, r):", " if r != -1: got.append(what)",
			fmt.Sprintf("attempt('traces the manager', c.ptrace(16, %d, 0, 0))", manager), fmt.Sprintf("attempt('signals the manager', c.kill(%d, 0))", manager),
			"attempt('mounts', c.mount(b'tmpfs', b'/tmp', b'tmpfs', 0, None))", "attempt('unshares users', c.unshare(0x10000000))", "attempt('unshares mounts', c.unshare(0x20000))",
			"attempt('becomes root', c.setuid(0))", "attempt('chroots', c.chroot(b'/tmp'))", "attempt('has modules', c.syscall(313, -1, b'', 0))",
			"attempt('makes devices', c.mknod(b'/tmp/d', 0o60666, 0xfe00))", "attempt('raises its limits', c.setpriority(0, 0, -20))",
			"import shutil, subprocess; shutil.copy('/bin/id', '/tmp/id'); os.chmod('/tmp/id', 0o6755)", "if b'uid=0' in subprocess.run(['/tmp/id'], capture_output=True).stdout: got.append('setuid')",
			"print(got)"), queue.CauseNone, "[]\n", nil},
	} {
		t.Run(name, func(t *testing.T) {
			resources := map[string]any{}
			for k, v := range limits {
				resources[k] = v
			}
			for _, k := range []string{"disk", "pids", "memory"} {
				if v, ok := x.task[k]; ok {
					resources[k] = v
					delete(x.task, k)
				}
			}
			id := strings.NewReplacer(" ", "-", "'", "").Replace(name)
			x.task["id"], x.task["resources"] = id, resources
			body, err := json.Marshal(x.task)
			if err != nil {
				t.Fatal(err)
			}
			h.submit(string(body))
			r := h.result(id)
			if r.Cause != x.cause || x.output != "" && r.StdoutTail != x.output {
				t.Errorf("%s (%s), %q %q, want %s, %q", r.Cause, r.Message, r.StdoutTail, r.StderrTail, x.cause, x.output)
			}
			if x.check != nil {
				x.check(t, r)
			}
		})
	}
	hog := h.result("cpu-hog")
	if err := os.WriteFile(filepath.Join(h.shared, "go"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	r := h.result(neighbour)
	lines := strings.Split(r.StdoutTail, "\n")
	if r.ExitCode == nil || *r.ExitCode != 3 || !slices.Contains(lines, "mine") {
		t.Errorf("the neighbour: %+v", r)
	}
	if cores := strings.TrimSpace(hog.StdoutTail); cores == "" || slices.Contains(lines, cores) {
		t.Errorf("the hog was on %q, its neighbour on %q", cores, lines[0])
	}
	for _, pattern := range []string{"state/attempts/*/work/*", "state/attempts/*/stdin", "state/disk-*"} {
		if left, _ := filepath.Glob(filepath.Join(h.dir, pattern)); len(left) > 0 {
			t.Errorf("files left: %v", left)
		}
	}
}
