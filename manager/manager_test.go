package manager

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/mayfly/mayfly/queue"
	"github.com/mayfly/mayfly/worker"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// source hands out what the test gives it.
type source struct{ deliveries chan queue.Delivery }

func (s *source) Receive(ctx context.Context) (queue.Delivery, error) {
	select {
	case d := <-s.deliveries:
		return d, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
func (*source) Demand(int)   {}
func (*source) Close() error { return nil }

// delivery notes its verdicts. With loses it is lost before the confirm, with breaks between that and the giving up.
type delivery struct {
	message  queue.Message
	loses    bool
	breaks   bool
	gate     chan struct{} // where it is set, nothing is confirmed before it is closed
	lost     chan struct{}
	verdicts chan queue.Verdict
}

func newDelivery(m queue.Message) *delivery {
	m.Pool, m.Band = "default", queue.Normal
	if m.QueuedAt.IsZero() {
		m.QueuedAt, m.Undated, m.Guessed = time.Now(), true, true
	}
	return &delivery{message: m, lost: make(chan struct{}), verdicts: make(chan queue.Verdict, 1)}
}
func (d *delivery) Message() queue.Message { return d.message }
func (d *delivery) Lost() <-chan struct{}  { return d.lost }
func (d *delivery) Settle(_ context.Context, v queue.Verdict, confirmed func() error) error {
	if d.gate != nil {
		<-d.gate
	}
	if d.loses {
		d.loses = false
		close(d.lost)
	}
	select {
	case <-d.lost:
		return queue.ErrLost
	default:
	}
	if confirmed != nil {
		if err := confirmed(); err != nil {
			return err
		}
	}
	if d.breaks { // before the queue can deliver it again
		close(d.lost)
		d.verdicts <- v
		return queue.ErrLost
	}
	d.verdicts <- v
	return nil
}

// runner counts the runs of each attempt; each ends when the test lets it.
type runner struct {
	ended chan worker.Outcome
	mu    sync.Mutex
	runs  map[string]int
}

func (r *runner) Run(ctx context.Context, a *worker.Attempt, started func(int, time.Time)) (*worker.Outcome, error) {
	r.mu.Lock()
	r.runs[a.ID()]++
	r.mu.Unlock()
	started(1, time.Now())
	select {
	case o := <-r.ended:
		return &o, nil
	case <-ctx.Done():
		return &worker.Outcome{Cause: queue.CauseCancelled}, nil
	}
}
func (*runner) Held(context.Context) ([]worker.Held, error) { return nil, nil }
func (*runner) Release(string)                              {}

// memory is a History.
type memory struct {
	mu      sync.Mutex
	records map[string]Record
	latest  map[string]Record
	marks   map[string]time.Time
}

func (h *memory) Put(r Record) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.records[r.ID], h.latest[r.Result.ID] = r, r
	return nil
}
func (h *memory) Get(id string) (Record, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	r, ok := h.latest[id]
	return r, ok
}
func (h *memory) Settled(id string) (Record, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	r, ok := h.records[id]
	return r, ok
}
func (*memory) Recent(int) []Record { return nil }
func (*memory) Acked(string)        {}
func (h *memory) MarkCancel(id string, at time.Time) (kept func() error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.marks[id] = at
	return func() error { return nil }
}
func (h *memory) CancelMark(id string) (time.Time, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	at, ok := h.marks[id]
	return at, ok
}

func (h *memory) Unmark(id string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.marks, id)
}

type bench struct {
	t *testing.T
	*Manager
	source  *source
	runner  *runner
	history *memory
}

// newBench runs a manager with services that the test may change.
func newBench(t *testing.T, changes ...func(*Services)) *bench {
	return newBenchWith(t, func(_ *Config, s *Services) {
		for _, change := range changes {
			change(s)
		}
	})
}

