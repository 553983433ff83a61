package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/mayfly/mayfly/integration/broker"
)

// The benchmarks of the whole, against what people would write by hand. Compare within one run: machines differ and are noisy, ratios less so.
// `make bench` runs them; docs/performance.md says what they mean.

// batch is how many tasks one measurement of throughput runs.
const batch = 2000

// BenchmarkThroughput runs `true` for each message of a queue: by a bare loop that receives, executes, publishes a confirmed result and
// acknowledges, four at a time, without limits or anything kept; and by the manager, everything on. They take turns on one broker; "of-loop" is the
// ratio of the manager's rate to the loop's.
func BenchmarkThroughput(b *testing.B) {
	for _, v := range broker.Versions {
		b.Run(string(v), func(b *testing.B) {
			br := broker.Shared(b, v)
			var loop, manager time.Duration
			for b.Loop() {
				loop += bareLoop(b, br.Vhost(b))
				manager += managed(b, "MAYFLY_AMQP_URL="+br.Vhost(b))
			}
			n := float64(b.N) * batch
			b.ReportMetric(n/manager.Seconds(), "tasks/s")
			b.ReportMetric(n/loop.Seconds(), "loop-tasks/s")
			b.ReportMetric(loop.Seconds()/manager.Seconds(), "of-loop")
			b.ReportMetric(0, "ns/op")
		})
	}
	b.Run("embedded", func(b *testing.B) {
		var took time.Duration
		for b.Loop() {
			took += embedded(b)
		}
		b.ReportMetric(float64(b.N)*batch/took.Seconds(), "tasks/s")
		b.ReportMetric(0, "ns/op")
	})
}

// bareLoop is what people write: four workers, each receives, executes, publishes the result, waits for its confirm, acknowledges. Its results go where the manager's do, to the
// same consumer.
func bareLoop(b *testing.B, url string) time.Duration {
	must := func(err error) {
		if err != nil {
			b.Fatal(err)
		}
	}
	p := newProducer(b, url)
	conn, err := amqp.Dial(url)
	must(err)
	defer conn.Close()
	ch, err := conn.Channel()
	must(err)
	_, err = ch.QueueDeclare("in", true, false, false, false, amqp.Table{"x-queue-type": "quorum"})
	must(err)
	must(ch.Confirm(false))
	fill(b, ch, "", "in")
	must(ch.Qos(16, 0, false))
	in, err := ch.Consume("in", "", false, false, false, false, nil)
	must(err)
	var group sync.WaitGroup
	work := make(chan amqp.Delivery)
	for range 4 {
		group.Go(func() {
			for d := range work {
				var task struct {
					ID      string
					Command []string
				}
				if err := json.Unmarshal(d.Body, &task); err != nil {
					b.Error(err)
					continue
				}
				if err := exec.Command(task.Command[0], task.Command[1:]...).Run(); err != nil {
					b.Error(err)
				}
				c, err := ch.PublishWithDeferredConfirm("mayfly.results", "default."+task.ID, false, false,
					amqp.Publishing{DeliveryMode: amqp.Persistent, Body: fmt.Appendf(nil, `{"id": %q, "pool": "default", "state": "succeeded", "exit_code": 0}`, task.ID)})
				if err == nil {
					c.Wait()
					err = d.Ack(false)
				}
				if err != nil {
					b.Error(err)
				}
			}
		})
	}
	group.Go(func() {
		for range batch {
			work <- <-in
		}
		close(work)
	})
	took := p.batchTakes()
	group.Wait()
	p.forget()
	p.conn.Close()
	return took
}

// fill publishes a batch of tasks, confirmed.
func fill(b *testing.B, ch *amqp.Channel, exchange, key string) {
	publishAll(b, ch, exchange, key, batch, trueTasks("t"))
}

// publishAll publishes so many messages, each made by a function, confirmed.
func publishAll(b *testing.B, ch *amqp.Channel, exchange, key string, count int, message func(i int) amqp.Publishing) {
	var confirms []*amqp.DeferredConfirmation
	for i := range count {
		m := message(i)
		m.DeliveryMode = amqp.Persistent
		c, err := ch.PublishWithDeferredConfirm(exchange, key, true, false, m)
		if err != nil {
			b.Fatal(err)
		}
		confirms = append(confirms, c)
	}
	for _, c := range confirms {
		c.Wait()
	}
}

