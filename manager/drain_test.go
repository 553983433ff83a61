package manager

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/mayfly/mayfly/isolation"
	"github.com/mayfly/mayfly/queue"
	"github.com/mayfly/mayfly/worker"
)

// drains begins a drain of an hour of a host on which a task runs.
func drains(t *testing.T) (b *bench, f *hosts, running *delivery) {
	t.Helper()
	b, f = newFleet(t)
	running = newDelivery(message)
	b.source.deliveries <- running
	b.until("it runs", func() bool { return b.ran("t.1") == 1 })
	b.Greeted(queue.Hello{Host: "o", Pools: []string{"default"}, Back: true})
	b.Drain(time.Hour)
	b.until("it drains", func() bool { i, _ := b.Info(t.Context()); return i.State == draining })
	return b, f, running
}

// TestDrainIsAsked has the message of what runs on a host that drains be lost: the host that gets it is told so, and it is taken when it comes back. What else comes goes back to
// the queue, after a while.
func TestDrainIsAsked(t *testing.T) {
	t.Parallel()
	b, f, running := drains(t)
	close(running.lost)
	m := running.Message()
	fingerprint := m.Fingerprint()
	b.Asked(queue.Question{ID: "q", From: "o", Pool: "default", Purpose: queue.ToAdopt, TaskID: "t", AttemptID: "t.1", Fingerprint: fingerprint[:], Surely: true})
	if o := next(t, f.offered); !o.Has {
		t.Errorf("offer = %+v", o)
	}
	other := newDelivery(queue.Message{MessageID: "other", Body: message.Body})
	b.source.deliveries <- other
	if v := b.verdict(other); v.Action != queue.Retry || v.Delay < time.Second || v.Doubtful {
		t.Errorf("another message: %+v, want it to go back for a while", v)
	}
	again := message
	again.Redelivered, again.HandedBy = true, "o"
	back := newDelivery(again)
	b.source.deliveries <- back
	b.runner.ended <- worker.Outcome{Cause: queue.CauseNone}
	if v := b.verdict(back); v.Action != queue.Done || v.Result == nil {
		t.Errorf("its own message: %+v, want its result", v)
	}
	if n := b.ran("other.1"); n != 0 {
		t.Error("a host that drains has begun a task")
	}
}

// TestDrainWhileAsking has a host drain while it asks who has begun a message: it is handed over, or given back when nobody has.
func TestDrainWhileAsking(t *testing.T) {
	t.Parallel()
	for name, has := range map[string]bool{"it has": true, "it lacks": false} {
		b, f := newFleet(t)
		b.Greeted(queue.Hello{Host: "o", Pools: []string{"default"}, Back: true})
		running := newDelivery(message)
		b.source.deliveries <- running
		b.until("it runs", func() bool { return b.ran("t.1") == 1 })
		d := newDelivery(queue.Message{MessageID: "u", Body: message.Body, Redelivered: true, Turns: []int{0, 1}})
		b.source.deliveries <- d
		q := next(t, f.asked)
		b.Drain(time.Hour)
		b.until("it drains", func() bool { i, _ := b.Info(t.Context()); return i.State == draining })
		b.Offered(queue.Offer{Question: q.ID, Host: "o", Has: has, Lacks: !has})
		want := map[bool]queue.Action{true: queue.Forward, false: queue.Retry}[has]
		if v := b.verdict(d); v.Action != want || v.Delay > 0 {
			t.Errorf("%s: %+v, want %s", name, v, want)
		}
		b.runner.ended <- worker.Outcome{Cause: queue.CauseNone}
		b.verdict(running)
	}
}

// stubborn workers do not end when they are told to; detached ends the wait for them.
type stubborn struct{ begun, told, detached chan struct{} }

func (stubborn) Held(context.Context) ([]worker.Held, error) { return nil, nil }
func (stubborn) Release(string)                              {}
func (s stubborn) Run(ctx context.Context, _ *worker.Attempt, started func(int, time.Time)) (*worker.Outcome, error) {
	started(1, time.Now())
	close(s.begun)
	<-ctx.Done()
	close(s.told)
	<-s.detached
	return nil, isolation.ErrDetached
}

// TestNoFarewell has a host be told to stop again while a worker has its grace: that one lives on, so the others are not told that nothing runs here any more.
func TestNoFarewell(t *testing.T) {
	t.Parallel()
	f := &hosts{asked: make(chan queue.Question, 64), offered: make(chan queue.Offer, 64), hellos: make(chan queue.Hello, 64)}
	r := stubborn{make(chan struct{}), make(chan struct{}), make(chan struct{})}
	in := &source{make(chan queue.Delivery)}
	m := New(Config{Host: "h", Pools: []string{"default"}, Capacity: Capacity{MilliCPU: 1000, Memory: 1 << 30}, Window: 4,
		OnStop: StopWorkers, DrainTimeout: time.Millisecond, Defaults: Defaults{MilliCPU: 1000, MaxAttempts: 1}, KnownHosts: map[string][]string{"o": {"default"}}},
		Services{Source: in, Runner: r, Fleet: f, History: &memory{records: map[string]Record{}, latest: map[string]Record{}, marks: map[string]time.Time{}},
			Resolve: func(t queue.Task) (queue.Task, error) { return t, nil }, Backlog: Backlog{Depth: func(context.Context) (map[string]int, error) { return nil, nil }},
			Detach: func() { close(r.detached) }, Sweep: func(func(string) bool) {}, QueueState: func() string { return "test" }, Log: slog.New(slog.DiscardHandler)})
	intake, stop := context.WithCancel(context.Background())
	hurry, now := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- m.Run(intake, hurry) }()
	in.deliveries <- newDelivery(message)
	<-r.begun
	stop()
	<-r.told
	now()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	for len(f.hellos) > 0 {
		if h := <-f.hellos; h.Leaves {
			t.Error("it says that it has begun nothing that it has not ended")
		}
	}
}
