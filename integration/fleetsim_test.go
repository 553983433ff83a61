package integration

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mayfly/mayfly/integration/broker"
)

// TestSimulatedFleet has many managers, whose workers are fakes, take tasks of mixed shapes from one broker, and counts what that costs: docs/fleet-size.md
// has the figures. MAYFLY_TEST_FLEET is the number of managers, MAYFLY_TEST_FLEET_TASKS that of tasks (a hundred for each), MAYFLY_TEST_FLEET_RATE how many are published a
// second, MAYFLY_TEST_FLEET_LOAD what share of the cores they keep busy (80 %), MAYFLY_TEST_FLEET_WINDOW the hosts' MAYFLY_WINDOW, MAYFLY_TEST_FLEET_JSON where the figures go.
func TestSimulatedFleet(t *testing.T) {
	t.Parallel()
	managers, tasks, rate := 20, 600, 100.0
	long := os.Getenv("MAYFLY_TEST_FLEET") != ""
	if long {
		managers = envNumber(t, "MAYFLY_TEST_FLEET", 0)
		tasks = envNumber(t, "MAYFLY_TEST_FLEET_TASKS", 100*managers)
		rate = float64(envNumber(t, "MAYFLY_TEST_FLEET_RATE", 100))
	}
	f := &simulatedFleet{t: t, hosts: make([]*simHost, managers), figures: simFigures{Managers: managers, Tasks: tasks, Rate: rate,
		Window: envNumber(t, "MAYFLY_TEST_FLEET_WINDOW", 0), Load: float64(envNumber(t, "MAYFLY_TEST_FLEET_LOAD", 80)) / 100,
		Machine: fmt.Sprintf("%d processors, everything on it", runtime.NumCPU())}, log: &complaints{counts: map[string]int{}}}
	var url string
	if long {
		f.broker = broker.StartWith(t, broker.V43, broker.Options{Config: "vm_memory_high_watermark.absolute = 8GB\n"})
		f.vhost, url = "/", f.broker.URL()
	} else {
		f.broker = broker.Shared(t, broker.V43)
		url = f.broker.Vhost(t)
		f.vhost = broker.VhostName(url)
	}
	f.figures.RabbitMQ = string(f.broker.Version)
	f.run(url)
	t.Log("\n" + f.figures.table())
	if err := f.figures.keep(os.Getenv("MAYFLY_TEST_FLEET_JSON")); err != nil {
		t.Error(err)
	}
	f.check(long)
}

// simulatedFleet is many managers in this process.
type simulatedFleet struct {
	t       *testing.T
	broker  *broker.Broker
	vhost   string
	way     *countingWay
	hosts   []*simHost
	shapes  []simShape
	story   *simStory
	figures simFigures
	log     *complaints
}

