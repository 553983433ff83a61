package metrics

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	dto "github.com/prometheus/client_model/go"
	"go.uber.org/goleak"

	"github.com/mayfly/mayfly/gpu"
	"github.com/mayfly/mayfly/manager"
	"github.com/mayfly/mayfly/queue"
)

var update = flag.Bool("update", false, "write testdata/scrape.txt and the table in docs/metrics.md anew")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// full is a host that has everything there is to show.
func full() Config {
	at := time.UnixMilli(1_700_000_000_250)
	return Config{
		Version: "v1", Pools: []string{"blue", "red"},
		Numbers: func() manager.Numbers {
			return manager.Numbers{State: "draining", Held: map[manager.Status]int{manager.Waiting: 4, manager.Running: 3, manager.Stopping: 2, manager.Settling: 1},
				Oldest: 90 * time.Second, Unconfirmed: 5, UnconfirmedMax: 64, Demand: 13, Quarantined: 1,
				PerHost:  map[string]float64{"blue": 2, "red": 4},
				InHand:   map[string]manager.Needs{"blue": {Tasks: 2, CPU: 3, Memory: 2 << 20, Disk: 10, GPUs: 1}, "red": {Tasks: 1, CPU: 0.5, Memory: 1 << 20}},
				Lent:     manager.Capacity{MilliCPU: 1500, Memory: 3 << 30, Disk: 7},
				Capacity: manager.Capacity{MilliCPU: 8000, Memory: 16 << 30, Disk: 1 << 40}}
		},
		Depth: func(context.Context) (map[string]int, error) {
			return map[string]int{"blue.high": 1, "blue.normal": 2, "red.low": 3, "green.low": 4}, nil
		},
		Broker: func() (bool, uint64) { return true, 2 },
		Keeper: func() (bool, uint64) { return true, 1 },
		Disk:   func() (free, size uint64, err error) { return 10, 100, nil },
		GPUs: func() gpu.Overview {
			return gpu.Overview{GPUs: []gpu.Status{
				{Device: gpu.Device{UUID: "GPU-0", Model: "H100", Memory: 80}, Condition: "held",
					State: gpu.State{At: at, Used: 30, Power: 412.5, Temperature: 61, Utilization: 0.75}},
				{Device: gpu.Device{UUID: "GPU-1", Index: 1, Model: "H100", Memory: 80}, Condition: "quarantined", Reason: "it is lost", State: gpu.State{At: at, Lost: "lost"}},
				{Device: gpu.Device{UUID: "GPU-2", Index: 2, Model: "A100", Memory: 40, Divided: true}, Condition: "divided",
					State: gpu.State{At: at, Used: 9, Power: 90, Temperature: 40}},
				{Device: gpu.Device{UUID: "MIG-2a", Index: 2, Model: "A100", Memory: 10, Parent: "GPU-2", Profile: "1g.5gb"}, Condition: "free",
					State: gpu.State{At: at, Instances: map[string]int64{"MIG-2a": 9}}},
				{Device: gpu.Device{UUID: "GPU-3", Index: 3, Model: "H100", Memory: 80}, Condition: "checking"}, // never looked at
			}}
		},
	}
}

// happen has one of everything happen, and some things twice.
func happen(o manager.Observer) {
	o.Started(manager.Start{Pool: "blue", First: true, Waited: 2 * time.Second, Spawned: 2 * time.Millisecond})
	o.Started(manager.Start{Pool: "blue", Waited: time.Hour, Spawned: 20 * time.Second, Image: true}) // not the first: its waiting is no news
	o.Started(manager.Start{Pool: "red", First: true, Waited: 25 * time.Hour, Spawned: -1})           // leased by an earlier manager
	o.Ended(manager.End{Pool: "blue", Cause: queue.CauseExit, Ran: 5 * time.Second})
	o.Ended(manager.End{Pool: "blue", Cause: queue.CauseNone, Ran: 500 * time.Microsecond})
	o.Ended(manager.End{Pool: "red", Cause: queue.CauseHostLost, Ran: -1})
	o.Settled(manager.Settlement{Pool: "blue", State: queue.Succeeded, Cause: queue.CauseNone})
	o.Settled(manager.Settlement{Pool: "blue", State: queue.Failed, Cause: queue.CauseOOM, Buried: true})
	for _, forged := range []string{"green", "", `x"} 1`} {
		o.Settled(manager.Settlement{Pool: forged, State: queue.Rejected, Cause: queue.CauseRejected, Buried: true})
	}
}

func scrape(m *Metrics) string {
	w := httptest.NewRecorder()
	m.ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Code != 200 {
		return w.Body.String()
	}
	// What Go and the process say is theirs.
	var ours strings.Builder
	for line := range strings.Lines(w.Body.String()) {
		if strings.Contains(line, "mayfly_") {
			ours.WriteString(line)
		}
	}
	return regexp.MustCompile(`goversion="[^"]*"`).ReplaceAllString(ours.String(), `goversion="go"`)
}

// TestScrape compares all that is shown of known events and a known host with testdata/scrape.txt.
func TestScrape(t *testing.T) {
	t.Parallel()
	m := New(full())
	happen(m.Observer())
	const golden = "testdata/scrape.txt"
	got := scrape(m)
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		lines := strings.Split(got, "\n")
		for i, line := range strings.Split(string(want), "\n") {
			if i >= len(lines) || line != lines[i] {
				t.Fatalf("line %d is not %q; all:\n%s", i+1, line, got)
			}
		}
		t.Fatalf("more than is wanted:\n%s", got)
	}
}

