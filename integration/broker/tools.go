package broker

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// Addr is the broker's address "host:port".
func (b *Broker) Addr() string { return fmt.Sprintf("%s:%d", b.ip, b.ports.amqp) }

// URL reaches the broker's default virtual host as its administrator.
func (b *Broker) URL() string { return "amqp://guest:guest@" + b.Addr() + "/" }

// TLSURL is URL by TLS, for a broker with [Options].TLS.
func (b *Broker) TLSURL() string {
	return fmt.Sprintf("amqps://guest:guest@localhost:%d/", b.ports.amqps)
}

// Vhost makes a fresh virtual host for the test, removed at its end, and returns its URL.
func (b *Broker) Vhost(tb testing.TB) string {
	tb.Helper()
	b.mu.Lock()
	b.vhosts++
	name := fmt.Sprintf("test%d", b.vhosts)
	b.mu.Unlock()
	b.mustEval(tb, fmt.Sprintf(`rabbit_vhost:add(<<"%s">>, <<"test">>),
		rabbit_auth_backend_internal:set_permissions(<<"guest">>, <<"%s">>, <<".*">>, <<".*">>, <<".*">>, <<"test">>).`, name, name))
	tb.Cleanup(func() {
		// A broker that the test has killed keeps its virtual host: its data goes with it.
		_, _ = b.Eval(fmt.Sprintf(`rabbit_vhost:delete(<<"%s">>, <<"test">>).`, name))
	})
	return b.URL() + name
}

// VhostName returns the name of the virtual host in a URL that Vhost gave.
func VhostName(url string) string { return url[strings.LastIndexByte(url, '/')+1:] }

// Eval evaluates Erlang expressions (each ended by a dot) in the node and returns the printed value. It takes some 30 ms,
// where Ctl takes seconds.
func (b *Broker) Eval(expressions string) (string, error) {
	// Two callers at once would have the same name as nodes, and the second would be refused.
	b.evaluating.Lock()
	defer b.evaluating.Unlock()
	return b.tool(expressions+"\n", "/usr/bin/erl_call", "-n", b.node, "-c", cookie, "-e")
}

func (b *Broker) mustEval(tb testing.TB, expressions string) string {
	tb.Helper()
	out, err := b.Eval(expressions)
	if err != nil {
		tb.Fatal(err)
	}
	return out
}

// TimeOut has a quorum queue of the default virtual host look now for acknowledgements that are late. From 4.3 on the queue does so by a timer, which it
// forgets to set where a message is to be acknowledged later than one that has been (rabbit_fifo's maybe_add_consumer_timeout_effect, 4.3.6). Before, the
// channel looks by itself.
func (b *Broker) TimeOut(queue string) error {
	if b.Version != V43 {
		return nil
	}
	_, err := b.Eval(fmt.Sprintf("ra:process_command({'%%2F_%s', node()}, {timeout, evaluate_consumer_timeout}).", queue))
	return err
}

// Ctl runs rabbitmqctl against the broker and returns what it printed.
func (b *Broker) Ctl(args ...string) (string, error) {
	return b.tool("", append([]string{b.sbin("rabbitmqctl"), "-q"}, args...)...)
}

// CtlScript writes a program that does what rabbitmqctl does on a machine with this broker, and returns its path.
func (b *Broker) CtlScript(tb testing.TB) string {
	tb.Helper()
	quote := func(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }
	var s strings.Builder
	s.WriteString("#!/bin/sh\nexec env -i")
	for _, v := range b.environment() {
		s.WriteString(" " + quote(v))
	}
	fmt.Fprintf(&s, " unshare --mount --pid --fork --kill-child /bin/sh -c %s sh %s %s %s \"$@\"\n", quote(enter), quote(b.root), quote(b.data), quote(b.sbin("rabbitmqctl")))
	path := filepath.Join(tb.TempDir(), "rabbitmqctl")
	if err := os.WriteFile(path, []byte(s.String()), 0o700); err != nil {
		tb.Fatal(err)
	}
	return path
}

// tool runs a program in the broker's surroundings with the given standard input.
func (b *Broker) tool(input string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), ctlLimit)
	defer cancel()
	runtime.LockOSThread() // see launch
	defer runtime.UnlockOSThread()
	cmd := b.command(ctx, args...)
	cmd.Stdin = strings.NewReader(input)
	out, err := cmd.CombinedOutput()
	if err == nil && strings.HasPrefix(string(out), "{error") {
		err = fmt.Errorf("an error in Erlang")
	}
	if err != nil {
		return "", fmt.Errorf("cannot run %s against RabbitMQ %s: %w\n%s%s", args[0], b.Version, err, input, out)
	}
	return string(out), nil
}
