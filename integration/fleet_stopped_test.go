package integration

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/mayfly/mayfly/integration/broker"
	"github.com/mayfly/mayfly/queue"
)

// relay passes connections on to a broker, and can leave its clients alone with theirs, as a router does that has forgotten a connection.
type relay struct {
	net.Listener
	mu                sync.Mutex
	clients, upstream []net.Conn
	running           sync.WaitGroup
}

func newRelay(t *testing.T, to string) *relay {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{Listener: l}
	r.running.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			upstream, err := net.Dial("tcp", to)
			if err != nil {
				client.Close()
				continue
			}
			r.mu.Lock()
			r.clients, r.upstream = append(r.clients, client), append(r.upstream, upstream)
			r.mu.Unlock()
			r.running.Go(func() { _, _ = io.Copy(client, upstream) }) // and the client is not told when this ends
			r.running.Go(func() {
				_, _ = io.Copy(upstream, client)
				upstream.Close()
				_, _ = io.Copy(io.Discard, client) // as long as it believes that it is heard
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		r.close(&r.upstream)
		r.close(&r.clients)
		r.running.Wait()
	})
	return r
}

// close ends the connections of one side. Those of the clients do not hear of it when the broker's end.
func (r *relay) close(side *[]net.Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range *side {
		c.Close()
	}
	*side = nil
}

// TestStoppedHost stops a host that runs a task while others wait there, and has the broker give them all to another host. When it goes on, with a connection that looks as ever, the
// place of its worker is free: it must not begin what is not its own any more.
func TestStoppedHost(t *testing.T) {
	t.Parallel()
	for _, v := range broker.Versions {
		t.Run(string(v), func(t *testing.T) {
			b := broker.Shared(t, v)
			url := b.Vhost(t)
			way := newRelay(t, b.Addr())
			stopped := fleet(t, strings.Replace(url, b.Addr(), way.Addr().String(), 1), []string{"MAYFLY_CPUS=1"})[0]
			p := newProducer(t, url)
			marks := stopped.marks()
			ids := []string{"first", "second", "third"}
			for _, id := range ids {
				p.publish("default", fmt.Sprintf(`{"id": %q, "resources": {"memory": "16MiB"},
					"shell": "umask 0; echo x >>%[2]s/%[1]s; test %[1]s != first || while ! test -e %[2]s/go; do sleep 0.1; done"}`, id, marks))
			}
			stopped.until("one runs, two wait", func() bool { return stopped.running() == 1 && len(stopped.tasks()) == 3 }, func() any { return stopped.tasks() })
			stopped.signal(syscall.SIGSTOP)
			since := time.Now()
			way.close(&way.upstream)
			if err := os.WriteFile(filepath.Join(marks, "go"), nil, 0o644); err != nil {
				t.Fatal(err)
			}
			other := newHost(t, "MAYFLY_AMQP_URL="+url, "MAYFLY_TASK_WRITABLE="+stopped.shared)
			other.start()
			p.waitFor("all results", func() bool { return len(p.results) == len(ids) })
			time.Sleep(time.Until(since.Add(3 * time.Second))) // longer than a queue's word counts

			stopped.signal(syscall.SIGCONT)
			stopped.until("it asks whether the tasks are its own", func() bool {
				for _, view := range stopped.tasks() {
					if strings.Contains(view.Reason, "sign of life") {
						return true
					}
				}
				return false
			}, func() any { return stopped.tasks() })
			way.close(&way.clients)
			stopped.until("it holds nothing", func() bool { return len(stopped.tasks()) == 0 }, func() any { return stopped.tasks() })
			results := p.once(ids[1:])
			for _, id := range ids[1:] {
				text, _ := os.ReadFile(filepath.Join(marks, id))
				if r := results[id]; r.Host != other.name() || r.State != queue.Succeeded || string(text) != "x\n" {
					t.Errorf("%s: %+v, begun %q", id, r, text)
				}
			}
		})
	}
}
