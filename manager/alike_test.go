package manager

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mayfly/mayfly/queue"
	"github.com/mayfly/mayfly/worker"
)

// wire brings the questions and answers of one host to another.
type wire struct {
	mute
	name  string
	to    *host
	asked *atomic.Int64
}

func (w *wire) Ask(_ context.Context, q queue.Question, _ string) error {
	q.From = w.name
	w.asked.Add(1)
	go w.to.Asked(q)
	return nil
}

func (w *wire) Answer(_ context.Context, q queue.Question, o queue.Offer) error {
	o.Question, o.Host = q.ID, w.name
	go w.to.Offered(o)
	return nil
}

// hourly is a runner whose workers take an hour.
type hourly struct{ begun *atomic.Int64 }

func (hourly) Held(context.Context) ([]worker.Held, error) { return nil, nil }
func (hourly) Release(string)                              {}
func (h hourly) Run(ctx context.Context, _ *worker.Attempt, started func(int, time.Time)) (*worker.Outcome, error) {
	h.begun.Add(1)
	started(1, time.Now())
	select {
	case <-time.After(time.Hour):
		return &worker.Outcome{Cause: queue.CauseNone}, nil
	case <-ctx.Done():
		return &worker.Outcome{Cause: queue.CauseCancelled}, nil
	}
}

// TestAlike has two hosts run tasks of a producer that gives no ids, and a third message of the same words come back: each host says that it may be running it. It is handed over
// once, waits until it is certain that nobody has lost it, and runs.
func TestAlike(t *testing.T) {
	simulate(t, func(c *Config) { c.Capacity.MilliCPU = 2000 }, func(a *host) {
		b := &host{t: t, source: &source{make(chan queue.Delivery)}, begin: time.Now(), takes: map[string]time.Duration{}, at: map[string]time.Duration{}}
		config, services := a.config, a.Services
		config.Host = "b"
		services.Source, services.History = b.source, &memory{records: map[string]Record{}, latest: map[string]Record{}}
		var asked, begun atomic.Int64
		services.Runner = hourly{&begun}
		a.Runner = services.Runner
		b.Manager = New(config, services)
		intake, stop := context.WithCancel(context.Background())
		ended := make(chan error)
		go func() { ended <- b.Manager.Run(intake, intake) }()
		synctest.Wait()
		names := map[*host]string{a: a.config.Host, b: "b"}
		a.Fleet, b.Fleet = &wire{name: names[a], to: b, asked: &asked}, &wire{name: names[b], to: a, asked: &asked}
		a.Joined()
		b.Joined()
		a.Greeted(queue.Hello{Host: names[b], Pools: []string{"default"}, Back: true})
		b.Greeted(queue.Hello{Host: names[a], Pools: []string{"default"}, Back: true})
		idless := queue.Message{Body: []byte(`{"command": ["x"], "resources": {"cpu": 1}}`)}
		a.source.deliveries <- newDelivery(idless)
		b.source.deliveries <- newDelivery(idless)
		synctest.Wait()
		idless.Redelivered = true
		d := newDelivery(idless)
		a.source.deliveries <- d
		if v := <-d.verdicts; v.Action != queue.Forward || v.Host != names[b] {
			t.Errorf("on the first host: %+v", v)
		}
		idless.HandedBy = names[a]
		d = newDelivery(idless)
		b.source.deliveries <- d
		time.Sleep(adoptTime - time.Second)
		if n := begun.Load(); n != 2 {
			t.Errorf("%d were begun before it was certain", n)
		}
		time.Sleep(2 * time.Second)
		if n := begun.Load(); n != 3 || len(d.verdicts) > 0 {
			t.Errorf("%d were begun, want all three; verdicts: %d", n, len(d.verdicts))
		}
		if n := asked.Load(); n > 2 {
			t.Errorf("%d questions were put", n)
		}
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// TestWaitingAndLost has what waits here be lost for long, and come back: where another host had it meanwhile the others are asked, else it waits on.
func TestWaitingAndLost(t *testing.T) {
	for name, c := range map[string]struct {
		turns []int
		asked bool
	}{"another host had it": {[]int{0, 1, 2}, true}, "nobody had it": {[]int{0, 1}, false}, "it is not known who had it": {nil, true}} {
		t.Run(name, func(t *testing.T) {
			simulate(t, func(c *Config) { c.Capacity.MilliCPU = 1000 }, func(h *host) {
				f := &talkative{}
				h.Fleet = f
				h.Joined()
				h.Greeted(queue.Hello{Host: "o", Pools: []string{"default"}, Back: true})
				h.takes["busy"] = 30 * time.Minute
				h.source.deliveries <- newDelivery(queue.Message{MessageID: "busy", Body: []byte(`{"id": "busy", "command": ["x"]}`)})
				synctest.Wait()
				m := queue.Message{MessageID: "t", Body: []byte(`{"id": "t", "command": ["x"]}`), Turns: []int{0}}
				d := newDelivery(m)
				h.source.deliveries <- d
				time.Sleep(8 * time.Minute)
				close(d.lost)
				time.Sleep(90 * time.Second)
				before := len(f.list())
				m.Redelivered, m.Turns = true, c.turns
				h.source.deliveries <- newDelivery(m)
				synctest.Wait()
				asked := false
				for _, q := range f.list()[before:] {
					asked = asked || q.Purpose == queue.ToAdopt && q.TaskID == "t"
				}
				if asked != c.asked {
					t.Errorf("the others are asked who has begun it: %t", asked)
				}
			})
		})
	}
}
