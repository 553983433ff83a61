package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mayfly/mayfly/manager"
	"github.com/mayfly/mayfly/worker/keeper"
)

// patienceLimit bounds every wait of these tests. It is no expectation: loaded machines are slow.
const patienceLimit = 90 * time.Second

// host is one machine's worth of Mayfly: a state directory and, while it runs, a manager.
type host struct {
	tb  testing.TB
	dir string
	// shared is a directory that workers may write to.
	shared string
	env    []string
	// enter goes before the manager's command line.
	enter  []string
	socket string
	http   *http.Client

	mu  sync.Mutex
	cmd *exec.Cmd
	log *bytes.Buffer
	// ended is closed when the running manager has ended; err is its status.
	ended chan struct{}
	err   error
}

// newHost makes a host that is cleaned and looked after at the test's end. env are MAYFLY_ settings beside the usual ones.
func newHost(tb testing.TB, env ...string) *host {
	tb.Helper()
	dir, err := os.MkdirTemp("", "mayfly-it-") // short: a socket's path has at most 107 bytes
	if err != nil {
		tb.Fatal(err)
	}
	h := &host{tb: tb, dir: dir, shared: filepath.Join(dir, "shared"), socket: filepath.Join(dir, "api.sock"), log: &bytes.Buffer{}}
	if err := errors.Join(os.Mkdir(h.shared, 0), os.Chmod(h.shared, 0o777)); err != nil { // whatever the umask
		tb.Fatal(err)
	}
	h.env = append([]string{"MAYFLY_STATE_DIR=" + filepath.Join(dir, "state"), "MAYFLY_SOCKET=" + h.socket, "MAYFLY_TASK_WRITABLE=" + h.shared,
		"MAYFLY_HOST=" + filepath.Base(dir), "MAYFLY_CPUS=4", "MAYFLY_LOG_LEVEL=debug", "MAYFLY_GRACE=2s"}, env...)
	h.http = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", h.socket)
	}}}
	tb.Cleanup(func() {
		h.stop()
		h.http.CloseIdleConnections()
		h.nothingLeft()
		if tb.Failed() {
			tb.Logf("log of %s:\n%s", filepath.Base(dir), tail(h.log.String(), 4000))
			if logs := os.Getenv("MAYFLY_TEST_LOGS"); logs != "" { // all of it, for who looks for a fault
				_ = os.WriteFile(filepath.Join(logs, filepath.Base(dir)+".log"), h.log.Bytes(), 0o644)
			}
			if text, err := os.ReadFile(filepath.Join(dir, "state/keeper.log")); err == nil {
				tb.Logf("keeper's log:\n%s", tail(string(text), 2000))
			}
		}
		os.RemoveAll(dir)
	})
	return h
}

// marks makes a directory in which all workers, whoever they are, can leave files.
func (h *host) marks() string {
	h.tb.Helper()
	path := filepath.Join(h.shared, "marks")
	if err := errors.Join(os.Mkdir(path, 0), os.Chmod(path, 0o777)); err != nil {
		h.tb.Fatal(err)
	}
	return path
}

func tail(s string, n int) string {
	if len(s) > n {
		return "...\n" + s[len(s)-n:]
	}
	return s
}

// environ is the environment of the host's commands: nothing of ours that begins with MAYFLY_.
func (h *host) environ() []string {
	env := []string{}
	for _, pair := range os.Environ() {
		if !strings.HasPrefix(pair, "MAYFLY_") {
			env = append(env, pair)
		}
	}
	return append(env, h.env...)
}

// start runs a manager and returns when its API answers.
func (h *host) start() {
	h.tb.Helper()
	argv := append(h.enter[:len(h.enter):len(h.enter)], binary, "run")
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = h.environ()
	stderr, err := cmd.StderrPipe()
	if err != nil {
		h.tb.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		h.tb.Fatal(err)
	}
	ended := make(chan struct{})
	h.mu.Lock()
	h.cmd, h.ended = cmd, ended
	h.mu.Unlock()
	go func() {
		io.Copy(lockedWriter{h}, stderr)
		err := cmd.Wait()
		h.mu.Lock()
		h.err = err
		h.mu.Unlock()
		close(ended)
	}()
	h.until("the manager answers", func() bool {
		select {
		case <-ended:
			h.tb.Fatalf("the manager ended at its start: %v\n%s", h.err, h.logged())
		default:
		}
		_, err := h.info()
		return err == nil
	})
}

type lockedWriter struct{ h *host }

func (w lockedWriter) Write(p []byte) (int, error) {
	w.h.mu.Lock()
	defer w.h.mu.Unlock()
	return w.h.log.Write(p)
}

func (h *host) logged() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.log.String()
}

// signal sends the manager a signal. After SIGSTOP it stands still: on a busy machine its threads run on for a while.
func (h *host) signal(s syscall.Signal) {
	h.tb.Helper()
	err := h.cmd.Process.Signal(s)
	if errors.Is(err, os.ErrProcessDone) {
		return
	}
	if err != nil {
		h.tb.Fatal(err)
	}
	for s == syscall.SIGSTOP {
		if err := unix.Waitid(unix.P_PID, h.cmd.Process.Pid, nil, unix.WSTOPPED|unix.WEXITED|unix.WNOWAIT, nil); err != unix.EINTR {
			break // it stands still, or it has ended
		}
	}
}

