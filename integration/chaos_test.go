package integration

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
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
	stopKeeper  = "keeper stopped"
	cutOff      = "connection cut"
	silence     = "connection silent (half-open)"
	slowness    = "connection slow"
	fullDisk    = "disk full"
	killBroker  = "broker killed"
	stopBroker  = "broker restarted"
)

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
