// Package docker runs real Docker engines for tests, each with a directory and a socket of its own.
//
// # Theory of operation
//
// Nothing can be pulled where tests run, so images are made here, from a static busybox. The engines have no bridge, for two of them
// would share one; containers have the host's network or none. An engine with OwnNetwork is in a network of its own, which leads nowhere: there it has a bridge, and publishes ports.
package docker

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"net"

	"golang.org/x/sys/unix"

	"github.com/mayfly/mayfly/integration/need"
)

// Image is what every engine has: busybox, with its commands in /bin.
const Image = "mayfly-test:1"

// Engine is one dockerd.
type Engine struct {
	// Host is its address.
	Host string

	tb   testing.TB
	dir  string
	path string   // where it looks for commands, before all other places
	args []string // of it, beside the usual ones
	own  bool     // has a network of its own
	cmd  *exec.Cmd
}

// Option is how an engine is to differ from the usual one.
type Option func(*Engine)

// Path has the engine look for commands in a directory first.
func Path(dir string) Option { return func(e *Engine) { e.path = dir + ":" } }

// Args gives the engine more arguments.
func Args(args ...string) Option { return func(e *Engine) { e.args = append(e.args, args...) } }

// OwnNetwork gives the engine a network of its own.
func OwnNetwork() Option { return func(e *Engine) { e.own = true } }

// startLimit is how long an engine may take to answer.
const startLimit = 60 * time.Second

// Start starts an engine, which ends with the test, with all of its containers.
func Start(tb testing.TB, options ...Option) *Engine {
	tb.Helper()
	need.Command(tb, "dockerd")
	if os.Geteuid() != 0 {
		need.Missing(tb, "an engine of Docker needs root")
	}
	dir, err := os.MkdirTemp("/var/tmp", "mfd-") // short: sockets lie in it
	if err != nil {
		tb.Fatal(err)
	}
	e := &Engine{Host: "unix://" + dir + "/s", tb: tb, dir: dir}
	for _, o := range options {
		o(e)
	}
	tb.Cleanup(e.end)
	e.Up()
	e.importImage()
	return e
}

// Up starts the engine again.
func (e *Engine) Up() {
	e.tb.Helper()
	log, err := os.OpenFile(e.dir+"/log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		e.tb.Fatal(err)
	}
	defer log.Close()
	// A containerd that was killed may lie as a zombie where nobody reaps, and would be taken for alive.
	for _, file := range []string{"/pid", "/exec/containerd/containerd.pid"} {
		os.Remove(e.dir + file)
	}
	e.cmd = exec.Command("dockerd", "--data-root", e.dir+"/data", "--exec-root", e.dir+"/exec", "--pidfile", e.dir+"/pid", "-H", e.Host)
	e.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if e.own {
		e.cmd = exec.Command("sh", append([]string{"-c", `ip link set lo up && exec "$@"`, "sh"}, e.cmd.Args...)...)
		e.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Cloneflags: syscall.CLONE_NEWNET}
	} else {
		e.cmd.Args = append(e.cmd.Args, "--bridge=none", "--iptables=false", "--ip6tables=false")
	}
	e.cmd.Args = append(e.cmd.Args, e.args...)
	e.cmd.Env = append(os.Environ(), "PATH="+e.path+os.Getenv("PATH"))
	e.cmd.Stdout, e.cmd.Stderr = log, log
	if err := e.cmd.Start(); err != nil {
		e.tb.Fatalf("cannot start dockerd: %v", err)
	}
	for end := time.Now().Add(startLimit); ; time.Sleep(50 * time.Millisecond) {
		if _, err := e.call(http.MethodGet, "/_ping", nil); err == nil {
			return
		}
		if time.Now().After(end) {
			text, _ := os.ReadFile(e.dir + "/log")
			e.tb.Fatalf("dockerd does not answer:\n%s", text[max(0, len(text)-4000):])
		}
	}
}

// Kill kills the engine and its containerd, as a crash does. Containers run on until it is up again.
func (e *Engine) Kill() {
	_ = syscall.Kill(-e.cmd.Process.Pid, syscall.SIGKILL)
	_ = e.cmd.Wait()
}

