package broker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// alone is the node's name of every broker that is no member of a cluster; each has an epmd of its own, so they do not meet.
const alone = "mayfly@localhost"

// cookie is the shared secret of a node and its tools.
const cookie = "mayflytests"

// Limits of waiting. A loaded machine with two cores takes some 10 s to start a broker.
const (
	startLimit = 120 * time.Second
	stopLimit  = 30 * time.Second
	pauseLimit = 10 * time.Second
	ctlLimit   = 60 * time.Second
)

// Options change how a broker runs. The zero value is the default.
type Options struct {
	// Config is appended to rabbitmq.conf.
	Config string
	// Plugins are enabled at the start.
	Plugins []string
	// TLS, when set, makes the broker listen for TLS too; the URL is that of [Broker.TLSURL].
	TLS *TLS
}

// TLS is the key material of a broker in PEM form. Clients must show a certificate that CA has signed.
type TLS struct{ CA, Cert, Key []byte }

// Broker is a RabbitMQ broker of a test. Its methods are for one goroutine at a time, but for Vhost, Eval, Ctl, Log
// and those that give addresses.
type Broker struct {
	Version Version
	root    string // of the system that it runs from
	server  string // the server's folder, as seen from root
	data    string // its files: etc, lib, log
	node    string // its name in Erlang
	ip      string // it listens there
	network string // the file of its network namespace; empty for the test's own
	hosts   string // the lines that /etc/hosts has of other nodes
	ports   ports
	held    []io.Closer // the reservations of the ports
	options Options

	evaluating sync.Mutex

	mu     sync.Mutex
	proc   *process
	output *bytes.Buffer
	vhosts int
}

// Start runs a broker of the version until the end of the test.
func Start(tb testing.TB, v Version) *Broker {
	tb.Helper()
	return StartWith(tb, v, Options{})
}

// StartWith is Start with options.
func StartWith(tb testing.TB, v Version, o Options) *Broker {
	tb.Helper()
	root, server := v.find(tb)
	dir, err := os.MkdirTemp("", "mayfly-broker-")
	if err != nil {
		tb.Fatalf("cannot make the broker's folder: %v", err)
	}
	tb.Cleanup(func() { _ = os.RemoveAll(dir) })
	b, err := boot(v, root, server, dir, o)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(b.remove)
	return b
}

// boot writes the files of a new broker and starts it.
func boot(v Version, root, server, dir string, o Options) (*Broker, error) {
	b := &Broker{Version: v, root: root, server: server, data: dir, node: alone, ip: "127.0.0.1", options: o}
	var err error
	for range 3 {
		if b.ports, b.held, err = reservePorts(); err != nil {
			return nil, err
		}
		if err = b.write(); err != nil {
			return nil, err
		}
		if err = b.start(); err == nil {
			return b, nil
		}
		b.remove()
	}
	return nil, err
}

// write makes the broker's folders and configuration.
func (b *Broker) write() error {
	conf := "listeners.tcp.default = " + fmt.Sprint(b.ports.amqp) + `
loopback_users = none
log.console = false
log.file.level = info
vm_memory_high_watermark.absolute = 2GB
disk_free_limit.absolute = 1MB
`
	files := map[string]string{
		"hosts":               "127.0.0.1 localhost\n" + b.hosts,
		"lib/.erlang.cookie":  cookie,
		"etc/enabled_plugins": "[" + strings.Join(b.options.Plugins, ",") + "].\n",
	}
	if t := b.options.TLS; t != nil {
		files["etc/ca.pem"], files["etc/cert.pem"], files["etc/key.pem"] = string(t.CA), string(t.Cert), string(t.Key)
		conf += fmt.Sprintf(`listeners.ssl.default = 127.0.0.1:%d
ssl_options.cacertfile = /etc/rabbitmq/ca.pem
ssl_options.certfile = /etc/rabbitmq/cert.pem
ssl_options.keyfile = /etc/rabbitmq/key.pem
ssl_options.verify = verify_peer
ssl_options.fail_if_no_peer_cert = true
`, b.ports.amqps)
	}
	files["etc/rabbitmq.conf"] = conf + b.options.Config
	for _, dir := range []string{"etc", "lib", "log"} {
		if err := os.MkdirAll(filepath.Join(b.data, dir), 0o755); err != nil {
			return fmt.Errorf("cannot make the broker's folders: %w", err)
		}
	}
	for name, text := range files {
		path := filepath.Join(b.data, name)
		_ = os.Remove(path) // the cookie is read-only
		if err := os.WriteFile(path, []byte(text), 0o400); err != nil {
			return fmt.Errorf("cannot write the broker's files: %w", err)
		}
	}
	return nil
}

