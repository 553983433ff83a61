package manager

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mayfly/mayfly/queue"
	"github.com/mayfly/mayfly/worker"
)

// host is a manager with workers that only take time, on a clock of its own.
type host struct {
	*Manager
	t      *testing.T
	source *source
	begin  time.Time

	mu     sync.Mutex
	takes  map[string]time.Duration
	starts []string // in order
	at     map[string]time.Duration
}

// runsOf is the host as the runner of its manager.
type runsOf struct{ *host }

func (h runsOf) Held(context.Context) ([]worker.Held, error) { return nil, nil }
func (h runsOf) Release(string)                              {}

func (h runsOf) Run(ctx context.Context, a *worker.Attempt, started func(int, time.Time)) (*worker.Outcome, error) {
	h.mu.Lock()
	h.starts = append(h.starts, a.Task.ID)
	h.at[a.Task.ID] = time.Since(h.begin)
	takes := h.takes[a.Task.ID]
	h.mu.Unlock()
	started(1, time.Now())
	select {
	case <-time.After(takes):
		return &worker.Outcome{Cause: queue.CauseNone}, nil
	case <-ctx.Done():
		return &worker.Outcome{Cause: queue.CauseCancelled}, nil
	}
}

// simulate runs a test on a host of four cores.
func simulate(t *testing.T, change func(*Config), test func(h *host)) {
	synctest.Test(t, func(t *testing.T) {
		h, stop := newHost(t, change)
		test(h)
		stop()
	})
}

