package broker

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(Main{M: m}) }

// processes lists the commands of all processes whose environment names the broker's epmd port.
func processes(t *testing.T, b *Broker) []string {
	t.Helper()
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	mark := ""
	for _, kv := range b.environment() {
		if strings.HasPrefix(kv, "ERL_EPMD_PORT=") {
			mark = kv
		}
	}
	var found []string
	for _, dir := range dirs {
		env, _ := os.ReadFile(filepath.Join(dir, "environ"))
		if strings.Contains("\x00"+string(env), "\x00"+mark+"\x00") {
			comm, _ := os.ReadFile(filepath.Join(dir, "comm"))
			found = append(found, strings.TrimSpace(string(comm)))
		}
	}
	return found
}

func TestBrokerLives(t *testing.T) {
	t.Parallel()
	for _, v := range Versions {
		t.Run(string(v), func(t *testing.T) {
			t.Parallel()
			b := Start(t, v)
			if version, err := b.Eval(`rabbit_misc:version().`); err != nil || !strings.Contains(version, string(v)+".") {
				t.Fatalf("version = %q, %v; want %s", version, err, v)
			}
			url := b.Vhost(t)
			put(t, url)
			if err := b.Stop(); err != nil {
				t.Fatal(err)
			}
			if left := processes(t, b); len(left) != 0 {
				t.Fatalf("left after Stop: %v", left)
			}
			if err := b.Start(); err != nil {
				t.Fatal(err)
			}
			if n := depth(t, url); n != 1 {
				t.Fatalf("after a stop the queue holds %d messages, want 1", n)
			}
			if len(processes(t, b)) == 0 {
				t.Fatal("the running broker shows no process: the check for leftovers is blind")
			}
			b.Kill()
			if left := processes(t, b); len(left) != 0 {
				t.Fatalf("left after Kill: %v", left)
			}
			if err := b.Start(); err != nil {
				t.Fatal(err)
			}
			if n := depth(t, url); n != 1 {
				t.Fatalf("after a kill the queue holds %d messages, want 1", n)
			}
			if out, err := b.Ctl("list_vhosts"); err != nil || !strings.Contains(out, VhostName(url)) {
				t.Fatalf("list_vhosts = %q, %v", out, err)
			}
		})
	}
}

func put(t *testing.T, url string) {
	t.Helper()
	ch := channel(t, url)
	if _, err := ch.QueueDeclare("q", true, false, false, false, amqp.Table{"x-queue-type": "quorum"}); err != nil {
		t.Fatal(err)
	}
	if err := ch.Confirm(false); err != nil {
		t.Fatal(err)
	}
	dc, err := ch.PublishWithDeferredConfirm("", "q", true, false, amqp.Publishing{DeliveryMode: amqp.Persistent, Body: []byte("x")})
	if err != nil || !dc.Wait() {
		t.Fatalf("publish: %v", err)
	}
}

func depth(t *testing.T, url string) int {
	t.Helper()
	ch := channel(t, url)
	// A queue may need a moment to elect its leader after a start; a declare waits for it.
	q, err := ch.QueueDeclare("q", true, false, false, false, amqp.Table{"x-queue-type": "quorum"})
	if err != nil {
		t.Fatal(err)
	}
	return q.Messages
}

func channel(t *testing.T, url string) *amqp.Channel {
	t.Helper()
	conn, err := amqp.Dial(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	return ch
}
