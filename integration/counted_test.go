package integration

import (
	bytesof "encoding/binary" // "binary" is the path of ours
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/mayfly/mayfly/integration/broker"
)

// TestCounted holds what a task costs, in what can be counted whatever the machine: what the manager says to the broker, what it allocates, and what it
// leaves on the disk. docs/performance.md has the figures.
func TestCounted(t *testing.T) {
	t.Parallel()
	const tasks = 300
	br := broker.Shared(t, broker.V40)
	url := br.Vhost(t)
	c := countMethods(t, br.Addr())
	h := newHost(t, "MAYFLY_AMQP_URL="+strings.Replace(url, br.Addr(), c.addr, 1), "MAYFLY_CPUS=2", "MAYFLY_LOG_LEVEL=warn")
	h.start()
	h.connected()
	p := newProducer(t, url)
	run := func(prefix string) {
		t.Helper()
		for i := range tasks {
			p.publish("default", fmt.Sprintf(`{"id": "%s%d", "command": ["/bin/true"], "resources": {"cpu": 0.5, "memory": "16MiB"}}`, prefix, i))
		}
		for i := range tasks {
			p.wait(fmt.Sprint(prefix, i))
		}
		h.until("nothing is left", func() bool { return len(h.tasks()) == 0 }, func() any { return h.tasks() })
	}
	run("first") // what is made once
	before, allocated := c.now(), h.scrape()["go_memstats_mallocs_total"]
	run("then")
	after := c.now()
	allocated = h.scrape()["go_memstats_mallocs_total"] - allocated
	said := map[string]int{}
	total := 0
	for name, n := range after {
		said[name] = n - before[name]
		total += said[name]
	}
	t.Logf("%d tasks: %v, %.0f allocations a task", tasks, said, allocated/tasks)
	// One result, and a few events that nobody listens to; one acknowledgement.
	if n := said["publish"]; n < tasks || n > tasks*5/4 {
		t.Errorf("%d messages are published for %d tasks", n, tasks)
	}
	if n := said["ack"]; n > tasks {
		t.Errorf("%d acknowledgements are sent for %d tasks", n, tasks)
	}
	if n := total - said["publish"] - said["ack"]; n > tasks/2 {
		t.Errorf("%d other things are said to the broker for %d tasks: %v", n, tasks, said)
	}
	if allocated == 0 || allocated/tasks > 1300 {
		t.Errorf("%.0f allocations a task", allocated/tasks)
	}
	left, err := os.ReadDir(filepath.Join(h.dir, "state", "attempts"))
	if err != nil || len(left) > 0 {
		t.Errorf("%d directories of attempts that wrote nothing, %v", len(left), err)
	}
}

// counter is a way to a broker that counts the methods that clients call.
type counter struct {
	addr  string
	mu    sync.Mutex
	calls map[string]int
}

func countMethods(t *testing.T, broker string) *counter {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &counter{addr: l.Addr().String(), calls: map[string]int{}}
	var group sync.WaitGroup
	t.Cleanup(func() {
		l.Close()
		group.Wait()
	})
	group.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			group.Go(func() { c.pass(t, conn, broker) })
		}
	})
	return c
}

// pass connects one client.
func (c *counter) pass(t *testing.T, client net.Conn, broker string) {
	defer client.Close()
	server, err := net.Dial("tcp", broker)
	if err != nil {
		t.Error(err)
		return
	}
	defer server.Close()
	var group sync.WaitGroup
	group.Go(func() {
		_, _ = io.Copy(client, server)
		client.Close()
	})
	if err := c.read(io.TeeReader(client, server)); err != nil {
		t.Error(err)
	}
	server.Close()
	group.Wait()
}

// methods are those that are told apart, by class and method (AMQP 0-9-1).
var methods = map[uint32]string{60<<16 | 40: "publish", 60<<16 | 80: "ack", 60<<16 | 120: "nack", 60<<16 | 10: "qos", 60<<16 | 20: "consume", 60<<16 | 30: "cancel", 20<<16 | 10: "channel"}

// read takes what a client says apart, until it has said all.
func (c *counter) read(from io.Reader) error {
	if _, err := io.ReadFull(from, make([]byte, 8)); err != nil { // the protocol's header
		return nil
	}
	for {
		head := make([]byte, 7) // type, channel, size
		if _, err := io.ReadFull(from, head); err != nil {
			return nil
		}
		size := bytesof.BigEndian.Uint32(head[3:])
		if head[0] == 0 || head[0] > 8 || size > 1<<20 {
			return fmt.Errorf("what begins with %x is no frame", head)
		}
		frame := make([]byte, size+1)
		if _, err := io.ReadFull(from, frame); err != nil {
			return nil
		}
		if head[0] != 1 { // no method
			continue
		}
		name := methods[bytesof.BigEndian.Uint32(frame)]
		if name == "" {
			name = "other"
		}
		c.mu.Lock()
		c.calls[name]++
		c.mu.Unlock()
	}
}

func (c *counter) now() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.calls)
}
