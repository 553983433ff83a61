package metrics

import (
	"math"
	"runtime"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/mayfly/mayfly/gpu"
	"github.com/mayfly/mayfly/manager"
)

// desc describes a metric.
func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

var (
	buildInfo     = desc("mayfly_build_info", "1, with what this manager was built from.", "version", "goversion")
	stateNow      = desc("mayfly_state", "1 for the state that the manager is in: serving, draining or stopped.", "state")
	held          = desc("mayfly_tasks_held", "Tasks in this host's hands: waiting, running, stopping or settling.", "status")
	oldest        = desc("mayfly_oldest_waiting_seconds", "How long the task that waits the longest has been waiting in this host's hands; 0 where none waits.")
	unconfirmed   = desc("mayfly_unconfirmed", "Ended tasks whose settlement is under way.")
	unconfirmMax  = desc("mayfly_unconfirmed_limit", "So many of them, and nothing more is started.")
	demand        = desc("mayfly_demand", "Messages that the host is prepared to hold.")
	quarantined   = desc("mayfly_quarantined_attempts", "Ended attempts of which something does not die and keeps its share of the host.")
	cpuCores      = desc("mayfly_cpu_cores", "Cores that are lent to workers, and that could be.", "kind")
	memoryBytes   = desc("mayfly_memory_bytes", "Memory that is lent to workers, and that could be.", "kind")
	diskBytes     = desc("mayfly_disk_bytes", "Disk space that is lent to workers, and that could be.", "kind")
	stateDirFree  = desc("mayfly_state_dir_free_bytes", "What is free on the file system of the state directory.")
	stateDirSize  = desc("mayfly_state_dir_size_bytes", "The size of that file system.")
	hostsNeeded   = desc("mayfly_hosts_needed", "Hosts like this one that the messages in the pool's queues would fill; the same on like hosts of a broker.", "pool")
	queuedCores   = desc("mayfly_queued_cpu_cores", "Cores that the messages in the pool's queues need, each as much as the pool's tasks on this host on average.", "pool")
	queuedMemory  = desc("mayfly_queued_memory_bytes", "Memory that the messages in the pool's queues need, each as much as the pool's tasks on this host on average.", "pool")
	queuedDisk    = desc("mayfly_queued_disk_bytes", "Disk space that the messages in the pool's queues need, each as much as the pool's tasks on this host on average.", "pool")
	queuedGPUs    = desc("mayfly_queued_gpus", "GPUs that the messages in the pool's queues need, each as much as the pool's tasks on this host on average.", "pool")
	queueDepth    = desc("mayfly_queue_depth", "Messages that wait in the queue and that no host has taken; the same on all hosts of a broker.", "pool", "band")
	brokerUp      = desc("mayfly_broker_connected", "1 while the broker is in reach. The embedded queue has none.")
	brokerAgain   = desc("mayfly_broker_reconnects_total", "How often the broker was reached after it had been out of reach.")
	keeperUp      = desc("mayfly_keeper_up", "1 while there is a keeper; an idle host has none.")
	keeperDeaths  = desc("mayfly_keeper_deaths_total", "Keepers that died, with their workers.")
	gpus          = desc("mayfly_gpus", "GPUs and instances that are lent, by condition: free, held, checking or quarantined.", "condition")
	gpuInfo       = desc("mayfly_gpu_info", "1, with what a GPU or an instance is.", "uuid", "index", "model", "profile")
	gpuMemory     = desc("mayfly_gpu_memory_bytes", "The memory of a GPU or an instance.", "uuid")
	gpuQuarantine = desc("mayfly_gpu_quarantined", "1 while a GPU or an instance is in quarantine.", "uuid")
	gpuSeen       = desc("mayfly_gpu_seen_timestamp_seconds", "When the GPU was looked at last, as it is while it is held, checked or in quarantine: what is said of its memory in use, utilization, power and temperature is from then.", "uuid")
	gpuUsed       = desc("mayfly_gpu_memory_used_bytes", "Memory in use on a GPU or an instance.", "uuid")
	gpuBusy       = desc("mayfly_gpu_utilization_ratio", "The share of the time in which the GPU was busy, 0 to 1.", "uuid")
	gpuPower      = desc("mayfly_gpu_power_watts", "The power that the GPU draws.", "uuid")
	gpuHeat       = desc("mayfly_gpu_temperature_celsius", "The GPU's temperature.", "uuid")
)

// snapshot shows how the host is at the moment of a scrape.
type snapshot struct {
	config Config
	depths *depths
}

// Describe implements prometheus.Collector.
func (s *snapshot) Describe(c chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{buildInfo, stateNow, held, oldest, unconfirmed, unconfirmMax, demand, quarantined, cpuCores, memoryBytes, diskBytes,
		stateDirFree, stateDirSize, hostsNeeded, queuedCores, queuedMemory, queuedDisk, queuedGPUs, queueDepth, brokerUp, brokerAgain, keeperUp, keeperDeaths, gpus, gpuInfo, gpuMemory, gpuQuarantine, gpuSeen, gpuUsed, gpuBusy,
		gpuPower, gpuHeat} {
		c <- d
	}
}