// managed has a manager work through a batch, and returns the time from the first result's coming to the last one's, scaled to the whole batch: its
// start is measured elsewhere.
func managed(b *testing.B, env string) time.Duration {
	h := newHost(b, env, "MAYFLY_CPUS=2", "MAYFLY_LOG_LEVEL=warn")
	h.start()
	h.connected()
	url := strings.TrimPrefix(env, "MAYFLY_AMQP_URL=")
	p := newProducer(b, url)
	h.stop() // the queues are there now
	fill(b, p.ch, "mayfly.tasks", "default")
	h.start()
	took := p.batchTakes()
	p.forget()
	h.stop()
	return took
}

// batchTakes waits for a batch of results and returns how long it takes from a twentieth of it to its end, scaled to the whole.
func (p *producer) batchTakes() time.Duration {
	p.waitFor("the first results", func() bool { return p.total >= batch/20 })
	p.mu.Lock()
	begin, first := time.Now(), p.total
	p.mu.Unlock()
	last := 0
	p.waitFor("the results of a batch", func() bool { last = p.total; return last >= batch })
	return time.Since(begin) * batch / time.Duration(last-first)
}

// trueTask is a task that does nothing; trueTasks are many, and trueLines as many as lines.
func trueTask(id string) string {
	return fmt.Sprintf(`{"id": %q, "command": ["/bin/true"], "resources": {"cpu": 0.5, "memory": "16MiB"}}`, id)
}

func trueTasks(prefix string) func(i int) amqp.Publishing {
	return func(i int) amqp.Publishing { return amqp.Publishing{Body: []byte(trueTask(fmt.Sprint(prefix, i)))} }
}

func trueLines(count int) string {
	var lines strings.Builder
	for i := range count {
		fmt.Fprintln(&lines, trueTask(fmt.Sprint("t", i)))
	}
	return lines.String()
}

// embedded has a manager work through a batch from its own queue.
func embedded(b *testing.B) time.Duration {
	h := newHost(b, "MAYFLY_CPUS=2", "MAYFLY_LOG_LEVEL=warn")
	h.start()
	lines, begin := trueLines(batch), time.Now()
	if out, errs, code := h.mayfly(lines, "submit", "--lines", "-", "--wait"); code != 0 {
		b.Fatalf("%d: %s %s", code, tail(out, 500), tail(errs, 500))
	}
	took := time.Since(begin)
	h.stop()
	return took
}

// BenchmarkFootprint measures what an idle manager holds.
func BenchmarkFootprint(b *testing.B) {
	const watch = 20 * time.Second
	for b.Loop() {
		h := newHost(b, "MAYFLY_AMQP_URL="+broker.Shared(b, broker.V40).Vhost(b), "MAYFLY_LOG_LEVEL=warn")
		h.start()
		h.connected()
		time.Sleep(calm)
		pid := h.cmd.Process.Pid
		before, cpu := switches(b, pid), cpuTime(b, pid)
		time.Sleep(watch)
		b.ReportMetric(float64(switches(b, pid)-before)/watch.Seconds(), "wakeups/s")
		b.ReportMetric(float64(cpuTime(b, pid)-cpu)/watch.Seconds()*10, "cpu-ms/s")
		b.ReportMetric(float64(memory(b, pid, "Rss:"))/1024, "rss-MiB")
		b.ReportMetric(float64(memory(b, pid, "Pss:"))/1024, "pss-MiB")
		b.ReportMetric(float64(entries(b, pid, "task")), "threads")
		h.stop()
	}
	b.ReportMetric(0, "ns/op")
}

// memory reads a figure of a process's memory in KiB.
func memory(b *testing.B, pid int, field string) (kib int) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == field {
			kib, _ = strconv.Atoi(f[1])
		}
	}
	return kib
}

// switches counts how often the threads of a process were woken.
func switches(b *testing.B, pid int) (n int) {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil {
		b.Fatal(err)
	}
	for _, name := range threads {
		text, _ := os.ReadFile(name)
		for line := range strings.Lines(string(text)) {
			if f := strings.Fields(line); len(f) == 2 && f[0] == "voluntary_ctxt_switches:" {
				k, _ := strconv.Atoi(f[1])
				n += k
			}
		}
	}
	return n
}

// cpuTime is what a process has used, in hundredths of a second.
func cpuTime(b *testing.B, pid int) (ticks int) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		b.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	f := strings.Fields(rest)
	user, _ := strconv.Atoi(f[11])
	system, _ := strconv.Atoi(f[12])
	return user + system
}
