package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/mayfly/mayfly/integration/broker"
	"github.com/mayfly/mayfly/queue"
)

// The benchmarks of many: what grows with the tasks that have run, that run, and that wait. MAYFLY_BENCH_SOAK, MAYFLY_BENCH_WORKERS and MAYFLY_BENCH_WAITING
// are their numbers, which are those of the documents' tables otherwise.

// calm is how long a manager is left alone before what it holds is measured: what was to be done is done, and memory is given back.
const calm = 8 * time.Second

// BenchmarkSoak runs tasks through one manager in ten parts and reports what it holds at rest after the second one, when its history is full, and by how much that
// has grown after the last.
func BenchmarkSoak(b *testing.B) {
	const parts, full = 10, 2
	part := envNumber(b, "MAYFLY_BENCH_SOAK", 50_000) / parts
	for b.Loop() {
		url := broker.Shared(b, broker.V40).Vhost(b)
		h := newHost(b, "MAYFLY_AMQP_URL="+url, "MAYFLY_CPUS=2", "MAYFLY_LOG_LEVEL=warn", fmt.Sprintf("MAYFLY_HISTORY=%d", part))
		h.start()
		h.connected()
		p := newProducer(b, url)
		var before holding
		var rates []float64
		for i := range parts {
			begin := time.Now()
			publishAll(b, p.ch, "mayfly.tasks", "default", part, trueTasks(fmt.Sprint("part", i, "-")))
			p.waitFor("the results of a part", func() bool { return p.total >= (i+1)*part })
			rates = append(rates, float64(part)/time.Since(begin).Seconds())
			p.forget()
			time.Sleep(calm)
			if i+1 == full {
				before = h.holds(b)
			}
		}
		after, run := h.holds(b), float64((parts-full)*part)
		b.ReportMetric(float64(parts*part), "tasks")
		b.ReportMetric(slices.Min(rates[1:])/slices.Max(rates[1:]), "slowest-of-fastest")
		b.ReportMetric(float64(after.rss)/1024, "rss-MiB")
		b.ReportMetric(float64(after.rss-before.rss)*1024/run, "grown-B/task")
		b.ReportMetric(float64(after.files-before.files), "files-grown")
		b.ReportMetric(float64(after.threads-before.threads), "threads-grown")
		b.ReportMetric(float64(after.disk-before.disk)/run, "disk-B/task")
		h.stop()
	}
	b.ReportMetric(0, "ns/op")
}

// BenchmarkWorkers has many workers run at once: how fast they come, what they hold, what one more task feels of them, how fast they go.
func BenchmarkWorkers(b *testing.B) {
	for _, workers := range []int{500, envNumber(b, "MAYFLY_BENCH_WORKERS", 2000)} {
		b.Run(fmt.Sprint(workers), func(b *testing.B) { atOnce(b, workers) })
	}
}

func atOnce(b *testing.B, workers int) {
	const probes = 200
	for b.Loop() {
		url := broker.Shared(b, broker.V40).Vhost(b)
		h := newHost(b, "MAYFLY_AMQP_URL="+url, "MAYFLY_LOG_LEVEL=warn", fmt.Sprintf("MAYFLY_CPUS=%d", workers), fmt.Sprintf("MAYFLY_MEMORY=%dMiB", 32*(workers+10)))
		h.start()
		h.connected()
		p := newProducer(b, url)
		sleeper := func(i int) amqp.Publishing {
			return amqp.Publishing{Body: fmt.Appendf(nil, `{"id": "w%d", "command": ["sleep", "10000"], "labels": {"kind": "sleeper"}, "resources": {"cpu": 0.5, "memory": "16MiB"}}`, i)}
		}
		p.publish("default", string(sleeper(workers).Body))
		h.until("one runs", func() bool { return h.running() == 1 })
		p.latency(b, "before", probes)
		time.Sleep(calm)
		files := func() int { return entries(b, h.keeperPID(), "fd") }
		held := func() int { return memory(b, h.cmd.Process.Pid, "Pss:") + memory(b, h.keeperPID(), "Pss:") }
		one, opened := held(), files()
		begin := time.Now()
		publishAll(b, p.ch, "mayfly.tasks", "default", workers, sleeper)
		h.until("all run", func() bool { return h.running() == workers+1 })
		b.ReportMetric(float64(workers)/time.Since(begin).Seconds(), "starts/s")
		time.Sleep(calm)
		b.ReportMetric(float64(held()-one)/float64(workers), "KiB/worker")
		b.ReportMetric(float64(files()-opened)/float64(workers), "files/worker")
		b.ReportMetric(p.latency(b, "among", probes), "p50-ms")
		begin = time.Now()
		h.expect(0, "", "", "cancel", "--label", "kind=sleeper")
		p.waitFor("all results", func() bool { return p.total == workers+1+2*probes })
		b.ReportMetric(float64(workers+1)/time.Since(begin).Seconds(), "ends/s")
		h.stop()
	}
	b.ReportMetric(0, "ns/op")
}

