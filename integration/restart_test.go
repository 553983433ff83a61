package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/mayfly/mayfly/integration/broker"
	"github.com/mayfly/mayfly/queue"
)

// longTasks publishes n tasks that each leave a mark when they begin and end with code 5 once told to.
func longTasks(h *host, publish func(body string), n int) (ids []string, marks string, release func()) {
	h.tb.Helper()
	marks = h.marks()
	for i := range n {
		id := fmt.Sprintf("long%d", i)
		ids = append(ids, id)
		body, err := json.Marshal(map[string]any{"id": id, "resources": map[string]any{"cpu": 0.1, "memory": "16MiB"},
			"shell": fmt.Sprintf("umask 0; echo x >> %[1]s/%[2]s; while ! test -e %[1]s/go; do sleep 0.05; done; echo done; exit 5", marks, id)})
		if err != nil {
			h.tb.Fatal(err)
		}
		publish(string(body))
	}
	h.until("all have left their marks", func() bool {
		for _, id := range ids { // made is not written yet
			if text, _ := os.ReadFile(filepath.Join(marks, id)); len(text) == 0 {
				return false
			}
		}
		return h.running() == n
	})
	return ids, marks, func() {
		if err := os.WriteFile(filepath.Join(marks, "go"), nil, 0o600); err != nil {
			h.tb.Fatal(err)
		}
	}
}

// ranOnce checks the marks.
func ranOnce(t *testing.T, marks string, ids []string) {
	t.Helper()
	for _, id := range ids {
		text, _ := os.ReadFile(filepath.Join(marks, id))
		if n := strings.Count(string(text), "x"); n != 1 {
			t.Errorf("task %s ran %d times, want once", id, n)
		}
	}
}

func checkLong(t *testing.T, results map[string]queue.Result) {
	t.Helper()
	for id, r := range results {
		if r.Cause != queue.CauseExit || r.ExitCode == nil || *r.ExitCode != 5 || r.StdoutTail != "done\n" || r.Attempt != 1 {
			t.Errorf("task %s: %+v", id, r)
		}
	}
}

// TestManagerKilled kills the manager by SIGKILL while tasks run: they finish under the keeper, some while there is no manager,
// and the next one reports all of them, once.
func TestManagerKilled(t *testing.T) {
	t.Parallel()
	eachVersion(t, func(t *testing.T, b *broker.Broker, url string) {
		h := newHost(t, "MAYFLY_AMQP_URL="+url)
		h.start()
		p := newProducer(t, url)
		ids, marks, release := longTasks(h, func(body string) { p.publish("default", body) }, 20)
		h.kill()
		release()
		// The keeper lives on with the exits.
		if h.keeperPID() == 0 {
			t.Fatal("the keeper died with the manager")
		}
		h.until("all workers have ended", func() bool { return len(h.processes()) == 1 })
		h.start()
		p.waitFor("all results", func() bool { return len(p.results) >= len(ids) })
		checkLong(t, p.once(ids))
		ranOnce(t, marks, ids)
		h.until("the queue is empty", func() bool { return p.depth("mayfly.pool.default.normal") == 0 })
		h.until("only the manager is left", func() bool { return len(h.processes()) == 0 })
	})
}

// TestManagerKilledWhileRunning is the same with tasks that still run when the next manager comes.
func TestManagerKilledWhileRunning(t *testing.T) {
	t.Parallel()
	eachVersion(t, func(t *testing.T, b *broker.Broker, url string) {
		h := newHost(t, "MAYFLY_AMQP_URL="+url)
		h.start()
		p := newProducer(t, url)
		ids, marks, release := longTasks(h, func(body string) { p.publish("default", body) }, 5)
		for range 3 {
			h.kill()
			h.start()
			h.until("all are adopted", func() bool { return h.running() == len(ids) })
		}
		release()
		p.waitFor("all results", func() bool { return len(p.results) >= len(ids) })
		checkLong(t, p.once(ids))
		ranOnce(t, marks, ids)
	})
}