// newHost starts a host, and returns what stops it.
func newHost(t *testing.T, change func(*Config)) (h *host, stop func()) {
	h = &host{t: t, source: &source{make(chan queue.Delivery)}, begin: time.Now(), takes: map[string]time.Duration{}, at: map[string]time.Duration{}}
	c := Config{Host: "h", Pools: []string{"default"}, Capacity: Capacity{MilliCPU: 4000, Memory: 4 << 30}, Window: 1000, OnStop: StopWorkers,
		Defaults: Defaults{MilliCPU: 1000, MaxAttempts: 1}}
	if change != nil {
		change(&c)
	}
	h.Manager = New(c, Services{Source: h.source, Runner: runsOf{h}, Resolve: func(t queue.Task) (queue.Task, error) { return t, nil },
		History: &memory{records: map[string]Record{}, latest: map[string]Record{}},
		Backlog: Backlog{Depth: func(context.Context) (map[string]int, error) { return nil, nil }},
		Detach:  func() {}, Sweep: func(func(string) bool) {}, QueueState: func() string { return "test" },
		Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
	intake, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- h.Manager.Run(intake, intake) }()
	synctest.Wait() // from here on it looks at its services when the test has it do so: a test may change them
	return h, func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

// job is a task with what it will take.
type job struct {
	id       string
	cpu      int
	takes    time.Duration
	timeout  time.Duration
	priority int
	band     queue.Band
	user     string
}

// send hands tasks over, and waits until the manager has nothing more to do with them.
func (h *host) send(jobs ...job) {
	for _, j := range jobs {
		h.mu.Lock()
		h.takes[j.id] = j.takes
		h.mu.Unlock()
		limit := ""
		if j.timeout > 0 {
			limit = fmt.Sprintf(`, "grace": 0, "timeout": "%s"`, j.timeout)
		}
		body := fmt.Sprintf(`{"id": %q, "command": ["x"], "priority": %d, "resources": {"cpu": %d, "memory": "1MiB"}%s}`,
			j.id, j.priority, max(1, j.cpu), limit)
		d := newDelivery(queue.Message{Body: []byte(body), UserID: j.user})
		if j.band != "" {
			d.message.Band = j.band
		}
		h.source.deliveries <- d
		synctest.Wait()
	}
}

// started checks when a task was started, in seconds since the beginning; -1 for not yet.
func (h *host) started(id string, want int) {
	h.t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	at, ok := h.at[id]
	if got := int(at / time.Second); ok != (want >= 0) || ok && got != want {
		h.t.Errorf("%s: started %v after %d s, want %d", id, ok, got, want)
	}
}

func TestBackfill(t *testing.T) {
	const s = time.Second
	t.Run("what ends in time passes", func(t *testing.T) {
		simulate(t, nil, func(h *host) {
			h.send(job{id: "three", cpu: 3, takes: 90 * s, timeout: 100 * s}, job{id: "four", cpu: 4, takes: s},
				job{id: "long", takes: s, timeout: 101 * s}, job{id: "unlimited", takes: s}, job{id: "short", takes: 50 * s, timeout: 100 * s})
			h.started("three", 0)
			h.started("short", 0)
			time.Sleep(10 * s)
			h.send(job{id: "late", takes: s, timeout: 51 * s}, job{id: "punctual", takes: s, timeout: 50 * s})
			time.Sleep(60 * s)
			h.started("punctual", 50)
			h.started("long", -1)
			h.started("unlimited", -1)
			h.started("late", -1)
			time.Sleep(60 * s)
			h.started("four", 90) // earlier than the time limit said
			h.started("long", 91)
			h.started("late", 91)
		})
	})
	t.Run("what is left over may be taken for any time", func(t *testing.T) {
		simulate(t, nil, func(h *host) {
			h.send(job{id: "two", cpu: 2, takes: 10 * s, timeout: 10 * s}, job{id: "three", cpu: 3, takes: 10 * s},
				job{id: "a", takes: 100 * s}, job{id: "b", takes: 100 * s})
			h.started("a", 0)
			h.started("b", -1)
			time.Sleep(11 * s)
			h.started("three", 10)
			h.started("b", -1)
		})
	})
	t.Run("without time limits too", func(t *testing.T) {
		simulate(t, nil, func(h *host) {
			h.send(job{id: "two", cpu: 2, takes: 10 * s}, job{id: "three", cpu: 3, takes: 10 * s}, job{id: "a", takes: 100 * s},
				job{id: "b", takes: s, timeout: s})
			h.started("a", 0)
			h.started("b", -1)
			time.Sleep(11 * s)
			h.started("three", 10)
		})
	})
	t.Run("a stream of small ones does not starve a big one", func(t *testing.T) {
		simulate(t, nil, func(h *host) {
			for i := range 100 {
				h.send(job{id: fmt.Sprint("small", i), takes: 10 * s, timeout: 10 * s})
				if i == 8 {
					h.send(job{id: "big", cpu: 4, takes: s})
				}
				time.Sleep(2500 * time.Millisecond)
			}
			h.started("big", 30) // when those that ran when it came have ended, as no later one would have ended before
		})
	})
	t.Run("the reason is told", func(t *testing.T) {
		simulate(t, nil, func(h *host) {
			h.send(job{id: "three", cpu: 3, takes: s}, job{id: "big", cpu: 4, takes: s}, job{id: "small", takes: s})
			x, err := h.Explain(t.Context(), "small")
			if err != nil || x.Sentence != "it waits behind big, for which room is kept" {
				t.Errorf("%q, %v", x.Sentence, err)
			}
		})
	})
}

func TestNothingStarves(t *testing.T) {
	for name, urgent := range map[string]job{"priority": {priority: 9}, "band": {band: queue.High, priority: 1}} {
		t.Run(name, func(t *testing.T) {
			simulate(t, func(c *Config) { c.Capacity.MilliCPU = 1000 }, func(h *host) {
				h.send(job{id: "first", takes: time.Second}, job{id: "patient", takes: time.Second, priority: 1},
					job{id: "patient2", takes: time.Second, priority: 1})
				for i := range 100 {
					j := urgent
					j.id, j.takes = fmt.Sprint("urgent", i), time.Second
					h.send(j)
				}
				time.Sleep(time.Minute)
				h.started("patient", 1+queue.PassMax)
				h.started("patient2", 1+2*queue.PassMax+1)
			})
		})
	}
}

func TestFairShare(t *testing.T) {
	simulate(t, func(c *Config) { c.Capacity.MilliCPU = 2000; c.Fair.User = true }, func(h *host) {
		for i := range 40 {
			h.send(job{id: fmt.Sprint("a", i), user: "a", takes: 10 * time.Second})
			if i == 0 {
				time.Sleep(5 * time.Second) // so that no two end at the same time
			}
		}
		time.Sleep(12 * time.Second)
		for i := range 10 {
			h.send(job{id: fmt.Sprint("b", i), user: "b", takes: 10 * time.Second})
		}
		time.Sleep(time.Hour)
		h.mu.Lock()
		defer h.mu.Unlock()
		// Four of a had started when b came. From then on they take turns.
		last := slices.Index(h.starts, "b9")
		ofA := 0
		for _, id := range h.starts[:last] {
			if id[0] == 'a' {
				ofA++
			}
		}
		if len(h.starts) != 50 || ofA < 12 || ofA > 14 {
			t.Errorf("%d of a were started before the last of b: %v", ofA, h.starts)
		}
	})
}

func TestParseFairBy(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]FairBy{"off": {}, "": {}, "user": {User: true}, "label:team": {Label: "team"}} {
		if got, err := ParseFairBy(text); got != want || err != nil {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{"users", "label:", "label", "on"} {
		if _, err := ParseFairBy(text); err == nil {
			t.Errorf("%q: no error", text)
		}
	}
}

// TestNothingStarvesBehindParked has a task that no host can run, and one that waits for another one with its id, be older than one that has its turn: they have none.
func TestNothingStarvesBehindParked(t *testing.T) {
	simulate(t, func(c *Config) { c.Capacity.MilliCPU = 2000; c.Window = 8 }, func(h *host) {
		h.Fleet = mute{}
		h.Joined()
		h.send(job{id: "same", takes: time.Hour}, job{id: "first", takes: 5 * time.Second}, job{id: "same"}, job{id: "parked", cpu: 8})
		time.Sleep(time.Second) // the other hosts do not answer
		h.send(job{id: "patient", takes: time.Second, priority: 1})
		for i := range 100 {
			h.send(job{id: fmt.Sprint("urgent", i), takes: time.Second, priority: 9})
		}
		if n := h.Numbers().Demand; n != 2+2+8 {
			t.Errorf("the demand is %d: what waits for other hosts, or for a task with the same id, takes the place of others", n)
		}
		time.Sleep(2 * time.Minute)
		h.started("patient", 5+queue.PassMax)
		h.started("parked", -1)
		h.started("same", 0)
	})
}
