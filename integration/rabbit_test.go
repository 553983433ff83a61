package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
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
