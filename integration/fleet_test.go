package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/mayfly/mayfly/integration/broker"
	"github.com/mayfly/mayfly/manager"
	"github.com/mayfly/mayfly/queue"
)

// fleet starts hosts of one broker, which share the first one's directory for workers. env are the settings of each, beside the broker's.
func fleet(t *testing.T, url string, env ...[]string) []*host {
	t.Helper()
	var hosts []*host
	for _, e := range env {
		e = append([]string{"MAYFLY_AMQP_URL=" + url}, e...)
		if len(hosts) > 0 { // workers see no more of the host than this
			e = append(e, "MAYFLY_TASK_WRITABLE="+hosts[0].shared)
		}
		h := newHost(t, e...)
		h.start()
		hosts = append(hosts, h)
	}
	for _, h := range hosts {
		h.until("it hears of the others", func() bool { return len(h.fleet()) == len(hosts) }, func() any { return h.fleet() })
	}
	return hosts
}

// fleet lists the hosts that answer this one.
func (h *host) fleet() (list []manager.Info) {
	if err := h.get("/v1/hosts", &list); err != nil {
		return nil // the broker is not in reach yet
	}
	return list
}

// name is a host's own.
func (h *host) name() string { return filepath.Base(h.dir) }

// statusOf is where a task stands on the host.
func (h *host) statusOf(id string) manager.Status {
	for _, v := range h.tasks() {
		if v.ID == id {
			return v.Status
		}
	}
	return ""
}

// TestMisfit sends tasks that one of two hosts only can run: wherever they are delivered, they start there soon.
func TestMisfit(t *testing.T) {
	t.Parallel()
	eachVersion(t, func(t *testing.T, _ *broker.Broker, url string) {
		hosts := fleet(t, url, []string{"MAYFLY_CPUS=1"}, []string{"MAYFLY_CPUS=8"})
		p := newProducer(t, url)
		var longest time.Duration
		sent := map[string]time.Time{}
		const count = 20
		// One after the other: no task waits for another one.
		for i := range count {
			id := fmt.Sprintf("m%02d", i)
			sent[id] = time.Now()
			p.publish("default", fmt.Sprintf(`{"id": %q, "resources": {"cpu": 2, "memory": "16MiB"}, "command": ["true"]}`, id))
			r := p.wait(id)
			if r.Cause != queue.CauseNone || r.Host != hosts[1].name() || r.Attempt != 1 {
				t.Errorf("%s: %s on %s, attempt %d", r.ID, r.Cause, r.Host, r.Attempt)
			}
			longest = max(longest, r.StartedAt.Sub(sent[id]))
		}
		t.Logf("the longest wait was %s", longest)
		if longest > 4*time.Second { // less than a wait in the broker takes
			t.Errorf("a task waited for %s", longest)
		}
		// All at once: they take turns where they can run.
		for i := range count {
			p.publish("default", fmt.Sprintf(`{"id": "n%02d", "resources": {"cpu": 2, "memory": "16MiB"}, "command": ["true"]}`, i))
		}
		for i := range count {
			if r := p.wait(fmt.Sprintf("n%02d", i)); r.Host != hosts[1].name() || r.Attempt != 1 {
				t.Errorf("%s ran on %s, attempt %d", r.ID, r.Host, r.Attempt)
			}
		}
		for _, h := range hosts {
			if strings.Contains(h.logged(), "task put back") {
				t.Error("a task waited in the broker")
			}
		}
	})
}

// TestParked has tasks that no host can run: they are shown, explained, and cost next to nothing, until a host comes that can.
func TestParked(t *testing.T) {
	t.Parallel()
	for _, v := range broker.Versions {
		t.Run(string(v), func(t *testing.T) {
			t.Parallel()
			b := broker.Start(t, v) // its own, for its counters
			url := b.URL()
			hosts := fleet(t, url, []string{"MAYFLY_CPUS=1"}, []string{"MAYFLY_CPUS=2"})
			p := newProducer(t, url)
			const count = 10
			for i := range count {
				p.publish("default", fmt.Sprintf(`{"id": "large%d", "resources": {"cpu": 16, "memory": "16MiB"}, "command": ["true"]}`, i))
			}
			parked := func() (n int) {
				for _, h := range hosts {
					for _, v := range h.tasks() {
						if v.Status == manager.Parked {
							n++
						}
					}
				}
				return n
			}
			hosts[0].until("all are parked", func() bool { return parked() == count })
			for _, h := range hosts {
				out, _, code := h.mayfly("", "explain", "large0")
				if code != 0 || !strings.Contains(out, "lends 1 core\n") && !strings.Contains(out, "lends 1 core (") || !strings.Contains(out, "lends 2 cores") {
					t.Errorf("explain: %d %s", code, out)
				}
			}
			const watch = 5 * time.Second
			before := messages(t, b)
			time.Sleep(watch) // nothing happens: that is what is to be seen
			if n := messages(t, b) - before; n > 0 {
				t.Errorf("%d messages within %s while nothing can run", n, watch)
			}
			third := newHost(t, "MAYFLY_AMQP_URL="+url, "MAYFLY_CPUS=16")
			third.start()
			came := time.Now()
			for i := range count {
				if r := p.wait(fmt.Sprintf("large%d", i)); r.Host != third.name() || r.Attempt != 1 {
					t.Errorf("%s ran on %s", r.ID, r.Host)
				}
			}
			t.Logf("all have run %s after the host came", time.Since(came))
		})
	}
}

