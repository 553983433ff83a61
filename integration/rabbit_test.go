package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/mayfly/mayfly/integration/broker"
	"github.com/mayfly/mayfly/queue"
)

// eachVersion runs a test on a fresh virtual host of each broker version.
func eachVersion(t *testing.T, test func(t *testing.T, b *broker.Broker, url string)) {
	for _, v := range broker.Versions {
		t.Run(string(v), func(t *testing.T) {
			t.Parallel()
			b := broker.Shared(t, v)
			test(t, b, b.Vhost(t))
		})
	}
}

// TestForeignProducers has clients in C and Python publish tasks and read the replies.
func TestForeignProducers(t *testing.T) {
	t.Parallel()
	eachVersion(t, func(t *testing.T, b *broker.Broker, url string) {
		h := newHost(t, "MAYFLY_AMQP_URL="+url)
		h.start()
		p := newProducer(t, url)

		run := func(name string, args ...string) string {
			t.Helper()
			out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
			if err != nil {
				t.Fatalf("%s: %v\n%s", name, err, out)
			}
			return string(out)
		}
		run("amqp-publish", "--url="+url, "-e", "mayfly.tasks", "-r", "default", "-p", "-b",
			`{"id": "from-c", "command": ["sh", "-c", "echo out; echo err >&2; exit 7"]}`)
		r := p.wait("from-c")
		if r.State != queue.Failed || r.Cause != queue.CauseExit || r.ExitCode == nil || *r.ExitCode != 7 ||
			r.StdoutTail != "out\n" || r.StderrTail != "err\n" || r.Host == "" || r.Attempt != 1 || len(r.Attempts) != 1 {
			t.Errorf("result = %+v", r)
		}
		// The distribution's Python, which has the distribution's pika.
		for _, args := range [][]string{{url}, {url, "direct"}} {
			said := run("/usr/bin/python3", append([]string{"testdata/producer.py"}, args...)...)
			checkReply(t, said)
		}
		for _, band := range queue.Bands {
			h.until("the queues are empty", func() bool { return p.depth("mayfly.pool.default."+string(band)) == 0 })
		}
	})
}

func checkReply(t *testing.T, said string) {
	t.Helper()
	var reply struct {
		CorrelationID string `json:"correlation_id"`
		Body          queue.Result
	}
	if err := json.Unmarshal([]byte(said), &reply); err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	if reply.CorrelationID != "corr-1" || reply.Body.State != queue.Succeeded || reply.Body.Cause != queue.CauseNone ||
		reply.Body.StdoutTail != "42\n" || string(reply.Body.Result) != `{"answer": 42}` && string(reply.Body.Result) != `{"answer":42}` {
		t.Errorf("reply = %s", said)
	}
}

// TestMixedLoad sends many tasks of all kinds and counts what comes of them.
func TestMixedLoad(t *testing.T) {
	t.Parallel()
	eachVersion(t, func(t *testing.T, b *broker.Broker, url string) {
		count := 5000
		if testing.Short() {
			count = 500
		}
		h := newHost(t, "MAYFLY_AMQP_URL="+url, "MAYFLY_CPUS=8", "MAYFLY_LOG_LEVEL=warn", "MAYFLY_OUTPUT_MAX=64KiB")
		h.start()
		p := newProducer(t, url)
		marks := h.marks()

		want := map[string]queue.Cause{}
		malformed := 0
		for i := range count {
			id := fmt.Sprintf("t%05d", i)
			mark := fmt.Sprintf("umask 0; echo x >> %s/%s; ", marks, id)
			doc := map[string]any{"id": id, "resources": map[string]any{"cpu": 0.5, "memory": "16MiB"}}
			switch {
			case i%500 == 17: // floods its output: 1 GB in all
				doc["shell"] = mark + "head -c 200000000 /dev/zero"
				want[id] = queue.CauseNone
			case i%100 == 3:
				doc["shell"] = mark + "sleep 600"
				doc["timeout"] = "2s"
				want[id] = queue.CauseTimeout
			case i%100 == 4: // forks into the background, ignores TERM there, leaves with 0
				doc["shell"] = mark + `(trap "" TERM; setsid sleep 600) & exit 0`
				want[id] = queue.CauseNone
			case i%20 == 5:
				doc["shell"] = mark + "exit 9"
				want[id] = queue.CauseExit
			case i%50 == 6:
				doc["shell"] = mark + "kill -KILL $$"
				want[id] = queue.CauseSignal
			case i%50 == 7: // no task at all
				malformed++
				p.publish("default", fmt.Sprintf(`{"id": %q, "comand": ["true"]}`, id))
				want[id] = queue.CauseRejected
				continue
			case i%50 == 8: // fails once
				doc["shell"] = mark + `test "$MAYFLY_ATTEMPT" = 2`
				doc["max_attempts"], doc["backoff"] = 2, "100ms"
				want[id] = queue.CauseNone
			default:
				doc["shell"] = mark + "true"
				want[id] = queue.CauseNone
			}
			body, err := json.Marshal(doc)
			if err != nil {
				t.Fatal(err)
			}
			p.publish([]string{"default", "default.high", "default.low"}[i%3], string(body))
		}
		p.waitFor("all results", func() bool { return len(p.results) >= count })
		ids := []string{}
		for id := range want {
			ids = append(ids, id)
		}
		buried := 0
		for id, r := range p.once(ids) {
			if r.Cause != want[id] {
				t.Errorf("task %s: cause %s, want %s (%s)", id, r.Cause, want[id], r.Message)
			}
			if r.State == queue.Failed || r.State == queue.Rejected {
				buried++
			}
			runs, _ := os.ReadFile(filepath.Join(marks, id))
			if n := strings.Count(string(runs), "x"); n != len(r.Attempts) {
				t.Errorf("task %s ran %d times and reports %d attempts", id, n, len(r.Attempts))
			}
		}
		for _, band := range queue.Bands {
			h.until("the queues are empty", func() bool { return p.depth("mayfly.pool.default."+string(band)) == 0 })
		}
		if n := p.depth("mayfly.dead"); n != buried {
			t.Errorf("%d dead letters, want %d", n, buried)
		}
		h.until("all is idle", func() bool { return len(h.tasks()) == 0 })
		h.until("only the manager is left", func() bool { return len(h.processes()) == 0 })
	})
}

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

