package integration

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/mayfly/mayfly/integration/need"
	"github.com/mayfly/mayfly/manager"
	"github.com/mayfly/mayfly/queue"
)

// expect runs a command and checks its exit code and what it says.
func (h *host) expect(code int, stdout, stderr string, args ...string) string {
	h.tb.Helper()
	out, errs, got := h.mayfly("", args...)
	if got != code || !strings.Contains(out, stdout) || !strings.Contains(errs, stderr) {
		h.tb.Errorf("mayfly %s: exit code %d, want %d\nstdout: %s (want %q)\nstderr: %s (want %q)", strings.Join(args, " "), got, code, out, stdout, errs, stderr)
	}
	return out
}

// TestSubmitWait holds the exit codes and the output of submit --wait.
func TestSubmitWait(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.start()
	h.expect(0, "hello\n", "warn\n", "submit", "--wait", "--shell", "echo hello; echo warn >&2")
	h.expect(7, "", "", "submit", "--wait", "--", "sh", "-c", "exit 7")
	h.expect(143, "", "SIGTERM", "submit", "--wait", "--shell", "kill -TERM $$")
	h.expect(124, "", "longer than its timeout of 200ms", "submit", "--wait", "--timeout", "200ms", "--", "sleep", "100")
	h.expect(124, "", "longer than its timeout of 100ms", "submit", "--wait", "--timeout", "0.1", "--memory", "1000000000", "--", "sleep", "100")
	h.expect(125, "", "there is no such command", "submit", "--wait", "--", "no-such-command")
	h.expect(0, "first\nsecond\n", "attempt 1 failed, trying again", "submit", "--wait", "--max-attempts", "2", "--backoff", "100ms", "--shell",
		`test "$MAYFLY_ATTEMPT" = 2 && { echo second; exit 0; }; echo first; exit 1`)
	// However quickly one follows the other.
	h.expect(0, "first\nsecond\nthird\n", "attempt 2 failed, trying again", "submit", "--wait", "--max-attempts", "3", "--backoff", "1ms", "--shell",
		`case $MAYFLY_ATTEMPT in 1) echo first; exit 1;; 2) echo second; exit 1;; esac; echo third`)
	h.expect(0, `{"x":1}`, "", "submit", "--wait", "--stdin", `{"x":1}`, "--", "cat")
	h.expect(0, "a b\n", "", "submit", "--wait", "-e", "WHO=a b", "--shell", `echo "$WHO"`)
	out := h.expect(0, "", "", "submit", "--wait", "--json", "--shell", `echo '{"answer": 42}' > $MAYFLY_RESULT`)
	var r queue.Result
	if err := json.Unmarshal([]byte(out), &r); err != nil || r.State != queue.Succeeded || !strings.Contains(string(r.Result), "42") {
		t.Errorf("result = %s, %v", out, err)
	}
	h.expect(2, "", "nothing to run", "submit")
	h.expect(2, "", "unknown flag: --tiemout", "submit", "--tiemout", "3s", "--", "true")
	h.expect(2, "", "do", "submit", "--file", "x", "--", "true")
	h.expect(1, "", `resources.memory is "8 gigs"`, "submit", "--memory", "8 gigs", "--", "true")
	h.expect(1, "", "this host lends 4 cores", "submit", "--cpu", "5", "--", "true")
	h.expect(1, "", `this host serves only`, "submit", "--pool", "elsewhere", "--", "true")
	h.expect(1, "", "cannot open /no/such/file", "submit", "--file", "/no/such/file")
}