// start runs the node and returns when clients can log in.
func (b *Broker) start() error {
	output := &bytes.Buffer{}
	cmd := b.command(context.Background(), b.sbin("rabbitmq-server"))
	// With this set the script becomes the node instead of staying in front of it, so that signals reach the node.
	cmd.Env = append(cmd.Env, "RUNNING_UNDER_SYSTEMD=true")
	proc, err := launch(cmd, output)
	if err != nil {
		return err
	}
	b.mu.Lock()
	b.proc, b.output = proc, output
	b.mu.Unlock()
	// A booting broker gives no signal to those outside but its open port.
	limit := time.After(startLimit)
	for {
		err := b.takesClients()
		if err == nil {
			return nil
		}
		select {
		case <-proc.done:
			return fmt.Errorf("RabbitMQ %s ended while it started: %v\n%s", b.Version, proc.err, output)
		case <-limit:
			return fmt.Errorf("RabbitMQ %s did not start within %s: %v\n%s", b.Version, startLimit, err, b.Log())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// takesClients says why no client can log in.
func (b *Broker) takesClients() error {
	conn, err := amqp.Dial(b.URL())
	if err != nil {
		return err
	}
	return conn.Close()
}

// Start runs a stopped or killed broker again, on the same ports and data.
func (b *Broker) Start() error { return b.start() }

// Stop ends the broker in an orderly way; its data stays.
func (b *Broker) Stop() error {
	proc := b.running()
	if proc == nil {
		return nil
	}
	if err := proc.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("cannot stop RabbitMQ %s: %w", b.Version, err)
	}
	select {
	case <-proc.done:
		return nil
	case <-time.After(stopLimit):
		b.Kill()
		return fmt.Errorf("RabbitMQ %s did not stop within %s: killed it", b.Version, stopLimit)
	}
}

// Kill ends the broker by SIGKILL and returns when it and all of its processes are gone; its data stays.
func (b *Broker) Kill() {
	if proc := b.running(); proc != nil {
		_ = proc.cmd.Process.Kill()
		<-proc.done
	}
}

// remove ends the broker for good.
func (b *Broker) remove() {
	b.Kill()
	release(b.held)
}

// Pause stops the node's processor time (SIGSTOP), as a hung host would, and returns when all of it stands still; Resume lets it run on.
func (b *Broker) Pause() error {
	process := b.running().cmd.Process
	if err := process.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	for limit := time.Now().Add(pauseLimit); ; time.Sleep(time.Millisecond) {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", process.Pid))
		if err != nil {
			return err
		}
		if len(threads) > 0 && !slices.ContainsFunc(threads, runs) {
			return nil
		}
		if time.Now().After(limit) {
			return fmt.Errorf("RabbitMQ %s did not stand still within %s", b.Version, pauseLimit)
		}
	}
}

// runs reports whether the thread with this stat file is not stopped; see proc_pid_stat(5).
func runs(stat string) bool {
	text, err := os.ReadFile(stat)
	_, rest, _ := strings.Cut(string(text), ") ") // no thread of the broker's has that in its name
	return err == nil && !strings.HasPrefix(rest, "T")
}

// Resume ends a Pause.
func (b *Broker) Resume() error { return b.running().cmd.Process.Signal(syscall.SIGCONT) }

func (b *Broker) running() *process {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.proc
}

// Log returns what the broker has logged.
func (b *Broker) Log() string {
	names, _ := filepath.Glob(filepath.Join(b.data, "log", "*.log"))
	var all strings.Builder
	for _, name := range names {
		text, _ := os.ReadFile(name)
		all.Write(text)
	}
	return all.String()
}