// TestBare scrapes a host that has neither a broker nor GPUs, and whose queue and file system do not answer.
func TestBare(t *testing.T) {
	t.Parallel()
	c := full()
	c.Broker, c.GPUs = nil, nil
	c.Depth = func(context.Context) (map[string]int, error) { return nil, errors.New("no") }
	c.Disk = func() (uint64, uint64, error) { return 0, 0, errors.New("no") }
	text := scrape(New(c))
	for _, absent := range []string{"mayfly_broker_", "mayfly_gpu", "mayfly_queue_depth", "mayfly_state_dir"} {
		if strings.Contains(text, absent) {
			t.Errorf("%s is shown", absent)
		}
	}
	if !strings.Contains(text, "mayfly_demand 13\n") {
		t.Errorf("the rest is not shown:\n%s", text)
	}
}

// TestLabels holds how many series a host has: what messages say must not add any.
func TestLabels(t *testing.T) {
	t.Parallel()
	m := New(full())
	o := m.Observer()
	for i := range 1000 {
		pool := fmt.Sprint("forged", i)
		o.Started(manager.Start{Pool: pool, First: true})
		o.Ended(manager.End{Pool: pool, Cause: queue.CauseExit})
		o.Settled(manager.Settlement{Pool: pool, State: queue.Failed, Cause: queue.CauseExit, Buried: true})
	}
	text := scrape(m)
	if n := strings.Count(text, "\n"); n > 350 {
		t.Errorf("a scrape has %d lines", n)
	}
	for _, line := range []string{`mayfly_tasks_total{cause="exit",pool="other",state="failed"} 1000`, `mayfly_attempts_total{cause="exit",pool="other"} 1000`} {
		if !strings.Contains(text, line+"\n") {
			t.Errorf("%s is not shown", line)
		}
	}
}

// TestDepth has a broker's queues asked for their depth no more than once at a time and once in a while, and waited for no longer
// than a moment.
func TestDepth(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int32
		answer := make(chan int)
		c := full()
		c.Depth = func(ctx context.Context) (map[string]int, error) {
			asked.Add(1)
			if n := <-answer; n >= 0 {
				return map[string]int{"blue.low": n}, nil
			}
			return nil, errors.New("it is gone")
		}
		m := New(c)
		shows := func(what string, n int) {
			t.Helper()
			text := scrape(m)
			line := fmt.Sprintf(`mayfly_queue_depth{band="low",pool="blue"} %d`, n)
			if n < 0 && strings.Contains(text, "mayfly_queue_depth") || n >= 0 && !strings.Contains(text, line) {
				t.Errorf("%s: depth %d is not what is shown:\n%s", what, n, text)
			}
		}
		begun := time.Now()
		shows("no answer", -1)
		shows("still none", -1)
		if took := time.Since(begun); took != 2*depthWait || asked.Load() != 1 {
			t.Errorf("two scrapes took %s and asked %d times", took, asked.Load())
		}
		answer <- 7
		synctest.Wait()
		shows("the answer is late", 7)
		time.Sleep(depthAge / 2)
		shows("the answer is not old", 7)
		if asked.Load() != 1 {
			t.Errorf("asked %d times", asked.Load())
		}
		time.Sleep(depthAge)
		go func() { answer <- 8 }()
		shows("asked again", 8)
		time.Sleep(2 * depthAge)
		go func() { answer <- -1 }()
		shows("the broker is gone", -1)
		if asked.Load() != 3 {
			t.Errorf("asked %d times", asked.Load())
		}
	})
}

// TestDocument compares the table in docs/metrics.md with what is shown.
func TestDocument(t *testing.T) {
	t.Parallel()
	m := New(full())
	happen(m.Observer())
	families, err := m.registry().Gather()
	if err != nil {
		t.Fatal(err)
	}
	table := "| metric | kind | labels | what |\n| --- | --- | --- | --- |\n"
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), "mayfly_") {
			continue
		}
		labels := []string{}
		for _, l := range f.GetMetric()[0].GetLabel() {
			labels = append(labels, "`"+l.GetName()+"`")
		}
		table += fmt.Sprintf("| `%s` | %s | %s | %s |\n", f.GetName(), strings.ToLower(dto.MetricType_name[int32(f.GetType())]), strings.Join(labels, ", "), f.GetHelp())
	}
	const document = "../../docs/metrics.md"
	text, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	rows := regexp.MustCompile(`(?m)^\| metric \|.*\n(\|.*\n)*`)
	found := rows.FindAll(text, -1)
	if len(found) != 1 {
		t.Fatalf("%s has %d tables of metrics", document, len(found))
	}
	if *update {
		if err := os.WriteFile(document, bytes.Replace(text, found[0], []byte(table), 1), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if string(found[0]) != table {
		have := strings.Split(string(found[0]), "\n")
		for line := range strings.Lines(table) {
			if !slices.Contains(have, strings.TrimSuffix(line, "\n")) {
				t.Errorf("%s lacks %s", document, line)
			}
		}
		t.Errorf("the table in %s is not that of what is shown: go test ./api/metrics -update", document)
	}
}