func newBenchWith(t *testing.T, change func(*Config, *Services)) *bench {
	b := &bench{t: t, source: &source{make(chan queue.Delivery)}, runner: &runner{ended: make(chan worker.Outcome), runs: map[string]int{}},
		history: &memory{records: map[string]Record{}, latest: map[string]Record{}, marks: map[string]time.Time{}}}
	services := Services{Source: b.source, Runner: b.runner, History: b.history, Resolve: func(t queue.Task) (queue.Task, error) { return t, nil },
		Backlog: Backlog{Depth: func(context.Context) (map[string]int, error) { return nil, nil }},
		Detach:  func() {}, Sweep: func(func(string) bool) {}, QueueState: func() string { return "test" }, Log: slog.New(slog.DiscardHandler)}
	config := Config{Host: "h", Pools: []string{"default"}, Capacity: Capacity{MilliCPU: 1000, Memory: 1 << 30}, Window: 4,
		OnStop: StopWorkers, Defaults: Defaults{MilliCPU: 1000, MaxAttempts: 1}}
	change(&config, &services)
	b.Manager = New(config, services)
	intake, stop := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- b.Run(intake, intake) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return b
}

// verdict waits for the delivery's verdict.
func (b *bench) verdict(d *delivery) queue.Verdict {
	b.t.Helper()
	select {
	case v := <-d.verdicts:
		return v
	case <-time.After(30 * time.Second):
		b.t.Fatal("no verdict")
		return queue.Verdict{}
	}
}

func (b *bench) ran(attempt string) int {
	b.runner.mu.Lock()
	defer b.runner.mu.Unlock()
	return b.runner.runs[attempt]
}

// until waits for a change of the manager's tasks.
func (b *bench) until(what string, ok func() bool) {
	b.t.Helper()
	for limit := time.After(30 * time.Second); ; {
		changed := b.Changed()
		if ok() {
			return
		}
		select {
		case <-changed:
		case <-limit:
			b.t.Fatalf("waited in vain until %s", what)
		}
	}
}

var message = queue.Message{MessageID: "t", Body: []byte(`{"command": ["true"]}`)}

// TestAcknowledgementLost loses the delivery after the confirm: the message comes back, and is given up without another run
// or result, in this life of the manager and in the next.
func TestAcknowledgementLost(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	first := newDelivery(message)
	first.breaks = true
	b.source.deliveries <- first
	b.runner.ended <- worker.Outcome{Cause: queue.CauseNone}
	if v := b.verdict(first); v.Action != queue.Done || v.Result == nil || v.Result.State != queue.Succeeded {
		t.Errorf("verdict = %+v", v)
	}
	again := message
	again.Redelivered = true
	second := newDelivery(again)
	b.source.deliveries <- second
	if v := b.verdict(second); v.Action != queue.Done || v.Result != nil {
		t.Errorf("verdict = %+v, want the message given up", v)
	}
	b.until("it is forgotten", func() bool { list, _ := b.List(t.Context(), 0); return len(list) == 0 })
	third := newDelivery(again) // as the next life of the manager gets it: nothing in memory, only the record
	b.source.deliveries <- third
	if v := b.verdict(third); v.Action != queue.Done || v.Result != nil {
		t.Errorf("verdict = %+v, want the message given up", v)
	}
	if n := b.ran("t.1"); n != 1 {
		t.Errorf("ran %d times", n)
	}
}

// TestSameTaskAgain has a producer send a settled task once more: it runs.
func TestSameTaskAgain(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	for range 2 {
		d := newDelivery(message)
		b.source.deliveries <- d
		b.runner.ended <- worker.Outcome{Cause: queue.CauseNone}
		if v := b.verdict(d); v.Result == nil {
			t.Errorf("verdict = %+v", v)
		}
		b.until("it is forgotten", func() bool { list, _ := b.List(t.Context(), 0); return len(list) == 0 })
	}
	if n := b.ran("t.1"); n != 2 {
		t.Errorf("ran %d times", n)
	}
}

// TestSecondCopy has the copy of a retry come twice: one runs, the other is given up.
func TestSecondCopy(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	copied := message
	copied.History = []queue.Past{{Attempt: 1, Cause: queue.CauseHostLost}}
	first, second := newDelivery(copied), newDelivery(copied)
	b.source.deliveries <- first
	b.source.deliveries <- second
	b.runner.ended <- worker.Outcome{Cause: queue.CauseNone}
	if v := b.verdict(first); v.Result == nil || v.Result.Attempt != 2 {
		t.Errorf("verdict = %+v", v)
	}
	if v := b.verdict(second); v.Action != queue.Done || v.Result != nil {
		t.Errorf("verdict = %+v, want the copy given up", v)
	}
	if n := b.ran("t.2"); n != 1 {
		t.Errorf("ran %d times", n)
	}
}

