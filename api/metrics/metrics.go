package metrics

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/mayfly/mayfly/gpu"
	"github.com/mayfly/mayfly/manager"
	"github.com/mayfly/mayfly/queue"
)

// Config says what is shown. The funcs are called at a scrape.
type Config struct {
	Version string
	// Pools are those of the configuration; what is of another one is counted for "other".
	Pools []string
	// Numbers are the manager's.
	Numbers func() manager.Numbers
	// Depth counts the waiting messages of each queue "<pool>.<band>"; it may take its time.
	Depth func(ctx context.Context) (map[string]int, error)
	// Broker says whether the broker is in reach, and how often it was reached again; nil where there is none.
	Broker func() (up bool, reconnects uint64)
	// Keeper says whether there is one, and how many have died.
	Keeper func() (up bool, deaths uint64)
	// GPUs shows the GPUs as they were seen last; nil on a host that has none to do with.
	GPUs func() gpu.Overview
	// Disk measures the file system of the state directory, in bytes.
	Disk func() (free, size uint64, err error)
}

// otherPool stands for pools that the configuration does not name.
const otherPool = "other"

// buckets are the bounds of the histograms in seconds, from a millisecond to a day.
var buckets = []float64{.001, .003, .01, .03, .1, .3, 1, 3, 10, 30, 60, 180, 600, 1800, 3600, 3 * 3600, 6 * 3600, 24 * 3600}

// Metrics counts what happens, and serves that and how the host is.
type Metrics struct {
	config  Config
	pools   map[string]bool
	tasks   *prometheus.CounterVec
	tries   *prometheus.CounterVec
	dead    *prometheus.CounterVec
	waits   *prometheus.HistogramVec
	runs    *prometheus.HistogramVec
	spawns  *prometheus.HistogramVec
	depths  depths
	open    sync.Once
	handler http.Handler
}

// New returns metrics that count.
func New(c Config) *Metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	histogram := func(name, help, label string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets,
			NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 100, NativeHistogramMinResetDuration: time.Hour}, []string{label})
	}
	m := &Metrics{config: c, pools: map[string]bool{}, depths: depths{ask: c.Depth},
		tasks:  counter("mayfly_tasks_total", "Tasks that this host settled for good, by how they ended.", "pool", "state", "cause"),
		tries:  counter("mayfly_attempts_total", "Attempts that ended on this host, by cause (none: the worker succeeded).", "pool", "cause"),
		dead:   counter("mayfly_dead_letters_total", "Messages that this host put among the dead letters.", "pool"),
		waits:  histogram("mayfly_task_wait_seconds", "Time from a task's queueing to the start of its first worker.", "pool"),
		runs:   histogram("mayfly_attempt_run_seconds", "Time that a worker ran.", "pool"),
		spawns: histogram("mayfly_spawn_seconds", "Time from a lease to the start of its worker (process or container).", "kind"),
	}
	if c.Broker != nil { // an embedded queue is asked at each scrape: it knows
		m.depths.age = depthAge
	}
	for _, pool := range c.Pools {
		m.pools[pool] = true
		m.begin(pool)
	}
	return m
}

// begin makes a pool's series, so that the first event is seen as an increase.
func (m *Metrics) begin(pool string) {
	m.dead.WithLabelValues(pool)
	m.waits.WithLabelValues(pool)
	m.runs.WithLabelValues(pool)
	m.tasks.WithLabelValues(pool, string(queue.Succeeded), string(queue.CauseNone))
	m.tasks.WithLabelValues(pool, string(queue.Cancelled), string(queue.CauseCancelled))
	m.tasks.WithLabelValues(pool, string(queue.Rejected), string(queue.CauseRejected))
	m.tasks.WithLabelValues(pool, string(queue.Failed), string(queue.CauseDeadline))
	for _, cause := range []queue.Cause{queue.CauseExit, queue.CauseSignal, queue.CauseTimeout, queue.CauseOOM, queue.CauseGPUOOM, queue.CauseGPUFault,
		queue.CauseDiskFull, queue.CauseStartError, queue.CauseHostLost} {
		m.tasks.WithLabelValues(pool, string(queue.Failed), string(cause))
		m.tries.WithLabelValues(pool, string(cause))
	}
	m.tries.WithLabelValues(pool, string(queue.CauseNone))
	m.tries.WithLabelValues(pool, string(queue.CauseCancelled))
}

// pool is the label for a pool.
func (m *Metrics) pool(name string) string {
	if m.pools[name] {
		return name
	}
	return otherPool
}

// Observer counts.
func (m *Metrics) Observer() manager.Observer {
	return manager.Observer{
		Started: func(s manager.Start) {
			if s.First {
				m.waits.WithLabelValues(m.pool(s.Pool)).Observe(s.Waited.Seconds())
			}
			if s.Spawned >= 0 {
				kind := "process"
				if s.Image {
					kind = "container"
				}
				m.spawns.WithLabelValues(kind).Observe(s.Spawned.Seconds())
			}
		},
		Ended: func(e manager.End) {
			pool := m.pool(e.Pool)
			m.tries.WithLabelValues(pool, string(e.Cause)).Inc()
			if e.Ran >= 0 {
				m.runs.WithLabelValues(pool).Observe(e.Ran.Seconds())
			}
		},
		Settled: func(s manager.Settlement) {
			pool := m.pool(s.Pool)
			m.tasks.WithLabelValues(pool, string(s.State), string(s.Cause)).Inc()
			if s.Buried {
				m.dead.WithLabelValues(pool).Inc()
			}
		},
	}
}

// registry has all that is shown.
func (m *Metrics) registry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(m.tasks, m.tries, m.dead, m.waits, m.runs, m.spawns, &snapshot{m.config, &m.depths},
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

// ServeHTTP answers a scrape.
func (m *Metrics) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m.open.Do(func() {
		// Not compressed: scrapes come through a Unix socket, or over a network that does not mind some kilobytes.
		m.handler = promhttp.HandlerFor(m.registry(), promhttp.HandlerOpts{DisableCompression: true})
	})
	m.handler.ServeHTTP(w, r)
}