// TestReplyQueueGone has a reply address that nobody serves: the task is settled all the same.
func TestReplyQueueGone(t *testing.T) {
	t.Parallel()
	eachVersion(t, func(t *testing.T, b *broker.Broker, url string) {
		h := newHost(t, "MAYFLY_AMQP_URL="+url)
		h.start()
		p := newProducer(t, url)
		p.publishWith("default", amqp.Publishing{Body: []byte(`{"command": ["true"]}`), MessageId: "lonely", ReplyTo: "nobody", CorrelationId: "c"})
		if r := p.wait("lonely"); r.State != queue.Succeeded {
			t.Errorf("result = %+v", r)
		}
		h.until("the queue is empty", func() bool { return p.depth("mayfly.pool.default.normal") == 0 })
	})
}

// TestAcknowledgementTimeout has the broker time out the acknowledgement of a running task: it is adopted, never run again.
func TestAcknowledgementTimeout(t *testing.T) {
	t.Parallel()
	for _, v := range broker.Versions {
		t.Run(string(v), func(t *testing.T) {
			b := broker.StartWith(t, v, broker.Options{Config: "consumer_timeout = 5000\n"})
			// By default the broker looks once a minute.
			if _, err := b.Eval("application:set_env(rabbit, channel_tick_interval, 500), ok."); err != nil {
				t.Fatal(err)
			}
			h := newHost(t, "MAYFLY_AMQP_URL="+b.URL())
			h.start()
			p := newProducer(t, b.URL())
			ids, marks, release := longTasks(h, func(body string) { p.publish("default", body) }, 2)
			h.until("the broker has timed an acknowledgement out", func() bool {
				return strings.Contains(h.logged(), "consumer_timeout") || strings.Contains(h.logged(), "consumer-timeout")
			})
			h.until("the tasks are adopted", func() bool { return strings.Count(h.logged(), "task adopted") >= 2 })
			release()
			p.waitFor("all results", func() bool { return len(p.results) >= len(ids) })
			checkLong(t, p.once(ids))
			ranOnce(t, marks, ids)
		})
	}
}

// TestSubmitElsewhere submits a task on one host that only another one runs, and cancels one there.
func TestSubmitElsewhere(t *testing.T) {
	t.Parallel()
	eachVersion(t, func(t *testing.T, b *broker.Broker, url string) {
		a, z := newHost(t, "MAYFLY_AMQP_URL="+url, "MAYFLY_POOLS=a"), newHost(t, "MAYFLY_AMQP_URL="+url, "MAYFLY_POOLS=z")
		a.start()
		z.start()
		a.expect(3, "over there", "", "submit", "--wait", "--pool", "z", "--shell", "echo over there; exit 3")
		a.expect(0, "far", "", "submit", "--pool", "z", "--id", "far", "--", "sleep", "1000")
		z.until("it runs", func() bool { return z.running() == 1 })
		a.expect(0, "all hosts were told", "", "cancel", "far")
		a.expect(130, "", "cancelled", "wait", "far")
		a.expect(0, filepath.Base(z.dir), "", "show", "far")
		a.expect(1, "", "ran on another host", "logs", "far")
	})
}

// TestNameless has tasks without any id, killed with their manager: each is joined to its worker all the same.
func TestNameless(t *testing.T) {
	t.Parallel()
	eachVersion(t, func(t *testing.T, b *broker.Broker, url string) {
		h := newHost(t, "MAYFLY_AMQP_URL="+url)
		h.start()
		p := newProducer(t, url)
		marks := filepath.Join(h.marks(), "all")
		const n = 4
		for range n {
			p.publish("default", fmt.Sprintf(`{"shell": "umask 0; echo x >> %[1]s; while ! test -e %[1]s.go; do sleep 0.05; done", "resources": {"cpu": 1}}`, marks))
		}
		runs := func() int {
			text, _ := os.ReadFile(marks)
			return strings.Count(string(text), "x")
		}
		h.until("all run", func() bool { return runs() == n && h.running() == n })
		h.kill()
		h.start()
		if err := os.WriteFile(marks+".go", nil, 0o600); err != nil {
			t.Fatal(err)
		}
		p.waitFor("all results", func() bool { return p.total >= n })
		h.until("the queue is empty", func() bool { return p.depth("mayfly.pool.default.normal") == 0 && len(h.tasks()) == 0 })
		if runs() != n {
			t.Errorf("%d runs of %d tasks", runs(), n)
		}
		if p.total != n {
			t.Errorf("%d results of %d tasks", p.total, n)
		}
	})
}