// TestKeeperKilled kills the keeper: its workers die, their tasks run again as new attempts, and no try is used up.
func TestKeeperKilled(t *testing.T) {
	t.Parallel()
	eachVersion(t, func(t *testing.T, b *broker.Broker, url string) {
		h := newHost(t, "MAYFLY_AMQP_URL="+url)
		h.start()
		p := newProducer(t, url)
		ids, marks, release := longTasks(h, func(body string) { p.publish("default", body) }, 5)
		old := h.processes()
		if err := syscall.Kill(h.keeperPID(), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		h.until("the old workers are dead", func() bool {
			now := h.processes()
			for pid := range old {
				if now[pid] == old[pid] && now[pid] != "" {
					return false
				}
			}
			return true
		})
		h.until("all run again", func() bool { return h.running() == len(ids) })
		release()
		p.waitFor("all results", func() bool { return len(p.results) >= len(ids) })
		for id, r := range p.once(ids) {
			if r.Attempt != 2 || len(r.Attempts) != 2 || r.Attempts[0].Cause != queue.CauseHostLost || r.ExitCode == nil || *r.ExitCode != 5 {
				t.Errorf("task %s: %+v", id, r)
			}
			text, _ := os.ReadFile(filepath.Join(marks, id))
			if n := strings.Count(string(text), "x"); n != 2 {
				t.Errorf("task %s ran %d times, want twice", id, n)
			}
		}
	})
}

// TestBrokerRestarted stops the broker while tasks run, lets some end while it is away, and starts it again.
func TestBrokerRestarted(t *testing.T) {
	t.Parallel()
	for _, v := range broker.Versions {
		t.Run(string(v), func(t *testing.T) {
			b := broker.Start(t, v)
			url := b.URL()
			h := newHost(t, "MAYFLY_AMQP_URL="+url)
			h.start()
			p := newProducer(t, url)
			ids, marks, release := longTasks(h, func(body string) { p.publish("default", body) }, 20)
			waiting := []string{}
			for i := range 50 {
				id := fmt.Sprintf("waits%d", i)
				waiting = append(waiting, id)
				p.publish("default.low", fmt.Sprintf(`{"id": %q, "command": ["sh", "-c", "exit 5"], "resources": {"cpu": 4}}`, id))
			}
			p.conn.Close()
			// In good order: a broker that is killed within seconds of a quorum queue's declaration may lose the queue, which
			// is no matter of ours (seen with 4.0.5).
			if err := b.Stop(); err != nil {
				t.Fatal(err)
			}
			release()
			h.until("all workers have ended", func() bool { return h.running() == 0 })
			if err := b.Start(); err != nil {
				t.Fatal(err)
			}
			p.connect(url)
			p.waitFor("all results", func() bool { return len(p.results) >= len(ids)+len(waiting) })
			checkLong(t, p.once(ids))
			p.once(waiting)
			ranOnce(t, marks, ids)
			h.until("the queues are empty", func() bool {
				return p.depth("mayfly.pool.default.normal") == 0 && p.depth("mayfly.pool.default.low") == 0
			})
		})
	}
}

// TestDrainAndReturn stops a manager by one SIGTERM: what it can finish it finishes, the rest is returned and run by the next.
func TestDrainAndReturn(t *testing.T) {
	t.Parallel()
	eachVersion(t, func(t *testing.T, b *broker.Broker, url string) {
		h := newHost(t, "MAYFLY_AMQP_URL="+url, "MAYFLY_DRAIN_TIMEOUT=1s")
		h.start()
		p := newProducer(t, url)
		ids, _, release := longTasks(h, func(body string) { p.publish("default", body) }, 3)
		p.publish("default", `{"id": "waits", "command": ["true"], "resources": {"cpu": 4}}`)
		h.until("the last one waits", func() bool { return len(h.tasks()) == 4 })
		h.signal(syscall.SIGTERM)
		if err := h.wait(); err != nil {
			t.Errorf("the drained manager ended with %v", err)
		}
		h.nothingLeft()
		if n := p.depth("mayfly.pool.default.normal"); n != 4 {
			t.Errorf("%d tasks are back in the queue, want 4", n)
		}
		release()
		h.start()
		p.waitFor("all results", func() bool { return len(p.results) >= 4 })
		for id, r := range p.once(ids) {
			if r.Attempt != 2 || *r.ExitCode != 5 {
				t.Errorf("task %s: %+v", id, r)
			}
		}
		if r := p.wait("waits"); r.State != queue.Succeeded || r.Attempt != 1 {
			t.Errorf("result = %+v", r)
		}
	})
}

// TestDrainCommand has a manager that leaves its workers to the next one when it is stopped wait for them when it is drained, as long as it is told
// to.
func TestDrainCommand(t *testing.T) {
	t.Parallel()
	h := newHost(t, "MAYFLY_ON_STOP=keep", "MAYFLY_DRAIN_TIMEOUT=1ms")
	h.start()
	gate := filepath.Join(h.marks(), "gate")
	h.submit(fmt.Sprintf(`{"id": "long", "shell": "while ! test -e %s; do sleep 0.05; done; exit 5"}`, gate))
	h.until("it runs", func() bool { return h.running() == 1 })
	h.expect(2, "", `cannot use --timeout=-1s`, "drain", "--timeout", "-1s")
	drained := make(chan int)
	go func() {
		_, _, code := h.mayfly("", "drain", "--wait", "--timeout", "1h")
		drained <- code
	}()
	h.until("it drains", func() bool { info, err := h.info(); return err == nil && info.State == "draining" })
	select {
	case code := <-drained:
		t.Fatalf("drained with code %d while a task runs", code)
	default:
	}
	if err := os.WriteFile(gate, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if code := <-drained; code != 0 {
		t.Errorf("mayfly drain: exit code %d", code)
	}
	if err := h.wait(); err != nil {
		t.Errorf("the manager ended with %v", err)
	}
	h.nothingLeft()
	h.start()
	if r := h.result("long"); r.ExitCode == nil || *r.ExitCode != 5 || r.Attempt != 1 {
		t.Errorf("%+v", r)
	}
}

// TestUpgrade stops a manager with MAYFLY_ON_STOP=keep and starts the next: no worker notices.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	eachVersion(t, func(t *testing.T, b *broker.Broker, url string) {
		h := newHost(t, "MAYFLY_AMQP_URL="+url, "MAYFLY_ON_STOP=keep")
		h.start()
		p := newProducer(t, url)
		ids, marks, release := longTasks(h, func(body string) { p.publish("default", body) }, 5)
		h.signal(syscall.SIGTERM)
		if err := h.wait(); err != nil {
			t.Error(err)
		}
		h.start()
		h.until("all are adopted", func() bool { return h.running() == len(ids) })
		release()
		p.waitFor("all results", func() bool { return len(p.results) >= len(ids) })
		checkLong(t, p.once(ids))
		ranOnce(t, marks, ids)
	})
}

// TestSecondSignal stops a manager at once: workers are killed, their tasks are back.
func TestSecondSignal(t *testing.T) {
	t.Parallel()
	eachVersion(t, func(t *testing.T, b *broker.Broker, url string) {
		h := newHost(t, "MAYFLY_AMQP_URL="+url, "MAYFLY_DRAIN_TIMEOUT=1h", "MAYFLY_GRACE=1h")
		h.start()
		p := newProducer(t, url)
		longTasks(h, func(body string) { p.publish("default", body) }, 3)
		h.signal(syscall.SIGTERM)
		h.until("it drains", func() bool { info, err := h.info(); return err == nil && info.State == "draining" })
		h.signal(syscall.SIGTERM)
		h.wait()
		h.nothingLeft()
		if n := p.depth("mayfly.pool.default.normal"); n != 3 {
			t.Errorf("%d tasks are back in the queue, want 3", n)
		}
	})
}