// sink takes metrics.
type sink chan<- prometheus.Metric

func (s sink) gauge(d *prometheus.Desc, value float64, labels ...string) {
	s <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
}

func (s sink) counter(d *prometheus.Desc, value uint64) {
	s <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(value))
}

// is is a truth as a number.
func is(truth bool) float64 {
	if truth {
		return 1
	}
	return 0
}

// Collect implements prometheus.Collector.
func (s *snapshot) Collect(c chan<- prometheus.Metric) {
	to := sink(c)
	to.gauge(buildInfo, 1, s.config.Version, runtime.Version())
	numbers := s.config.Numbers()
	collectNumbers(to, numbers)
	up, deaths := s.config.Keeper()
	to.gauge(keeperUp, is(up))
	to.counter(keeperDeaths, deaths)
	reach := true
	if s.config.Broker != nil {
		var again uint64
		reach, again = s.config.Broker()
		to.gauge(brokerUp, is(reach))
		to.counter(brokerAgain, again)
	}
	if reach {
		s.collectDepth(to, &numbers)
	}
	if free, size, err := s.config.Disk(); err == nil {
		to.gauge(stateDirFree, float64(free))
		to.gauge(stateDirSize, float64(size))
	}
	if s.config.GPUs != nil {
		collectGPUs(to, s.config.GPUs().GPUs)
	}
}

func collectNumbers(to sink, n manager.Numbers) {
	for _, state := range manager.States {
		to.gauge(stateNow, is(state == n.State), state)
	}
	for status, count := range n.Held {
		to.gauge(held, float64(count), string(status))
	}
	to.gauge(oldest, n.Oldest.Seconds())
	to.gauge(unconfirmed, float64(n.Unconfirmed))
	to.gauge(unconfirmMax, float64(n.UnconfirmedMax))
	to.gauge(demand, float64(n.Demand))
	to.gauge(quarantined, float64(n.Quarantined))
	for _, r := range []struct {
		d              *prometheus.Desc
		lent, capacity int64
		unit           float64
	}{
		{cpuCores, n.Lent.MilliCPU, n.Capacity.MilliCPU, 1000},
		{memoryBytes, n.Lent.Memory, n.Capacity.Memory, 1},
		{diskBytes, n.Lent.Disk, n.Capacity.Disk, 1},
	} {
		to.gauge(r.d, float64(r.lent)/r.unit, "lent")
		to.gauge(r.d, float64(r.capacity)/r.unit, "capacity")
	}
}

// collectDepth shows the depth of the queues of the host's pools, what that needs, and how many hosts that is work for.
func (s *snapshot) collectDepth(to sink, n *manager.Numbers) {
	depth := s.depths.get()
	for _, pool := range s.config.Pools {
		sum, known := 0, false
		for lane, count := range depth {
			if of, band, _ := strings.Cut(lane, "."); of == pool {
				to.gauge(queueDepth, float64(count), pool, band)
				sum, known = sum+count, true
			}
		}
		if known && n.PerHost[pool] > 0 {
			to.gauge(hostsNeeded, math.Ceil(float64(sum)/n.PerHost[pool]), pool)
		}
		if some := n.InHand[pool]; known && some.Tasks > 0 {
			need := some.Of(sum)
			to.gauge(queuedCores, need.CPU, pool)
			to.gauge(queuedMemory, float64(need.Memory), pool)
			to.gauge(queuedDisk, float64(need.Disk), pool)
			to.gauge(queuedGPUs, float64(need.GPUs), pool)
		}
	}
}

// collectGPUs shows the GPUs. A GPU whose instances are lent is shown, but counts for none; an instance has no power and no
// temperature of its own.
func collectGPUs(to sink, list []gpu.Status) {
	if len(list) == 0 {
		return
	}
	count := map[string]int{"free": 0, "held": 0, "checking": 0, "quarantined": 0}
	for _, g := range list {
		if !g.Divided {
			count[g.Condition]++
		}
		to.gauge(gpuInfo, 1, g.UUID, strconv.Itoa(g.Index), g.Model, g.Profile)
		to.gauge(gpuMemory, float64(g.Memory), g.UUID)
		to.gauge(gpuQuarantine, is(g.Reason != ""), g.UUID)
		if g.State.At.IsZero() || g.State.Lost != "" {
			continue
		}
		to.gauge(gpuSeen, float64(g.State.At.UnixMilli())/1000, g.UUID)
		if g.Parent != "" {
			to.gauge(gpuUsed, float64(g.State.Instances[g.UUID]), g.UUID)
			continue
		}
		to.gauge(gpuUsed, float64(g.State.Used), g.UUID)
		to.gauge(gpuBusy, g.State.Utilization, g.UUID)
		to.gauge(gpuPower, g.State.Power, g.UUID)
		to.gauge(gpuHeat, float64(g.State.Temperature), g.UUID)
	}
	for condition, n := range count {
		to.gauge(gpus, float64(n), condition)
	}
}
