package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
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
	c, err := count(br.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.close(); err != nil {
			t.Error(err)
		}
	})
	h := newHost(t, "MAYFLY_AMQP_URL="+strings.Replace(url, br.Addr(), c.addr, 1), "MAYFLY_CPUS=2", "MAYFLY_LOG_LEVEL=warn")
	h.start()
	h.connected()
	p := newProducer(t, url)
	h.runs(p, "first", tasks, 0) // what is made once
	before, allocated := c.now(), h.scrape()["go_memstats_mallocs_total"]
	h.runs(p, "then", tasks, 0)
	after := c.now()
	allocated = h.scrape()["go_memstats_mallocs_total"] - allocated
	said := after.less(before).Said.Methods
	total := after.less(before).Said.all()
	t.Logf("%d tasks: %v, %.0f allocations a task", tasks, said, allocated/tasks)
	// One result, and a few events that nobody listens to; one acknowledgement.
	if n := said["publish"]; n < tasks || n > tasks*5/4 {
		t.Errorf("%d messages are published for %d tasks", n, tasks)
	}
	// Those of all tasks: the last ones of the first may be on their way when the second begin.
	if n := after.Said.Methods["ack"]; n > 2*tasks {
		t.Errorf("%d acknowledgements are sent for %d tasks", n, 2*tasks)
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

// runs sends so many tasks that do nothing, and waits until all have ended and the host has but so many others.
func (h *host) runs(p *producer, prefix string, tasks, others int) {
	h.tb.Helper()
	for i := range tasks {
		p.publish("default", trueTask(fmt.Sprint(prefix, i)))
	}
	for i := range tasks {
		p.wait(fmt.Sprint(prefix, i))
	}
	h.until("only the others are left", func() bool { return len(h.tasks()) == others }, func() any { return h.tasks() })
}
