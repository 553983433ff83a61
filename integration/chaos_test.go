package integration

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	mayfly "github.com/mayfly/mayfly/clients/go"
	"github.com/mayfly/mayfly/integration/broker"
)

// chaos is a fleet to which everything happens that the documents promise to survive. What it does is drawn from a seed, which the test
// names; when exactly it happens is the machine's.
type chaos struct {
	t   *testing.T
	rng *rand.Rand
	// nodes are those of the broker: one, or those of the cluster.
	nodes   []*broker.Broker
	cluster *broker.Cluster
	hosts   []*harmed
	ledger  string
	// longest is for how many seconds a connection may be silent.
	longest float64
	begin   time.Time

	plan   []happening // by time
	faults []fault

	mu    sync.Mutex
	wrong []string
	told  []string
}

// fail notes what is wrong. It is told once more at the very end: after the hosts' logs, which are long.
func (c *chaos) fail(format string, args ...any) {
	c.t.Helper()
	text := fmt.Sprintf(format, args...)
	c.t.Error(text)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wrong = append(c.wrong, text)
}

// harmed is a host behind proxies, through which it reaches the broker's nodes.
type harmed struct {
	*host
	proxies []*toxiproxy.Proxy
}

// happening is something that is to happen: a fault, or what mends it.
type happening struct {
	at    time.Time
	mends bool
	do    func()
}

// fault is something that has happened to a host; host is empty for the broker.
type fault struct {
	host, kind string
	from, to   time.Time
}

// tell notes what the story of the test has.
func (c *chaos) tell(at time.Time, format string, args ...any) {
	c.told = append(c.told, fmt.Sprintf("%7.2f s ", at.Sub(c.begin).Seconds())+fmt.Sprintf(format, args...))
}

// story is what has happened, in its order.
func (c *chaos) story() string { return strings.Join(slices.Sorted(slices.Values(c.told)), "\n") }

// The kinds of faults.
const (
	killManager = "manager killed"
	stopManager = "manager stopped (SIGSTOP)"
	killKeeper  = "keeper killed"
	cutOff      = "connection cut"
	silence     = "connection silent (half-open)"
	slowness    = "connection slow"
	fullDisk    = "disk full"
	killBroker  = "broker killed"
	stopBroker  = "broker restarted"
)

// run is what the ledger tells of one run of a task.
type run struct {
	host     string
	from, to time.Time
	end      bool
}

// TestChaos has a fleet work through tasks while it is harmed: nothing is lost, and what ran twice did so for a reason. MAYFLY_TEST_CHAOS is the number of
// tasks, MAYFLY_TEST_SEED the seed of what happens.
func TestChaos(t *testing.T) {
	t.Parallel()
	tasks, hosts, seed, longest := 60, 3, uint64(time.Now().UnixNano()), 12.0
	if text := os.Getenv("MAYFLY_TEST_CHAOS"); text != "" {
		var err error
		if tasks, err = strconv.Atoi(text); err != nil || tasks < 1 {
			t.Fatalf("MAYFLY_TEST_CHAOS=%q is no number of tasks", text)
		}
		hosts, longest = 6, 40
	}
	if text := os.Getenv("MAYFLY_TEST_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("MAYFLY_TEST_SEED=%q is no seed", text)
		}
	}
	t.Logf("%d tasks, %d hosts, MAYFLY_TEST_SEED=%d", tasks, hosts, seed)
	c := newChaos(t, hosts, seed)
	c.longest = longest
	done := c.submit(tasks)
	c.wreak(done)
	c.report(tasks, <-done)
}