// TestLiveOutput reads the output of a running task through submit --wait before the task ends.
func TestLiveOutput(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.start()
	gate := filepath.Join(h.shared, "gate")
	cmd := exec.CommandContext(t.Context(), binary, "submit", "--wait", "--id", "live", "--shell", fmt.Sprintf("echo early; while ! test -e %s; do sleep 0.02; done; echo late", gate))
	cmd.Env = h.environ()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, len("early\n"))
	if _, err := io.ReadFull(out, line); err != nil || string(line) != "early\n" {
		t.Fatalf("read %q, %v", line, err)
	}
	if n := h.running(); n != 1 {
		t.Errorf("%d tasks run", n)
	}
	h.expect(0, "early\n", "", "logs", "live")
	follower := exec.CommandContext(t.Context(), binary, "logs", "-f", "live")
	follower.Env = h.environ()
	followed, err := follower.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := follower.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(followed, line); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(gate, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, r := range map[string]io.Reader{"submit --wait": out, "logs -f": followed} {
		if rest, err := io.ReadAll(r); err != nil || string(rest) != "late\n" {
			t.Errorf("%s: then %q, %v", name, rest, err)
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	if err := follower.Wait(); err != nil {
		t.Error(err)
	}
}

// TestCommands goes through the other commands.
func TestCommands(t *testing.T) {
	t.Parallel()
	types := t.TempDir()
	if err := os.WriteFile(filepath.Join(types, "process_data.yaml"), []byte("command: [cat]\nresources: {cpu: 0.5}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	h := newHost(t, "MAYFLY_TYPES_DIR="+types)
	h.expect(1, "", "it is not running", "ps")
	h.start()
	h.expect(0, "serving", "", "info")

	if id := h.submit(`{"id": "job_456", "type": "process_data", "params": {"dataset": "report_Q3"}}`); id != "job_456" {
		t.Errorf("id = %s", id)
	}
	if r := h.result("job_456"); r.State != queue.Succeeded || r.StdoutTail != "{\"dataset\": \"report_Q3\"}\n" && r.StdoutTail != "{\"dataset\":\"report_Q3\"}\n" {
		t.Errorf("result = %+v", r)
	}
	h.expect(0, "succeeded", "", "show", "job_456")
	h.expect(0, "report_Q3", "", "logs", "job_456")
	h.expect(0, "job_456", "", "ps", "-a")
	h.expect(1, "", "knows no task", "show", "nobody")
	h.expect(1, "", "no such task type", "submit", "--type", "unknown")

	// Waiting, running and queued tasks are cancelled.
	h.submit(`{"id": "runs", "command": ["sleep", "1000"], "resources": {"cpu": 4}}`)
	h.until("it runs", func() bool { return h.running() == 1 })
	h.submit(`{"id": "waits", "command": ["true"], "resources": {"cpu": 4}}`)
	for i := range 20 {
		h.submit(fmt.Sprintf(`{"id": "q%d", "command": ["true"], "resources": {"cpu": 4}, "labels": {"batch": "7"}}`, i))
	}
	h.expect(0, "waits for 4 cores", "", "ps")
	h.expect(0, "q19", "", "ps", "--label", "batch=7", "--json")
	h.expect(0, "cancelled while it waited", "", "cancel", "waits")
	h.expect(0, "cancelled while it was queued", "", "cancel", "q19")
	h.expect(0, "told to stop", "", "cancel", "runs")
	for _, id := range []string{"runs", "waits", "q19"} {
		if r := h.result(id); r.State != queue.Cancelled || r.Cause != queue.CauseCancelled {
			t.Errorf("result = %+v", r)
		}
	}
	h.expect(1, "", "knows no task", "cancel", "nobody")
	h.expect(0, "it has ended", "", "cancel", "job_456")
	h.expect(130, "", "cancelled", "wait", "runs")
	if r := h.result("q18"); r.State != queue.Succeeded {
		t.Errorf("result = %+v", r)
	}

	// Dead letters.
	h.submit(`{"id": "fails", "shell": "echo why >&2; exit 9"}`)
	h.result("fails")
	h.expect(0, "exited with code 9", "", "dead", "list")
	h.expect(0, `"shell": "echo why`, "", "dead", "show", "fails")
	h.expect(0, "put back", "", "dead", "requeue", "fails")
	h.until("it has failed again", func() bool {
		out, _, _ := h.mayfly("", "dead", "list", "--json")
		return strings.Contains(out, "fails")
	})
	h.expect(0, "dropped", "", "dead", "drop", "fails")
	h.expect(1, "", "no dead letter", "dead", "drop", "fails")

	// A batch with a bad line.
	lines := `{"id": "l1", "command": ["true"]}` + "\n\n" + `{"id": "l2", "comand": ["true"]}` + "\n" + `{"id": "l3", "command": ["true"]}`
	out, errs, code := h.mayfly(lines, "submit", "--lines", "-")
	if code != 1 || out != "l1\nl3\n" || !strings.Contains(errs, "line 3: comand") || !strings.Contains(errs, "1 of 3 documents were refused") {
		t.Errorf("exit code %d\nstdout: %s\nstderr: %s", code, out, errs)
	}
	h.expect(0, "MAYFLY_AMQP_URL", "", "run", "--help")
	h.expect(0, "128+n", "", "help", "exit-codes")
	h.expect(0, "__start_mayfly", "", "completion", "bash")
	h.expect(0, "control groups", "", "check")
}

// TestWrongSettings holds that a wrong value stops the start with a sentence that names it.
func TestWrongSettings(t *testing.T) {
	t.Parallel()
	for setting, want := range map[string]string{
		"MAYFLY_CPUS=many":                             "cannot use MAYFLY_CPUS=\"many\": it is a number, as 2 or 0.5",
		"MAYFLY_CPUS=0.0001":                           "MAYFLY_CPUS=0.0001: it is a number of cores, at least 0.001",
		"MAYFLY_WINDOW=":                               "cannot use MAYFLY_WINDOW=\"\": it is a whole number, as 3",
		"MAYFLY_TASK_PIDS=99999999999999999999":        "it is out of range",
		"MAYFLY_POOLS=default, default":                "the pool \"default\" is there twice",
		"MAYFLY_ALLOW=types":                           "MAYFLY_TYPES_DIR",
		"MAYFLY_GPUS=":                                 "cannot use MAYFLY_GPUS=\"\": name the GPUs",
		"MAYFLY_GPUS=0,77":                             "cannot use MAYFLY_GPUS=0,77: ",
		"MAYFLY_DOCKER=x":                              "cannot use MAYFLY_DOCKER=x: ",
		"MAYFLY_AMQP_CA=/etc/ca.pem":                   "it is for MAYFLY_AMQP_URL, which is not set",
		"MAYFLY_MANAGEMENT_URL=http://x":               "it is for MAYFLY_AMQP_URL, which is not set",
		"MAYFLY_SERVICE_PORT_API=7070":                 "set enableServiceLinks: false",
		"MAYFLY_PORT_7070_TCP_ADDR=10.0.0.1":           "set enableServiceLinks: false",
		"MAYFLY_MEMORY=8 gigs":                         "MAYFLY_MEMORY=\"8 gigs\"",
		"MAYFLY_POOL=x":                                "cannot use MAYFLY_POOL: there is no such variable",
		"MAYFLY_POOLS=a.b":                             "MAYFLY_POOLS=a.b",
		"MAYFLY_ON_STOP=never":                         "MAYFLY_ON_STOP=never",
		"MAYFLY_DECLARE=maybe":                         "MAYFLY_DECLARE=maybe",
		"MAYFLY_ALLOW=everything":                      "MAYFLY_ALLOW=\"everything\"",
		"MAYFLY_DRAIN_TIMEOUT=-1s":                     "MAYFLY_DRAIN_TIMEOUT",
		"MAYFLY_TYPES_DIR=/no/such":                    "/no/such",
		"MAYFLY_AMQP_URL=http://x":                     "RabbitMQ URL (MAYFLY_AMQP_URL)",
		"MAYFLY_AMQP_URL=amqp://user:12#34@127.0.0.1/": "a password must be percent-encoded",
		"MAYFLY_AMQP_URL=amqp://127.0.0.1:99999":       "its port is 99999; use one from 1 to 65535",
		"MAYFLY_MAX_ATTEMPTS=0":                        "MAYFLY_MAX_ATTEMPTS=0",
		"MAYFLY_HISTORY=0":                             "cannot use MAYFLY_HISTORY=0: it is a number of tasks, at least 1",
		"MAYFLY_SOCKET=" + strings.Repeat("x", 200):    "a socket's path has at most 107 bytes",
	} {
		h := newHost(t, setting)
		out, errs, code := h.mayfly("", "run")
		if code != 1 || out != "" || !strings.Contains(errs, want) {
			t.Errorf("%s: exit code %d: %s%s", setting, code, out, errs)
		}
	}
	h := newHost(t)
	h.start()
	h.expect(1, "", "another manager uses the state directory", "run")
}

// TestAPIErrors holds the form of errors.
func TestAPIErrors(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.start()
	for _, tt := range []struct {
		method, path, body string
		status             int
		want               string
	}{
		{"POST", "/v1/tasks", `{"command": []}`, 400, `"field":"command"`},
		{"POST", "/v1/tasks", strings.Repeat(" ", queue.MaxBody+1), 400, "body"},
		{"GET", "/v1/tasks/nobody", "", 404, "knows no task"},
		{"GET", "/v1/tasks/nobody/logs", "", 404, "knows no task"},
		{"GET", "/v1/tasks?ended=x", "", 400, "a number"},
		{"GET", "/nowhere", "", 404, "there is no /nowhere"},
		{"PUT", "/v1/tasks", "", 405, "only GET"},
		{"DELETE", "/v1/dead/a%2Fb", "", 404, "no dead letter"},
	} {
		req, err := http.NewRequestWithContext(t.Context(), tt.method, "http://mayfly"+tt.path, strings.NewReader(tt.body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := h.http.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != tt.status || !strings.Contains(string(body), tt.want) || !json.Valid(body) {
			t.Errorf("%s %s: %s %s, want %d with %q", tt.method, tt.path, resp.Status, body, tt.status, tt.want)
		}
	}
}

// TestIdle looks at what an idle host holds: the manager, and nothing else.
func TestIdle(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.start()
	h.expect(0, "", "", "submit", "--wait", "--", "true")
	h.until("only the manager is left", func() bool { return len(h.processes()) == 0 })
	for _, pattern := range []string{"state/attempts/*/work/scratch", "state/attempts/*/stdin", "state/keeper.sock"} {
		if left, _ := filepath.Glob(filepath.Join(h.dir, pattern)); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
	}
	// A worker finds nothing of the manager's environment.
	out := h.expect(0, "MAYFLY_SCRATCH=", "", "submit", "--wait", "--", "env")
	for _, secret := range []string{"MAYFLY_STATE_DIR", "MAYFLY_SOCKET", "GOPATH", "USER=root"} {
		if strings.Contains(out, secret) {
			t.Errorf("the worker's environment holds %s:\n%s", secret, out)
		}
	}
	if !strings.Contains(out, "CUDA_VISIBLE_DEVICES=\n") {
		t.Error("CUDA_VISIBLE_DEVICES is not set and empty")
	}
}

// TestInterrupt has Ctrl-C stop the waiting, not the task.
func TestInterrupt(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.start()
	for _, cancels := range []bool{false, true} {
		id := fmt.Sprint("task-", cancels)
		cmd := exec.CommandContext(t.Context(), binary, "submit", "--wait", "--id", id, fmt.Sprintf("--cancel-on-interrupt=%t", cancels), "--", "sleep", "1000")
		cmd.Env = h.environ()
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		h.until("it runs", func() bool { var v manager.View; return h.get("/v1/tasks/"+id, &v) == nil && v.PID != 0 })
		if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
		cmd.Wait()
		if code := cmd.ProcessState.ExitCode(); code != 130 {
			t.Errorf("exit code %d", code)
		}
		if !cancels {
			var said strings.Builder
			waits := exec.CommandContext(t.Context(), binary, "wait", id)
			waits.Env, waits.Stderr = h.environ(), &said
			if err := waits.Start(); err != nil {
				t.Fatal(err)
			}
			h.until("it has asked the manager, its handler being set by then", func() bool {
				files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", waits.Process.Pid))
				return slices.ContainsFunc(files, func(file string) bool {
					target, _ := os.Readlink(file)
					return strings.HasPrefix(target, "socket:")
				})
			})
			if err := waits.Process.Signal(syscall.SIGINT); err != nil {
				t.Fatal(err)
			}
			waits.Wait()
			if code := waits.ProcessState.ExitCode(); code != 130 || said.String() != "mayfly: stopped waiting; the task goes on: \"mayfly cancel "+id+"\" cancels it\n" {
				t.Errorf("wait: exit code %d: %s", code, said.String())
			}
			if n := h.running(); n != 1 {
				t.Errorf("%d tasks run, want the one that was waited for", n)
			}
			h.expect(0, "", "", "cancel", id)
		}
		if r := h.result(id); r.State != queue.Cancelled {
			t.Errorf("result = %+v", r)
		}
	}
}

// TestNoNetworkHere has a manager that lacks the right to set networks up refuse tasks without a network, in place of failing each.
func TestNoNetworkHere(t *testing.T) {
	t.Parallel()
	need.Command(t, "setpriv")
	h := newHost(t)
	h.enter = []string{"setpriv", "--bounding-set", "-net_admin"}
	h.start()
	h.expect(1, "", "resources.network is false: this host cannot switch a worker's network off", "submit", "--no-network", "--", "true")
	h.expect(0, "", "", "submit", "--wait", "--", "true")
}