// run measures a fleet from its start to its end.
func (f *simulatedFleet) run(url string) {
	t, n := f.t, &f.figures
	f.way = countElsewhere(t, f.broker.Addr())
	rng := rand.New(rand.NewPCG(20, 26))
	for range f.hosts {
		f.shapes = append(f.shapes, pick(rng, simHosts))
		n.Cores += float64(f.shapes[len(f.shapes)-1].milliCPU) / 1000
	}
	f.story = newSimStory(simPlan(rng, n.Tasks, n.Rate, n.Load, n.Cores))
	documents := make([][]byte, n.Tasks)
	for i := range f.story.tasks {
		documents[i] = f.story.tasks[i].document(i)
		n.MeanSeconds += f.story.tasks[i].lasts.Seconds() / float64(n.Tasks)
	}

	before, empty, began := live(), f.look(), time.Now()
	f.start(strings.Replace(url, f.broker.Addr(), f.way.addr, 1))
	n.Start = f.quiet()
	n.StartSeconds = time.Since(began).Seconds()
	n.BytesPerIdleManager = (live() - before) / float64(n.Managers)
	idle := f.look()
	n.BrokerBytesPerHost = (idle.Memory - empty.Memory) / float64(n.Managers)
	n.BrokerCPUPerStart = (idle.CPU - empty.CPU) / float64(n.Managers)
	n.PerStart = n.Start.per(n.Managers)
	t.Logf("%d managers are there after %.1f s", n.Managers, n.StartSeconds)

	limit := time.Duration(float64(n.Tasks)/n.Rate*float64(time.Second))*2 + 10*time.Minute
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	p, err := newSimProducer(url, f.story)
	if err != nil {
		t.Fatal(err)
	}
	spent, asked := processorTime(), time.Now()
	if err := p.publish(ctx, documents, n.Rate); err != nil {
		t.Error(err)
	}
	full := f.look() // while all is busy
	t.Logf("%d tasks are published after %.1f s", n.Tasks, time.Since(asked).Seconds())
	select {
	case <-f.story.done:
	case <-ctx.Done():
		t.Errorf("%d tasks have not all a result after %s", n.Tasks, limit)
	}
	n.Seconds = time.Since(asked).Seconds()
	now, total := f.look(), f.way.now()
	n.Run, n.Broker = total.less(n.Start), full
	n.PerTask = n.Run.per(n.Tasks)
	n.ManagerCPUPerTask = (processorTime() - spent).Seconds() / float64(n.Tasks)
	n.BrokerCPUPerTask = (now.CPU - idle.CPU) / float64(n.Tasks)
	n.ConnectionsPerHost = float64(total.Connections) / float64(n.Managers)
	n.ChannelsPerHost = (full.Channels - empty.Channels) / float64(n.Managers)
	n.QueuesPerHost, n.QuorumQueues = full.Queues/float64(n.Managers), full.Quorum

	f.stop()
	n.End = f.way.now().less(total)
	n.PerEnd = n.End.per(n.Managers)
	p.close()
	f.compare()
}

// start makes all hosts, a few at a time, and waits until each can be reached by the others.
func (f *simulatedFleet) start(url string) {
	log, dir := slog.New(f.log), f.t.TempDir()
	f.each(func(i int) error {
		ctx, cancel := context.WithTimeout(f.t.Context(), time.Minute)
		defer cancel()
		h, err := startSimHost(ctx, dir, url, fmt.Sprintf("host-%04d", i), f.shapes[i], f.figures.Window, &simRunner{host: i, story: f.story}, log)
		if err != nil {
			return err
		}
		f.hosts[i] = h
		select {
		case <-h.joined:
			return nil
		case <-ctx.Done():
			return fmt.Errorf("cannot reach host %d: %w", i, ctx.Err())
		}
	})
}

// stop ends all hosts.
func (f *simulatedFleet) stop() {
	f.each(func(i int) error {
		if f.hosts[i] == nil {
			return nil
		}
		return f.hosts[i].close()
	})
}

// each does something for all hosts, for eight at a time.
func (f *simulatedFleet) each(do func(i int) error) {
	var group sync.WaitGroup
	next := make(chan int)
	for range 8 {
		group.Go(func() {
			for i := range next {
				if err := do(i); err != nil {
					f.t.Error(err)
				}
			}
		})
	}
	for i := range f.hosts {
		next <- i
	}
	close(next)
	group.Wait()
}

// quiet waits until nothing is said any more but that all are alive, and returns what was. Nobody tells that there is nothing more to say.
func (f *simulatedFleet) quiet() tally {
	for last, same := f.way.now(), 0; ; {
		time.Sleep(200 * time.Millisecond)
		now := f.way.now()
		if same++; now.Said.all() != last.Said.all() || now.Heard.all() != last.Heard.all() {
			same = 0
		}
		if last = now; same == 3 {
			return now
		}
	}
}

// look asks the broker how it is.
func (f *simulatedFleet) look() simBroker {
	v := fmt.Sprintf("<<%q>>", f.vhost)
	out, err := f.broker.Eval(`{element(1, erlang:statistics(runtime)), erlang:memory(total), length(rabbit_channel:list()), length(rabbit_amqqueue:list_names(` + v + `)),
		length([Q || Q <- rabbit_amqqueue:list(` + v + `), amqqueue:get_type(Q) =:= rabbit_quorum_queue])}.`)
	if err != nil {
		f.t.Error(err)
		return simBroker{}
	}
	var n [5]float64
	for i, text := range regexp.MustCompile(`\d+`).FindAllString(out, len(n)) {
		n[i], _ = strconv.ParseFloat(text, 64)
	}
	return simBroker{CPU: n[0] / 1000, Memory: n[1], Channels: n[2], Queues: n[3], Quorum: n[4]}
}

