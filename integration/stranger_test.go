package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/mayfly/mayfly/integration/need"
)

// TestHostileLocalUser has a user of the host, who is no worker, try what the files and processes of a manager let them do: nothing.
func TestHostileLocalUser(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		need.Missing(t, "it takes root to be another user")
	}
	h := newHost(t)
	if err := os.Chmod(h.dir, 0o755); err != nil { // as /var/lib and /run are
		t.Fatal(err)
	}
	h.start()
	h.expect(0, "", "", "submit", "--wait", "--id", "ended", "--shell", "echo secret; echo '\"secret\"' >$MAYFLY_RESULT")
	h.submit(`{"id": "runs", "stdin": "secret", "environment": {"SECRET": "secret"}, "shell": "echo secret; cat; sleep 600"}`)
	h.until("it runs", func() bool { return h.running() == 1 })
	worker := h.tasks()[0].PID
	keeper := h.keeperPID()
	program := filepath.Join(h.shared, "mayfly")
	text, err := os.ReadFile(binary)
	if err == nil {
		err = os.WriteFile(program, text, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	stranger := func(name string, args ...string) string {
		cmd := exec.CommandContext(t.Context(), name, args...)
		cmd.Env = append(h.environ(), "PATH=/usr/bin:/bin")
		cmd.Dir = "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		out, _ := cmd.CombinedOutput()
		return string(out)
	}
	said := stranger("/usr/bin/python3", "-c", strings.Join([]string{
		"import ctypes, glob, os, socket, sys", "got = []",
		"def attempt(what, f):", " try:", "  if f() is not False: got.append(what)", " except OSError: pass",
		fmt.Sprintf("state, api, pids = '%s/state', '%s', [%d, %d, %d]", h.dir, h.socket, h.cmd.Process.Pid, keeper, worker),
		"for s in [api, state + '/keeper.sock']: attempt('connects to ' + s, lambda: socket.socket(socket.AF_UNIX).connect(s))",
		"for d in [state, state + '/attempts', state + '/attempts/runs.1']:", " attempt('lists ' + d, lambda: os.listdir(d))", " attempt('writes to ' + d, lambda: open(d + '/x', 'w'))",
		"for f in ['history.db', 'queue.db', 'lock', 'keeper.log', 'keeper.lock', 'keeper.cgroup', 'attempts/runs.1/stdout', 'attempts/runs.1/stdin', 'attempts/ended.1/stdout', 'attempts/ended.1/work/result']:",
		" attempt('reads ' + f, lambda: open(state + '/' + f))", " attempt('writes ' + f, lambda: open(state + '/' + f, 'a'))", " attempt('removes ' + f, lambda: os.remove(state + '/' + f))",
		"for p in pids:", " attempt('signals %d' % p, lambda: os.kill(p, 0))", " attempt('traces %d' % p, lambda: ctypes.CDLL(None).ptrace(16, p, 0, 0) == 0)",
		" for f in ['environ', 'mem', 'root/etc/passwd', 'cwd', 'fd/0']: attempt('reads %s of %d' % (f, p), lambda: open('/proc/%d/%s' % (p, f)))",
		"for g in glob.glob('/sys/fs/cgroup/**/mayfly-*/**/cgroup.procs', recursive=True): attempt('joins ' + g, lambda: open(g, 'w').write(str(os.getpid())))",
		"print(got)"}, "\n"))
	if said != "[]\n" {
		t.Errorf("a stranger: %s", said)
	}
	for _, args := range [][]string{{"ps"}, {"submit", "--", "true"}, {"logs", "runs"}, {"drain"}, {"cancel", "runs"}} {
		if said := stranger(program, args...); !strings.Contains(said, "permission denied") {
			t.Errorf("mayfly %v: %s", args, said)
		}
	}
	// What they could do in another's name: a keeper for the same directory, a manager.
	for want, args := range map[string][]string{"permission denied": {"keeper", filepath.Join(h.dir, "state")}, "it is not ours": {"run"}} {
		if said := stranger(program, args...); !strings.Contains(said, want) {
			t.Errorf("mayfly %v: %s", args, said)
		}
	}
	if h.running() != 1 || h.keeperPID() != keeper {
		t.Error("the task does not run as before")
	}
	h.expect(0, "", "", "cancel", "runs")
	h.result("runs")
}