// newChaos starts a fleet, and a broker: a cluster of three nodes where MAYFLY_TEST_CLUSTER is 1.
func newChaos(t *testing.T, hosts int, seed uint64) *chaos {
	c := &chaos{t: t, rng: rand.New(rand.NewPCG(seed, seed)), begin: time.Now()}
	version := broker.Versions[c.rng.IntN(len(broker.Versions))]
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("MAYFLY_TEST_SEED=%d, RabbitMQ %s: %s\n%s", seed, version, strings.Join(c.wrong, "\n"), c.story())
		}
	})
	if os.Getenv("MAYFLY_TEST_CLUSTER") == "1" {
		version = broker.V43 // those before keep messages back that a lost node had (docs/troubleshooting.md)
		c.cluster = broker.StartCluster(t, version, 3)
		c.nodes = c.cluster.Nodes
	} else {
		c.nodes = []*broker.Broker{broker.Start(t, version)}
	}
	t.Logf("RabbitMQ %s, %d nodes", version, len(c.nodes))
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(prometheus.NewRegistry()), zerolog.Nop())
	for i := range hosts {
		harmed := &harmed{}
		var urls []string
		for j := range c.nodes {
			p := toxiproxy.NewProxy(server, fmt.Sprintf("host%d.%d", i, j), "127.0.0.1:0", c.nodes[(i+j)%len(c.nodes)].Addr())
			if err := p.Start(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(p.Stop)
			harmed.proxies, urls = append(harmed.proxies, p), append(urls, "amqp://guest:guest@"+p.Listen+"/")
		}
		env := []string{"MAYFLY_AMQP_URL=" + strings.Join(urls, ","), "MAYFLY_LOG_LEVEL=info"}
		if i > 0 {
			env = append(env, "MAYFLY_TASK_WRITABLE="+c.hosts[0].shared)
		}
		harmed.host = newHost(t, append(env, "MAYFLY_RESERVED_DISK=1")...)
		harmed.ownDisk()
		harmed.start()
		c.hosts = append(c.hosts, harmed)
	}
	c.ledger = filepath.Join(c.hosts[0].marks(), "ledger")
	f, err := os.OpenFile(c.ledger, os.O_CREATE|os.O_EXCL, 0o666)
	if err == nil {
		err = f.Chmod(0o666)
		f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// script is a task that notes its beginning and its end, and takes so many seconds in between. A flaky one fails on its first try.
func (c *chaos) script(seconds float64, flaky bool) string {
	text := fmt.Sprintf(`note() { echo "$1 $MAYFLY_TASK_ID $MAYFLY_HOST $(date +%%s%%N)" >>%s; }; note begin; sleep %.2f; `, c.ledger, seconds)
	if flaky {
		text += `[ $MAYFLY_ATTEMPT -gt 1 ] || exit 1; `
	}
	return text + "note end"
}

// submit publishes the tasks over time, as many at once as keep the fleet busy, and sends what became of them.
func (c *chaos) submit(tasks int) <-chan map[string]mayfly.Result {
	client, err := mayfly.Dial(c.t.Context(), c.nodes[0].URL())
	if err != nil {
		c.t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(c.rng.Uint64(), 0))
	results := map[string]mayfly.Result{}
	out := make(chan map[string]mayfly.Result, 1)
	ctx, cancel := context.WithTimeout(c.t.Context(), 15*time.Minute+time.Duration(tasks)*time.Second)
	c.t.Cleanup(cancel)
	go func() {
		defer client.Close()
		var mu sync.Mutex
		var group sync.WaitGroup
		places := make(chan struct{}, 16*len(c.hosts)) // so that some are left for the others while a host is cut off with those that it holds
		for i := range tasks {
			places <- struct{}{}
			task := mayfly.Task{ID: fmt.Sprintf("c%05d", i), Shell: c.script(rng.ExpFloat64()*0.6, rng.IntN(10) == 0), MaxAttempts: 5,
				Backoff: new(100 * time.Millisecond), Resources: mayfly.Resources{CPU: float64(1+rng.IntN(4)) / 2, Memory: 32 << 20}}
			handle, err := client.Submit(ctx, task)
			if err != nil {
				c.fail("not submitted: %v", err)
				<-places
				continue
			}
			group.Go(func() {
				defer func() { <-places }()
				r, err := handle.Wait(ctx)
				if err != nil {
					c.fail("no result: %s: %v", task.ID, err)
					return
				}
				mu.Lock()
				defer mu.Unlock()
				results[task.ID] = r
			})
		}
		group.Wait()
		out <- results
	}()
	return out
}

// wreak harms the fleet until all is done, and then lets it recover.
func (c *chaos) wreak(done <-chan map[string]mayfly.Result) {
	for _, h := range c.hosts {
		c.in(c.between(0.5, 3), func() { c.harm(h) })
	}
	if c.cluster == nil {
		c.in(c.between(5, 10), c.harmBroker)
	} else {
		defer c.harmNodes()()
	}
	for len(done) == 0 {
		next := c.plan[0]
		if wait := time.Until(next.at); wait > 0 {
			time.Sleep(min(wait, 50*time.Millisecond)) // not longer, to see the end
			continue
		}
		c.plan = c.plan[1:]
		next.do()
	}
}

// in has something happen after a time, mend what it mends.
func (c *chaos) in(d time.Duration, do func())   { c.later(happening{time.Now().Add(d), false, do}) }
func (c *chaos) mend(d time.Duration, do func()) { c.later(happening{time.Now().Add(d), true, do}) }

func (c *chaos) later(h happening) {
	c.plan = append(c.plan, h)
	slices.SortFunc(c.plan, func(a, b happening) int { return a.at.Compare(b.at) })
}

// between draws a time of so many seconds.
func (c *chaos) between(from, to float64) time.Duration {
	return time.Duration((from + c.rng.Float64()*(to-from)) * float64(time.Second))
}

// happened notes a fault that is over.
func (c *chaos) happened(host, kind string, from time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.faults = append(c.faults, fault{host, kind, from, time.Now()})
}

// harm has something happen to a host, mends it after a while, and goes on with the next.
func (c *chaos) harm(h *harmed) {
	from := time.Now()
	over := func(kind string, mend func()) func() {
		return func() {
			mend()
			c.happened(h.name(), kind, from)
			c.in(c.between(1, 5), func() { c.harm(h) })
		}
	}
	switch n := c.rng.IntN(100); {
	case n < 30:
		h.kill()
		c.mend(c.between(0, 2), over(killManager, h.start))
	case n < 45:
		h.signal(syscall.SIGSTOP)
		c.mend(c.between(0.5, 15), over(stopManager, func() { h.signal(syscall.SIGCONT) }))
	case n < 55:
		if pid := h.keeperPID(); pid > 0 {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		c.mend(0, over(killKeeper, func() {}))
	case n < 75:
		for _, p := range h.proxies {
			p.Stop()
		}
		c.mend(c.between(0, 5), over(cutOff, func() {
			for _, p := range h.proxies {
				if err := p.Start(); err != nil {
					c.fail("%v", err)
				}
			}
		}))
	case n < 85:
		c.mend(c.between(1, c.longest), over(silence, c.toxic(h, `{"type": "timeout", "attributes": {"timeout": 0}}`)))
	case n < 92:
		c.mend(c.between(1, 8), over(fullDisk, c.fill(h)))
	default:
		c.mend(c.between(1, 5), over(slowness, c.toxic(h, `{"type": "latency", "attributes": {"latency": 200, "jitter": 100}}`)))
	}
}

// toxic spoils a host's connections both ways, and returns what mends them. Those that were silent are cut: what was sent is lost.
func (c *chaos) toxic(h *harmed, text string) (mend func()) {
	for _, p := range h.proxies {
		for _, stream := range []string{"upstream", "downstream"} {
			if _, err := p.Toxics.AddToxicJson(strings.NewReader(strings.Replace(text, "{", fmt.Sprintf(`{"stream": %q, "name": %[1]q, `, stream), 1))); err != nil {
				c.fail("%v", err)
			}
		}
	}
	return func() {
		for _, p := range h.proxies {
			p.Toxics.ResetToxics(context.Background())
		}
	}
}

// ownDisk gives the host a small file system of its own for its state.
func (h *harmed) ownDisk() {
	state := filepath.Join(h.dir, "state")
	err := os.Mkdir(state, 0o700)
	if err == nil {
		err = syscall.Mount("tmpfs", state, "tmpfs", 0, "size=128m,mode=0700")
	}
	if err != nil {
		h.tb.Fatalf("cannot give a host its own disk: %v", err)
	}
	h.tb.Cleanup(func() {
		h.stop()
		_ = syscall.Unmount(state, syscall.MNT_DETACH)
	})
}

// fill leaves no room on a host's disk, and returns what makes room again.
func (c *chaos) fill(h *harmed) (mend func()) {
	name := filepath.Join(h.dir, "state", "filler")
	f, err := os.Create(name)
	for chunk := make([]byte, 1<<20); err == nil; {
		_, err = f.Write(chunk)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		c.fail("cannot fill a disk: %v", err)
	}
	return func() {
		if err := errors.Join(f.Close(), os.Remove(name)); err != nil {
			c.fail("%v", err)
		}
	}
}

// harmBroker ends the broker and starts it again.
func (c *chaos) harmBroker() {
	from, kind := time.Now(), killBroker
	if c.rng.IntN(2) == 0 {
		kind = stopBroker
		if err := c.nodes[0].Stop(); err != nil {
			c.fail("%v", err)
		}
	} else {
		c.nodes[0].Kill()
	}
	c.mend(c.between(0, 3), func() {
		if err := c.nodes[0].Start(); err != nil {
			c.fail("%v", err)
		}
		c.happened("", kind, from)
		c.in(c.between(15, 30), c.harmBroker)
	})
}

// report mends what is broken, and holds the ledger against the results.
func (c *chaos) report(tasks int, results map[string]mayfly.Result) {
	t := c.t
	left := c.plan
	for _, next := range left {
		if next.mends {
			next.do() // what it plans is not done any more
		}
	}
	lost, unfinished := 0, 0
	for i := range tasks {
		r, ok := results[fmt.Sprintf("c%05d", i)]
		if !ok {
			lost++
		} else if r.State != "succeeded" {
			unfinished++
			c.fail("%s: %s, %s: %s", r.ID, r.State, r.Cause, r.Message)
		}
	}
	runs := c.runs()
	twice, unexplained, why := map[string]bool{}, 0, map[string]int{}
	for id, list := range runs {
		finished := slices.DeleteFunc(slices.Clone(list), func(r run) bool { return !r.end })
		if len(finished) < 2 {
			continue
		}
		twice[id] = true
		var kinds []string
		for i, r := range finished[1:] {
			more := c.explain(finished[i], r)
			if len(more) == 0 { // a host that dies between a copy for the next try and its note of it leaves two that will be run, by whomever
				for _, before := range list {
					if !before.end && before.from.Before(r.from) {
						more = append(more, c.explain(before, r)...)
					}
				}
			}
			if len(more) == 0 {
				kinds = nil
				break
			}
			kinds = append(kinds, more...)
		}
		for _, r := range list {
			c.tell(r.from, "%s begun on %s", id, r.host)
			if r.end {
				c.tell(r.to, "%s ended on %s", id, r.host)
			}
		}
		slices.Sort(kinds)
		for _, kind := range slices.Compact(kinds) {
			why[kind]++
		}
		if len(kinds) == 0 {
			unexplained++
			c.fail("%s ran to its end %d times without a reason:\n%s", id, len(finished), c.said(id))
		}
	}
	count := map[string]int{}
	for _, f := range c.faults {
		c.tell(f.from, "%s: %s until %.2f s", f.host, f.kind, f.to.Sub(c.begin).Seconds())
		count[f.kind]++
	}
	if !t.Failed() { // else it is told at the end
		t.Log(c.story())
	}
	t.Logf("faults: %v", count)
	t.Logf("%d tasks, %d lost, %d not succeeded, %d ran to their end twice: %v, %d without a reason", tasks, lost, unfinished, len(twice), why, unexplained)
	if lost > 0 {
		c.fail("%d tasks are lost", lost)
	}
	c.quiet()
}

// said returns what all hosts have logged of a task.
func (c *chaos) said(id string) string {
	var lines []string
	for _, h := range c.hosts {
		for line := range strings.Lines(h.logged()) {
			if strings.Contains(line, `"`+id+`"`) {
				lines = append(lines, h.name()+": "+line)
			}
		}
	}
	return strings.Join(lines, "")
}

// explain lists what happened to the host of the first run between its beginning and the beginning of the second. A host that has run a task does not
// run it again, unless the keeper died with what it knew.
func (c *chaos) explain(first, second run) (kinds []string) {
	for _, f := range c.faults {
		if f.host == first.host && f.kind != slowness && (first.host != second.host || f.kind == killKeeper) && f.from.Before(second.from) && f.to.After(first.from) && !slices.Contains(kinds, f.kind) {
			kinds = append(kinds, f.kind)
		}
	}
	return kinds
}

// runs reads the ledger: the runs of each task in the order of their beginnings.
func (c *chaos) runs() map[string][]run {
	text, err := os.ReadFile(c.ledger)
	if err != nil {
		c.t.Fatal(err)
	}
	runs := map[string][]run{}
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) != 4 {
			c.t.Fatalf("the ledger has the line %q", line)
		}
		ns, err := strconv.ParseInt(f[3], 10, 64)
		if err != nil {
			c.t.Fatal(err)
		}
		id, host, at := f[1], f[2], time.Unix(0, ns)
		if f[0] == "begin" {
			runs[id] = append(runs[id], run{host: host, from: at})
			continue
		}
		for i := range runs[id] { // the first that has not ended there: a task has one run at a time on a host
			if r := &runs[id][i]; r.host == host && !r.end {
				r.end, r.to = true, at
				break
			}
		}
	}
	return runs
}

// quiet waits until all queues are empty and no host has anything left.
func (c *chaos) quiet() {
	c.hosts[0].until("all queues are empty", func() bool {
		out, err := c.nodes[0].Ctl("list_queues", "--quiet", "--no-table-headers", "name", "messages")
		return err == nil && !slices.ContainsFunc(strings.Split(strings.TrimSpace(out), "\n"), func(line string) bool {
			name, n, _ := strings.Cut(line, "\t")
			return n != "0" && name != "mayfly.cancels" && name != "mayfly.pulse" && n != ""
		})
	}, func() any {
		out, _ := c.nodes[0].Ctl("list_queues", "--quiet", "name", "messages")
		return out
	})
	for _, h := range c.hosts {
		h.until("it has no task", func() bool {
			return len(h.tasks()) == 0
		}, func() any { return h.tasks() })
	}
}