// compare holds what happened against what an ideal scheduler would have done.
func (f *simulatedFleet) compare() {
	n, tasks := &f.figures, f.story.tasks
	var real, best, small, smallBest []time.Duration
	last := time.Duration(0)
	for i, at := range ideal(f.shapes, tasks) {
		t := &tasks[i]
		n.Runs += t.runs
		last = max(last, t.published)
		real, best = append(real, t.begun-t.published), append(best, at-t.published)
		if t.shape.milliCPU <= 1000 && t.shape.memory < 16*gigabyte {
			small, smallBest = append(small, t.begun-t.published), append(smallBest, at-t.published)
		}
	}
	n.ToStart, n.Ideal, n.OneCore, n.OneIdeal = quantilesOf(real), quantilesOf(best), quantilesOf(small), quantilesOf(smallBest)
	// From when it is full to the last task: what comes after that is too little for it.
	n.Idleness = idle(f.shapes, tasks, last/4, last, max(10*time.Millisecond, last/20000))
	n.Complaints = f.log.counts
}

// check holds what does not depend on how fast the machine is.
func (f *simulatedFleet) check(long bool) {
	t, n := f.t, &f.figures
	for _, text := range f.story.wrong {
		t.Error(text)
	}
	// Whoever loses the broker may tell, or run, something twice: a machine that is too slow for its fleet has hosts that do.
	lost := n.Complaints["lost RabbitMQ, trying again"] > 0
	var odd []string
	for i := range f.story.tasks {
		if task := &f.story.tasks[i]; task.results != 1 && (task.results == 0 || !lost) {
			odd = append(odd, fmt.Sprintf("task %d has %d results, and was run %d times", i, task.results, task.runs))
		}
	}
	if len(odd) > 0 {
		t.Errorf("%d tasks have no result, or too many:\n%s", len(odd), strings.Join(odd[:min(10, len(odd))], "\n"))
	}
	left, err := f.broker.Eval(fmt.Sprintf(`[{element(4, amqqueue:get_name(Q)), N} || Q <- rabbit_amqqueue:list(<<%q>>), {ok, N, _} <- [rabbit_amqqueue:stat(Q)], N > 0].`, f.vhost))
	if err != nil || !strings.Contains(left, "[]") {
		t.Errorf("queues have messages left: %s, %v", left, err)
	}
	if long {
		return // a machine that is too slow for it has more to say
	}
	// A result, and what hosts say to each other about tasks that wait or do not fit.
	if said := n.PerTask["said methods"]; said > 20 {
		t.Errorf("%.1f things are said to the broker for a task", said)
	}
	if heard := n.PerTask["heard methods"]; heard > 40 {
		t.Errorf("%.1f things are heard from the broker for a task", heard)
	}
	if n.ConnectionsPerHost != 2 {
		t.Errorf("%g connections a host", n.ConnectionsPerHost)
	}
}

// countingWay is a counter in a process of its own.
type countingWay struct {
	t    *testing.T
	addr string
	in   io.Writer
	out  *bufio.Reader
}

// countElsewhere makes one, which ends with the test.
func countElsewhere(t *testing.T, addr string) *countingWay {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), countVariable+"="+addr)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("what counts has failed: %v", err)
		}
	})
	w := &countingWay{t: t, in: in, out: bufio.NewReader(out)}
	line, err := w.out.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	w.addr = strings.TrimSpace(line)
	return w
}

// now is what it has counted.
func (w *countingWay) now() (n tally) {
	w.t.Helper()
	_, err := fmt.Fprintln(w.in)
	var line []byte
	if err == nil {
		line, err = w.out.ReadBytes('\n')
	}
	if err == nil {
		err = json.Unmarshal(line, &n)
	}
	if err != nil {
		w.t.Fatalf("cannot ask what counts: %v", err)
	}
	return n
}