// wait returns when the manager has ended.
func (h *host) wait() error {
	h.tb.Helper()
	select {
	case <-h.ended:
		return h.err
	case <-time.After(patienceLimit):
		h.tb.Fatalf("the manager did not end\n%s", tail(h.logged(), 5000))
		return nil
	}
}

// kill ends the manager by SIGKILL.
func (h *host) kill() {
	h.tb.Helper()
	h.signal(syscall.SIGKILL)
	h.wait()
}

// stop ends the manager at once, if there is one.
func (h *host) stop() {
	if h.cmd == nil {
		return
	}
	h.signal(syscall.SIGTERM)
	h.signal(syscall.SIGTERM)
	h.wait()
	h.cmd = nil
}

// until waits for a condition that only polling can see.
func (h *host) until(what string, ok func() bool, state ...func() any) {
	h.tb.Helper()
	until(h.tb, what, ok, state...)
}

func until(tb testing.TB, what string, ok func() bool, state ...func() any) {
	tb.Helper()
	limit := time.Now().Add(patienceLimit)
	for !ok() {
		if time.Now().After(limit) {
			for _, s := range state {
				tb.Logf("instead: %+v", s())
			}
			tb.Fatalf("waited in vain until %s", what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// keeperPID finds the host's keeper, 0 where there is none.
func (h *host) keeperPID() int {
	for pid, p := range h.processes() {
		if strings.Contains(p, "keeper") && strings.Contains(p, h.dir) { // not another host's, whose tasks may write to a directory of this one
			return pid
		}
	}
	return 0
}

// processes finds what belongs to the host but the manager: by its state directory in the environment, the arguments, or
// as working directory.
func (h *host) processes() map[int]string {
	found := map[int]string{}
	names, _ := filepath.Glob("/proc/[0-9]*")
	for _, name := range names {
		pid, _ := strconv.Atoi(filepath.Base(name))
		if pid == os.Getpid() || h.cmd != nil && pid == h.cmd.Process.Pid {
			continue
		}
		args, _ := os.ReadFile(name + "/cmdline")
		env, _ := os.ReadFile(name + "/environ")
		dir, _ := os.Readlink(name + "/cwd")
		if bytes.Contains(args, []byte(h.dir)) || bytes.Contains(env, []byte(h.dir)) || strings.HasPrefix(dir, h.dir) {
			if state, err := os.ReadFile(name + "/stat"); err == nil && !bytes.Contains(state, []byte(") Z ")) {
				found[pid] = strings.TrimSpace(strings.ReplaceAll(string(args), "\x00", " "))
			}
		}
	}
	return found
}

// nothingLeft fails the test where the stopped host has left a process or a socket.
func (h *host) nothingLeft() {
	h.tb.Helper()
	limit := time.Now().Add(15 * time.Second)
	for {
		left := h.processes()
		if len(left) == 0 {
			break
		}
		if time.Now().After(limit) {
			h.tb.Errorf("processes left: %v", left)
			for pid := range left {
				syscall.Kill(pid, syscall.SIGKILL)
			}
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	if strings.Contains(string(mounts), h.dir) {
		h.tb.Errorf("a mount is left: %s", mounts)
	}
	groups := "mayfly-" + keeper.Name(filepath.Join(h.dir, "state"))
	for _, pattern := range []string{"/sys/fs/cgroup/", "/sys/fs/cgroup/*/", "/sys/fs/cgroup/*/*/*/"} {
		if left, _ := filepath.Glob(pattern + groups); len(left) > 0 {
			h.tb.Errorf("control groups left: %v", left)
		}
	}
	for _, socket := range []string{h.socket, filepath.Join(h.dir, "state/keeper.sock")} {
		if _, err := os.Lstat(socket); err == nil {
			h.tb.Errorf("socket left: %s", socket)
		}
	}
}

// get asks the host's API.
func (h *host) get(path string, into any) error {
	ctx, cancel := context.WithTimeout(context.Background(), patienceLimit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://mayfly"+path, nil)
	if err != nil {
		return err
	}
	resp, err := h.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s: %s", path, resp.Status, body)
	}
	return json.Unmarshal(body, into)
}

func (h *host) info() (info manager.Info, err error) {
	err = h.get("/v1/info", &info)
	return info, err
}

// tasks lists what is active on the host.
func (h *host) tasks() []manager.View {
	h.tb.Helper()
	var list []manager.View
	if err := h.get("/v1/tasks", &list); err != nil {
		h.tb.Fatal(err)
	}
	return list
}

// running counts tasks that have a worker.
func (h *host) running() int {
	n := 0
	for _, v := range h.tasks() {
		if v.Status == manager.Running && v.PID != 0 {
			n++
		}
	}
	return n
}

// mayfly runs a command against the host.
func (h *host) mayfly(stdin string, args ...string) (stdout, stderr string, code int) {
	h.tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patienceLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Env = h.environ()
	cmd.Stdin = strings.NewReader(stdin)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		h.tb.Fatalf("mayfly %v: %v\n%s", args, err, errs.String())
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// envNumber reads a number from the environment.
func envNumber(tb testing.TB, name string, otherwise int) int {
	tb.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		tb.Fatalf("%s=%q is no number above 0", name, text)
	}
	return n
}