// Dial connects as a program does that is in the network of an engine with OwnNetwork.
func (e *Engine) Dial(network, address string) (net.Conn, error) {
	type dialled struct {
		net.Conn
		error
	}
	done := make(chan dialled)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		there, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", e.cmd.Process.Pid))
		if err != nil {
			done <- dialled{nil, err}
			return
		}
		defer there.Close()
		if err := unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- dialled{nil, fmt.Errorf("cannot enter the engine's network: %w", err)}
			return
		}
		conn, err := net.DialTimeout(network, address, startLimit)
		done <- dialled{conn, err}
	}()
	d := <-done
	return d.Conn, d.error
}

// Containers lists all containers, by name.
func (e *Engine) Containers() []string {
	e.tb.Helper()
	out, err := e.Command("ps", "-a", "--format", "{{.Names}} {{.Status}}")
	if err != nil {
		e.tb.Fatalf("cannot list containers: %v\n%s", err, out)
	}
	return strings.FieldsFunc(out, func(c rune) bool { return c == '\n' })
}

// Command runs the docker command.
func (e *Engine) Command(args ...string) (string, error) {
	out, err := exec.Command("docker", append([]string{"-H", e.Host}, args...)...).CombinedOutput()
	return string(out), err
}

// end ends the engine, what it ran, and what it mounted.
func (e *Engine) end() {
	_ = e.cmd.Process.Signal(syscall.SIGTERM)
	ended := make(chan struct{})
	go func() { _ = e.cmd.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		e.Kill()
	}
	// Shims of containers that a killed engine left have its directory in their arguments.
	procs, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range procs {
		text, _ := os.ReadFile(path)
		if bytes.Contains(text, []byte(e.dir+"/")) {
			var pid int
			if _, err := fmt.Sscanf(path, "/proc/%d/", &pid); err == nil && pid != os.Getpid() {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}
	}
	text, _ := os.ReadFile("/proc/self/mountinfo")
	lines := strings.Split(string(text), "\n")
	for i := len(lines) - 1; i >= 0; i-- {
		if f := strings.Fields(lines[i]); len(f) > 4 && strings.HasPrefix(f[4], e.dir+"/") {
			_ = unix.Unmount(f[4], unix.MNT_DETACH)
		}
	}
	if err := os.RemoveAll(e.dir); err != nil {
		e.tb.Logf("the engine's directory is left: %v", err)
	}
}

// importImage makes the image.
func (e *Engine) importImage() {
	e.tb.Helper()
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		need.Missing(e.tb, "busybox-static is not installed: run integration/setup.sh")
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	add := func(h *tar.Header, body []byte) {
		h.Size = int64(len(body))
		if err := w.WriteHeader(h); err != nil {
			e.tb.Fatal(err)
		}
		if _, err := w.Write(body); err != nil {
			e.tb.Fatal(err)
		}
	}
	for _, dir := range []string{"bin", "etc", "var"} {
		add(&tar.Header{Name: dir + "/", Typeflag: tar.TypeDir, Mode: 0o755}, nil)
	}
	for _, dir := range []string{"tmp", "var/tmp"} {
		add(&tar.Header{Name: dir + "/", Typeflag: tar.TypeDir, Mode: 0o1777}, nil)
	}
	add(&tar.Header{Name: "bin/busybox", Typeflag: tar.TypeReg, Mode: 0o755}, busybox)
	for _, name := range strings.Fields("sh sleep true false dd id cat ls env head tail touch wc echo kill tr grep seq setsid mkdir ln mkfifo test df stat nproc") {
		add(&tar.Header{Name: "bin/" + name, Typeflag: tar.TypeSymlink, Linkname: "busybox"}, nil)
	}
	if err := w.Close(); err != nil {
		e.tb.Fatal(err)
	}
	repo, tag, _ := strings.Cut(Image, ":")
	if text, err := e.call(http.MethodPost, "/images/create?fromSrc=-&repo="+repo+"&tag="+tag, &b); err != nil {
		e.tb.Fatalf("cannot import an image: %v\n%s", err, text)
	}
}

// call asks the engine's API.
func (e *Engine) call(method, path string, body *bytes.Buffer) (string, error) {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", strings.TrimPrefix(e.Host, "unix://"))
	}}}
	if body == nil {
		body = &bytes.Buffer{}
	}
	request, err := http.NewRequestWithContext(context.Background(), method, "http://docker"+path, body)
	if err != nil {
		return "", err
	}
	response, err := client.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	var text bytes.Buffer
	_, _ = text.ReadFrom(response.Body)
	if response.StatusCode >= 300 {
		return text.String(), fmt.Errorf("status %d", response.StatusCode)
	}
	return text.String(), nil
}
