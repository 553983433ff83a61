package integration

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// simFigures are what a simulated fleet has cost.
type simFigures struct {
	Machine      string
	RabbitMQ     string
	Managers     int
	Cores        float64
	Tasks        int
	Rate         float64 // tasks published a second
	Load         float64 // the share of the cores that they keep busy
	MeanSeconds  float64 // a task lasts
	Window       int     // 0 where it is that of each host's own cores
	StartSeconds float64 // until all managers were there and all was said
	Seconds      float64 // from the first task to the last result

	// What was said to the broker and heard from it, by the managers alone.
	Start, Run, End tally `json:"-"`
	PerStart        map[string]float64
	PerTask         map[string]float64
	PerEnd          map[string]float64

	Broker              simBroker // while tasks ran
	ConnectionsPerHost  float64
	ChannelsPerHost     float64
	QueuesPerHost       float64
	QuorumQueues        float64
	BrokerCPUPerStart   float64 // seconds
	BrokerCPUPerTask    float64 // seconds
	ManagerCPUPerTask   float64 // seconds; with the fake workers, the producer and the taker of results
	BytesPerIdleManager float64 // heap and stacks
	BrokerBytesPerHost  float64 // before the first task
	Runs                int     // more than tasks where some ran twice

	Idleness          idleness
	ToStart, Ideal    quantiles // seconds
	OneCore, OneIdeal quantiles // the same of tasks of one core or less, with little memory
	Complaints        map[string]int
}

// simBroker is how a broker is.
type simBroker struct{ CPU, Memory, Channels, Queues, Quorum float64 }

// quantiles of a time.
type quantiles struct{ P50, P90, P99, Mean, Most float64 }

func quantilesOf(times []time.Duration) quantiles {
	if len(times) == 0 {
		return quantiles{}
	}
	slices.Sort(times)
	at := func(share float64) float64 { return times[min(len(times)-1, int(share*float64(len(times))))].Seconds() }
	sum := time.Duration(0)
	for _, t := range times {
		sum += t
	}
	return quantiles{at(0.5), at(0.9), at(0.99), sum.Seconds() / float64(len(times)), times[len(times)-1].Seconds()}
}

// per is what a tally has for each of so many.
func (t tally) per(n int) map[string]float64 {
	out := map[string]float64{}
	add := func(prefix string, counts map[string]int) {
		for name, count := range counts {
			out[prefix+cmp.Or(name, "task or result")] += float64(count) / float64(n)
		}
	}
	for prefix, s := range map[string]side{"said ": t.Said, "heard ": t.Heard} {
		add(prefix, s.Methods)
		add(prefix+"message: ", s.Messages)
		add(prefix+"body bytes: ", s.Bodies)
		out[prefix+"bytes"] = float64(s.Bytes) / float64(n)
		out[prefix+"methods"] = float64(s.all()) / float64(n)
	}
	return out
}

// table is for people.
func (f *simFigures) table() string {
	var b strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "%-44s "+format+"\n", append([]any{name}, args...)...)
	}
	line("managers, cores, tasks", "%d, %g, %d", f.Managers, f.Cores, f.Tasks)
	line("tasks a second, mean length", "%.1f, %.2f s", f.Rate, f.MeanSeconds)
	line("start, run", "%.1f s, %.1f s", f.StartSeconds, f.Seconds)
	for _, phase := range []struct {
		name string
		per  map[string]float64
	}{{"of a start", f.PerStart}, {"of a task", f.PerTask}, {"of an end", f.PerEnd}} {
		for _, name := range slices.Sorted(maps.Keys(phase.per)) {
			if phase.per[name] >= 0.0005 {
				line(phase.name+": "+name, "%.3f", phase.per[name])
			}
		}
	}
	line("connections, channels, queues a host", "%.1f, %.1f, %.2f (of these quorum queues %.0f in all)", f.ConnectionsPerHost, f.ChannelsPerHost, f.QueuesPerHost, f.QuorumQueues)
	line("processor of the broker a start", "%.1f ms", f.BrokerCPUPerStart*1e3)
	line("processor a task: broker, managers", "%.2f ms, %.2f ms", f.BrokerCPUPerTask*1e3, f.ManagerCPUPerTask*1e3)
	line("memory of an idle host: manager, broker", "%.0f KiB, %.0f KiB", f.BytesPerIdleManager/1024, f.BrokerBytesPerHost/1024)
	line("runs", "%d", f.Runs)
	line("cores busy, wasted, idle beside a waiting task", "%.1f %%, %.2f %%, %.1f %%", 100*f.Idleness.Busy, 100*f.Idleness.Waste, 100*f.Idleness.Beside)
	for _, q := range []struct {
		name string
		quantiles
	}{{"to start", f.ToStart}, {"to start, ideal", f.Ideal}, {"to start, small tasks", f.OneCore}, {"to start, small tasks, ideal", f.OneIdeal}} {
		line(q.name+": p50, p90, p99, mean, most", "%.3f, %.3f, %.3f, %.3f, %.1f s", q.P50, q.P90, q.P99, q.Mean, q.Most)
	}
	line("complaints", "%v", f.Complaints)
	return b.String()
}

// keep writes the figures to a file, if there is a path.
func (f *simFigures) keep(path string) error {
	if path == "" {
		return nil
	}
	text, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return fmt.Errorf("cannot encode the figures: %w", err)
	}
	return os.WriteFile(path, append(text, '\n'), 0o644)
}

// processorTime is what this process has had.
func processorTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// live is what of the heap and the stacks is in use.
func live() float64 {
	runtime.GC()
	runtime.GC() // what the first has finalized
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc + m.StackInuse)
}