// latency runs so many tasks, one after the other, and returns the milliseconds from publishing to the result at the median.
func (p *producer) latency(b *testing.B, prefix string, count int) float64 {
	var all []time.Duration
	for i := range count {
		id := fmt.Sprint(prefix, i)
		begin := time.Now()
		p.publish("default", trueTask(id))
		p.wait(id)
		all = append(all, time.Since(begin))
	}
	slices.Sort(all)
	return float64(all[count/2].Microseconds()) / 1000
}

// BenchmarkWaiting has a manager work while many tasks wait, in RabbitMQ and in its own queue: what it holds, and its rate against that of a batch with nothing
// behind it.
func BenchmarkWaiting(b *testing.B) {
	const blocker = `{"id": "first", "command": ["sleep", "10000"], "resources": {"cpu": 2, "memory": "16MiB"}}`
	waiting := envNumber(b, "MAYFLY_BENCH_WAITING", 100_000)
	b.Run("4.0", func(b *testing.B) {
		for b.Loop() {
			alone := managed(b, "MAYFLY_AMQP_URL="+broker.Shared(b, broker.V40).Vhost(b))
			url := broker.Shared(b, broker.V40).Vhost(b)
			h := newHost(b, "MAYFLY_AMQP_URL="+url, "MAYFLY_CPUS=2", "MAYFLY_LOG_LEVEL=warn")
			h.start()
			h.connected()
			p := newProducer(b, url)
			time.Sleep(calm)
			b.ReportMetric(float64(h.holds(b).rss)/1024, "rss-before-MiB")
			p.publish("default", blocker)
			h.until("one runs", func() bool { return h.running() == 1 })
			publishAll(b, p.ch, "mayfly.tasks", "default", waiting, trueTasks("t"))
			time.Sleep(calm)
			b.ReportMetric(float64(h.holds(b).rss)/1024, "rss-MiB")
			h.expect(0, "", "", "cancel", "first")
			took := p.batchTakes()
			b.ReportMetric(alone.Seconds()/took.Seconds(), "of-alone")
			b.ReportMetric(batch/took.Seconds(), "results/s")
			h.stop()
		}
		b.ReportMetric(0, "ns/op")
	})
	b.Run("embedded", func(b *testing.B) {
		for b.Loop() {
			h := newHost(b, "MAYFLY_CPUS=2", "MAYFLY_LOG_LEVEL=warn")
			h.start()
			time.Sleep(calm)
			b.ReportMetric(float64(h.holds(b).rss)/1024, "rss-before-MiB")
			h.submit(blocker)
			h.until("one runs", func() bool { return h.running() == 1 })
			lines, begin := trueLines(waiting), time.Now()
			if out, errs, code := h.mayfly(lines, "submit", "--lines", "-"); code != 0 {
				b.Fatalf("%d: %s %s", code, tail(out, 500), tail(errs, 500))
			}
			b.ReportMetric(float64(waiting)/time.Since(begin).Seconds(), "submits/s")
			time.Sleep(calm)
			b.ReportMetric(float64(h.holds(b).rss)/1024, "rss-MiB")
			ended := func() float64 { return h.scrape()[`mayfly_tasks_total{cause="none",pool="default",state="succeeded"}`] }
			h.expect(0, "", "", "cancel", "first")
			h.until("some have ended", func() bool { return ended() >= batch/20 })
			first := ended()
			begin = time.Now()
			h.until("a batch has ended", func() bool { return ended() >= first+batch })
			b.ReportMetric((ended()-first)/time.Since(begin).Seconds(), "results/s")
			h.stop()
		}
		b.ReportMetric(0, "ns/op")
	})
}

// forget lets go of the results, and checks that each was a success.
func (p *producer) forget() {
	p.tb.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	for id, list := range p.results {
		if len(list) != 1 || list[0].State != queue.Succeeded {
			p.tb.Fatalf("%s: %+v", id, list)
		}
	}
	clear(p.results)
}

// holding is what a manager has: KiB of memory, open files, threads, bytes of its state directory.
type holding struct {
	rss, files, threads int
	disk                int64
}

func (h *host) holds(b *testing.B) (was holding) {
	b.Helper()
	pid := h.cmd.Process.Pid
	was.rss, was.files, was.threads = memory(b, pid, "Rss:"), entries(b, pid, "fd"), entries(b, pid, "task")
	err := filepath.WalkDir(filepath.Join(h.dir, "state"), func(_ string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			was.disk += info.Size()
		}
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	return was
}

// entries counts those of a directory that the kernel shows of a process.
func entries(b *testing.B, pid int, dir string) int {
	b.Helper()
	list, err := os.ReadDir(fmt.Sprintf("/proc/%d/%s", pid, dir))
	if err != nil {
		b.Fatal(err)
	}
	return len(list)
}
