package manager

import (
	"context"
	"io"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/mayfly/mayfly/queue"
	"github.com/mayfly/mayfly/queue/local"
	"github.com/mayfly/mayfly/worker"
)

// The tests below submit the same task again, word for word and with the same id, while it is not certain that the message of the first one is gone: the second is a task of
// its own.

// settledRecord is that of a task that was queued and settled then.
func settledRecord(at time.Time, state queue.State) Record {
	m := newDelivery(message).message
	return Record{ID: "t.1", Fingerprint: m.Fingerprint(), SettledAt: at, AckedAt: at, Result: queue.Result{ID: "t", State: state, QueuedAt: &at}}
}

// TestSubmittedAnew has another host give the second one back: the others are asked, and it is not taken for the first.
func TestSubmittedAnew(t *testing.T) {
	t.Parallel()
	b, f := newFleet(t)
	if err := b.history.Put(settledRecord(time.Now().Add(-5*time.Minute), queue.Failed)); err != nil {
		t.Fatal(err)
	}
	anew := message
	anew.QueuedAt, anew.Redelivered, anew.Turns = time.Now(), true, []int{0, 1}
	d := newDelivery(anew)
	b.source.deliveries <- d
	select {
	case <-f.asked:
	case v := <-d.verdicts:
		t.Errorf("it is given up without a run or a result: %+v", v)
	case <-time.After(30 * time.Second):
		t.Error("nobody is asked for it")
	}
}

// TestSubmittedAnewHere has the second one wait in the embedded queue while the manager is restarted.
func TestSubmittedAnewHere(t *testing.T) {
	t.Parallel()
	path, log := filepath.Join(t.TempDir(), "queue.db"), slog.New(slog.NewTextHandler(io.Discard, nil))
	history := &memory{records: map[string]Record{}, latest: map[string]Record{}, marks: map[string]time.Time{}}
	r := &runner{ended: make(chan worker.Outcome), runs: map[string]int{}}
	life := func(use func(m *Manager)) {
		q, err := local.Open(path, local.Options{Pools: []string{"default"}, Log: log})
		if err != nil {
			t.Fatal(err)
		}
		m := New(Config{Host: "h", Pools: []string{"default"}, Capacity: Capacity{MilliCPU: 1000, Memory: 1 << 30}, Window: 4, OnStop: StopWorkers, Alone: true,
			Defaults: Defaults{MilliCPU: 1000, MaxAttempts: 1}},
			Services{Source: q.Source(), Publisher: q, Cemetery: q, Runner: r, History: history, Resolve: func(t queue.Task) (queue.Task, error) { return t, nil },
				Backlog: Backlog{Depth: q.Depth}, Detach: func() {}, Sweep: func(func(string) bool) {}, QueueState: q.State, Log: log})
		ctx, stop := context.WithCancel(context.Background())
		ended := make(chan error)
		go func() { ended <- m.Run(ctx, ctx) }()
		use(m)
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if err := q.Close(); err != nil {
			t.Error(err)
		}
	}
	submit := func(m *Manager, body string) {
		t.Helper()
		if _, err := m.Submit(t.Context(), []byte(body), ""); err != nil {
			t.Fatal(err)
		}
	}
	ran := func(id string) int {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.runs[id]
	}
	life(func(m *Manager) {
		submit(m, `{"id": "t", "command": ["x"]}`)
		r.ended <- worker.Outcome{Cause: queue.CauseExit}
		b := &bench{t: t, Manager: m}
		b.until("the first one has failed", func() bool { r, ok := history.Get("t"); return ok && r.Result.State == queue.Failed })
		submit(m, `{"id": "busy", "command": ["x"]}`)
		b.until("another task runs", func() bool { return ran("busy.1") == 1 })
		submit(m, `{"id": "t", "command": ["x"]}`)
	})
	life(func(*Manager) {
		for range 2 {
			select {
			case r.ended <- worker.Outcome{Cause: queue.CauseNone}:
			case <-time.After(30 * time.Second):
				t.Error("nothing runs")
			}
		}
	})
	if n := ran("t.1"); n != 2 {
		t.Errorf("it has run %d times", n)
	}
}

// holding is a runner that has ended attempts of an earlier life.
type holding struct {
	*runner
	held     []worker.Held
	released chan string
}

func (r holding) Held(context.Context) ([]worker.Held, error) { return r.held, nil }
func (r holding) Release(id string)                           { r.released <- id }

// TestEndedAnew has the second one end while the manager is restarted: its exit is that of a task which is not settled.
func TestEndedAnew(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		queuedAt time.Time
		released bool
	}{"the first": {time.Now().Add(-time.Hour), true}, "the second": {time.Now(), false}} {
		m := newDelivery(message).message
		a := worker.Attempt{Task: queue.Task{ID: "t", MaxAttempts: 1, Pool: "default"}, Number: 1, Host: "h", QueuedAt: c.queuedAt, Fingerprint: m.Fingerprint()}
		first := settledRecord(time.Now().Add(-time.Hour), queue.Succeeded)
		if c.released {
			first.Result.QueuedAt = &c.queuedAt
		}
		released := make(chan string, 1)
		b := newBench(t, func(s *Services) {
			s.Runner = holding{s.Runner.(*runner), []worker.Held{{Attempt: a, Ended: true}}, released}
			if err := s.History.Put(first); err != nil {
				t.Error(err)
			}
		})
		if c.released {
			next(t, released)
			continue
		}
		b.until(name+" is settled", func() bool { return b.ran("t.1") == 1 }) // whose runner tells how it ended
		if len(released) > 0 {
			t.Errorf("the exit of %s is let go of", name)
		}
	}
}

// TestSettledAnew has another host ask whether the second one is settled.
func TestSettledAnew(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	yesterday := time.Now().Add(-24 * time.Hour)
	r := settledRecord(yesterday, queue.Succeeded)
	if err := b.history.Put(r); err != nil {
		t.Fatal(err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for at, want := range map[time.Time]bool{yesterday: true, time.Now(): false, {}: true} {
		if has := b.hasSettled(&queue.Question{TaskID: "t", AttemptID: "t.1", Fingerprint: r.Fingerprint[:], QueuedAt: at}); has != want {
			t.Errorf("queued at %s: settled: %t", at, has)
		}
	}
}

// acks is a history that notes what was acknowledged.
type acks struct {
	*memory
	ids chan string
}

func (a *acks) Acked(id string) { a.ids <- id }

// TestAckedAgain has a message come back whose acknowledgement was lost: it is the record of its attempt that is in doubt no more.
func TestAckedAgain(t *testing.T) {
	t.Parallel()
	a := &acks{ids: make(chan string, 8)}
	b := newBench(t, func(s *Services) { a.memory = s.History.(*memory); s.History = a })
	m := newDelivery(message).message
	if err := a.Put(Record{ID: "t.1", Fingerprint: m.Fingerprint(), Result: queue.Result{ID: "t", State: queue.Succeeded}}); err != nil {
		t.Fatal(err)
	}
	again := message
	again.Redelivered = true
	d := newDelivery(again)
	b.source.deliveries <- d
	b.verdict(d)
	if id := next(t, a.ids); id != "t.1" {
		t.Errorf("%s is acknowledged", id)
	}
}