// TestMessageAndCopy has a message come back beside its copy for the next try, as after the death of a host that had published the copy and not noted that: once one of
// them has succeeded, the other is given up. What a producer sends again is not, nor what is put back from among the dead.
func TestMessageAndCopy(t *testing.T) {
	t.Parallel()
	now := time.Now()
	original := message
	original.Redelivered, original.QueuedAt = true, now
	copied := message
	copied.QueuedAt, copied.History = now, []queue.Past{{Attempt: 1, Host: "dead", Cause: queue.CauseHostLost}}
	anew := original
	anew.QueuedAt = now.Add(time.Second)
	again := original
	again.Redelivered = false
	given := again
	given.Copied = true
	undated := given
	undated.Guessed = true
	changed := original
	changed.Body = []byte(`{"command": ["false"]}`)
	for name, x := range map[string]struct {
		first, second queue.Message
		cause         queue.Cause // of the first's end
		runs          bool        // the second
	}{
		"the copy is second":   {original, copied, queue.CauseNone, false},
		"the copy is first":    {copied, original, queue.CauseNone, false},
		"sent anew":            {copied, anew, queue.CauseNone, true},
		"another message":      {copied, changed, queue.CauseNone, true},
		"the first has failed": {copied, original, queue.CauseExit, true},
		"given back":           {original, given, queue.CauseNone, false},
		"given back, undated":  {original, undated, queue.CauseNone, true}, // it may have been sent twice
		"at the same moment":   {original, again, queue.CauseNone, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			first := newDelivery(x.first)
			b.source.deliveries <- first
			b.runner.ended <- worker.Outcome{Cause: x.cause}
			b.verdict(first)
			b.until("it is forgotten", func() bool { list, _ := b.List(t.Context(), 0); return len(list) == 0 })
			second := newDelivery(x.second)
			b.source.deliveries <- second
			if x.runs {
				select {
				case b.runner.ended <- worker.Outcome{Cause: queue.CauseNone}:
				case v := <-second.verdicts:
					t.Fatalf("verdict = %+v, want that it runs", v)
				}
			}
			if v := b.verdict(second); v.Action != queue.Done || (v.Result != nil) != x.runs {
				t.Errorf("verdict = %+v, want that it runs: %t", v, x.runs)
			}
		})
	}
}

// TestLostWhileRunning loses the delivery of a running task, which comes back under another id because neither body nor
// message has one: it is joined to its worker.
func TestLostWhileRunning(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	nameless := queue.Message{Body: message.Body}
	first := newDelivery(nameless)
	b.source.deliveries <- first
	b.until("it runs", func() bool { list, _ := b.List(t.Context(), 0); return len(list) == 1 && list[0].PID != 0 })
	close(first.lost)
	second := newDelivery(nameless)
	b.source.deliveries <- second
	b.runner.ended <- worker.Outcome{Cause: queue.CauseNone}
	if v := b.verdict(second); v.Result == nil || v.TaskID != v.Result.ID {
		t.Errorf("verdict = %+v", v)
	}
	if len(b.runner.runs) != 1 {
		t.Errorf("runs = %v", b.runner.runs)
	}
}

// TestUnsettled has a queue that confirms nothing: the host stops starting tasks, and goes on when results are confirmed.
func TestUnsettled(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	gate := make(chan struct{})
	const more = 3
	var all []*delivery
	for i := range unconfirmedMax + more {
		d := newDelivery(queue.Message{MessageID: fmt.Sprint("t", i), Body: message.Body})
		d.gate = gate
		all = append(all, d)
		b.source.deliveries <- d
		if i < unconfirmedMax {
			b.runner.ended <- worker.Outcome{Cause: queue.CauseNone}
		}
	}
	b.until("the last ones wait for settlements", func() bool {
		list, _ := b.List(t.Context(), 0)
		waiting := 0
		for _, v := range list {
			if v.Status == Waiting && strings.HasPrefix(v.Reason, "waits until results are settled") {
				waiting++
			}
		}
		return len(list) == unconfirmedMax+more && waiting == more
	})
	close(gate)
	for range more {
		b.runner.ended <- worker.Outcome{Cause: queue.CauseNone}
	}
	for _, d := range all {
		b.verdict(d)
	}
}