// TestElsewhere has tasks fail: the next try is on another host, while there is one.
func TestElsewhere(t *testing.T) {
	t.Parallel()
	b := broker.Shared(t, broker.V43)
	url := b.Vhost(t)
	hosts := fleet(t, url, nil, nil)
	p := newProducer(t, url)
	for i := range 10 {
		p.publish("default", fmt.Sprintf(`{"id": "e%d", "max_attempts": 3, "backoff": "10ms", "resources": {"memory": "16MiB"}, "command": ["false"]}`, i))
	}
	for i := range 10 {
		r := p.wait(fmt.Sprintf("e%d", i))
		if len(r.Attempts) != 3 || r.Attempts[0].Host == r.Attempts[1].Host {
			t.Errorf("%s: attempts on %+v", r.ID, r.Attempts)
		}
	}
	hosts[1].stop()
	p.publish("default", `{"id": "alone", "max_attempts": 2, "backoff": "10ms", "resources": {"memory": "16MiB"}, "command": ["false"]}`)
	if r := p.wait("alone"); len(r.Attempts) != 2 || r.Attempts[1].Host != hosts[0].name() {
		t.Errorf("alone: attempts on %+v", r.Attempts)
	}
}

// TestOnlyOneCan has tasks fail on the only host that can ever run them: they are tried there again, whoever gets them first.
func TestOnlyOneCan(t *testing.T) {
	t.Parallel()
	url := broker.Shared(t, broker.V40).Vhost(t)
	hosts := fleet(t, url, []string{"MAYFLY_CPUS=2"}, []string{"MAYFLY_CPUS=4"})
	p := newProducer(t, url)
	for i := range 8 {
		p.publish("default", fmt.Sprintf(`{"id": "e%d", "max_attempts": 3, "backoff": "10ms", "resources": {"cpu": 4, "memory": "16MiB"}, "command": ["false"]}`, i))
	}
	for i := range 8 {
		r := p.wait(fmt.Sprintf("e%d", i))
		if len(r.Attempts) != 3 || r.Attempts[2].Host != hosts[1].name() {
			t.Errorf("%s: attempts on %+v", r.ID, r.Attempts)
		}
	}
}

// TestTypesDiffer has hosts that do not know the same task types: who knows one gets its tasks, and what nobody knows is rejected.
func TestTypesDiffer(t *testing.T) {
	t.Parallel()
	url := broker.Shared(t, broker.V40).Vhost(t)
	types := t.TempDir()
	if err := os.WriteFile(filepath.Join(types, "known.yaml"), []byte("command: [\"true\"]\nresources: {memory: 16MiB}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	hosts := fleet(t, url, nil, []string{"MAYFLY_TYPES_DIR=" + types}, []string{"MAYFLY_ALLOW=images"})
	p := newProducer(t, url)
	for i := range 9 {
		p.publish("default", fmt.Sprintf(`{"id": "t%d", "type": "known"}`, i))
		p.publish("default", fmt.Sprintf(`{"id": "u%d", "type": "unknown"}`, i))
	}
	for i := range 9 {
		if r := p.wait(fmt.Sprintf("t%d", i)); r.State != queue.Succeeded || r.Host != hosts[1].name() {
			t.Errorf("%s: %s on %s: %s", r.ID, r.State, r.Host, r.Message)
		}
		r := p.wait(fmt.Sprintf("u%d", i))
		if r.State != queue.Rejected || !strings.HasPrefix(r.Message, `type is "unknown": this host `) || !strings.HasSuffix(r.Message, "; no other host of the pool takes it") {
			t.Errorf("%s: %s: %s", r.ID, r.State, r.Message)
		}
	}
}

// TestShare has one host full of tasks when another one comes: what waits on the first starts there soon.
func TestShare(t *testing.T) {
	t.Parallel()
	b := broker.Shared(t, broker.V43)
	url := b.Vhost(t)
	first := fleet(t, url, []string{"MAYFLY_CPUS=2"})[0]
	p := newProducer(t, url)
	release := filepath.Join(first.shared, "go")
	for i := range 2 {
		p.publish("default", fmt.Sprintf(`{"id": "long%d", "resources": {"memory": "16MiB"}, "shell": "while ! test -e %s; do sleep 0.05; done"}`, i, release))
	}
	first.until("it is full", func() bool { return first.running() == 2 })
	for i := range 6 {
		p.publish("default", fmt.Sprintf(`{"id": "s%d", "resources": {"memory": "16MiB"}, "command": ["true"]}`, i))
	}
	first.until("all wait there", func() bool {
		info, err := first.info()
		return err == nil && info.Waiting == 6
	})
	second := newHost(t, "MAYFLY_AMQP_URL="+url, "MAYFLY_CPUS=4")
	second.start()
	came := time.Now()
	for i := range 6 {
		if r := p.wait(fmt.Sprintf("s%d", i)); r.Host != second.name() || r.Attempt != 1 {
			t.Errorf("%s ran on %s", r.ID, r.Host)
		}
	}
	t.Logf("all have run %s after the host came", time.Since(came))
	if err := os.WriteFile(release, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		if r := p.wait(fmt.Sprintf("long%d", i)); r.Host != first.name() {
			t.Errorf("%s ran on %s", r.ID, r.Host)
		}
	}
}

var receivedTotal = regexp.MustCompile(`messages_received_total\s*=>\s*(\d+)`)

// messages counts all messages that were ever published to the broker.
func messages(t *testing.T, b *broker.Broker) (n int) {
	t.Helper()
	out, err := b.Eval("rabbit_global_counters:overview().")
	if err != nil {
		t.Fatal(err)
	}
	found := receivedTotal.FindAllStringSubmatch(out, -1)
	if len(found) == 0 {
		t.Fatalf("no counters: %s", out)
	}
	for _, m := range found {
		count, _ := strconv.Atoi(m[1])
		n += count
	}
	return n
}
