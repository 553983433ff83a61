package manager

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mayfly/mayfly/queue"
)

// newTypeless makes a host of a fleet that knows no task types, and two others.
func newTypeless(t *testing.T) (*bench, *hosts) {
	f := newHosts()
	b := newBenchWith(t, func(c *Config, s *Services) {
		s.Fleet, s.Discard = f, func(string) {}
		s.Resolve = func(t queue.Task) (queue.Task, error) {
			if t.Type != "" {
				return queue.Task{}, &queue.Refusal{Field: "type", Value: `"` + t.Type + `"`, Remedy: "this host has no such type"}
			}
			return t, nil
		}
	})
	b.Joined()
	next(t, f.hellos)
	for _, host := range []string{"o1", "o2"} {
		b.Greeted(queue.Hello{Host: host, Pools: []string{"default"}, Back: true})
	}
	return b, f
}

// question delivers a task of a type that only the others may know, and returns what they are asked about it.
func (b *bench) question(f *hosts, msg queue.Message) (*delivery, queue.Question) {
	b.t.Helper()
	d := newDelivery(msg)
	b.source.deliveries <- d
	return d, next(b.t, f.asked)
}

// lacks has the hosts answer that they do not know the type, either.
func (b *bench) lacks(q *queue.Question, hosts ...string) {
	for _, host := range hosts {
		b.Offered(queue.Offer{Question: q.ID, Host: host, Lacks: true, Never: true})
	}
}

func typed(id string) queue.Message {
	return queue.Message{MessageID: id, Pool: "default", Body: []byte(`{"type": "a"}`)}
}

// TestRefusedHere has tasks of a type that this host does not know: those who do get them.
func TestRefusedHere(t *testing.T) {
	t.Parallel()
	b, f := newTypeless(t)
	d, q := b.question(f, typed("m"))
	if q.Purpose != queue.ToRun || !q.Refused || !q.Surely || q.Message == nil {
		t.Errorf("question = %+v", q)
	}
	b.lacks(&q, "o1")
	b.Offered(queue.Offer{Question: q.ID, Host: "o2", Room: 1})
	if v := b.verdict(d); v.Action != queue.Forward || v.Host != "o2" {
		t.Errorf("verdict = %+v", v)
	}
}

// TestRefusedByAll has one that nobody knows: it is refused as soon as all have said so.
func TestRefusedByAll(t *testing.T) {
	t.Parallel()
	b, f := newTypeless(t)
	d, q := b.question(f, typed("m"))
	b.lacks(&q, "o1", "o2")
	v := b.verdict(d)
	const want = `type is "a": this host has no such type; no other host of the pool takes it`
	if v.Action != queue.Bury || v.Reason != want || v.Result == nil || v.Result.State != queue.Rejected || v.Result.Message != want {
		t.Errorf("verdict = %+v", v)
	}
}

// TestRefusedNotYet has one that another host takes when it has room: it waits for that as what is too large for this host does.
func TestRefusedNotYet(t *testing.T) {
	t.Parallel()
	b, f := newTypeless(t)
	d, q := b.question(f, typed("m"))
	b.lacks(&q, "o1")
	b.Offered(queue.Offer{Question: q.ID, Host: "o2", Lacks: true})
	if q = next(t, f.asked); q.Open != runTime || q.Refused {
		t.Errorf("question = %+v", q)
	}
	b.until("it is parked", func() bool { v, err := b.Show(t.Context(), "m"); return err == nil && v.Status == Parked })
	b.Offered(queue.Offer{Question: q.ID, Host: "o2", Room: 1})
	if v := b.verdict(d); v.Action != queue.Forward || v.Host != "o2" {
		t.Errorf("verdict = %+v", v)
	}
}

// TestRefusedInSilence has a host that does not answer. It may know the type: the task waits for it, and is refused when that has answered, too.
func TestRefusedInSilence(t *testing.T) {
	t.Parallel()
	b, f := newTypeless(t)
	d, q := b.question(f, typed("m"))
	b.lacks(&q, "o1")
	if q = next(t, f.asked); q.Open != runTime || !q.Refused || !q.Surely {
		t.Errorf("question = %+v", q)
	}
	x, err := b.Explain(t.Context(), "m")
	if err != nil || x.Status != Parked || !strings.Contains(x.Sentence, `type is "a"`) {
		t.Errorf("%+v, %v", x, err)
	}
	b.lacks(&q, "o2")
	if v := b.verdict(d); v.Action != queue.Bury {
		t.Errorf("verdict = %+v", v)
	}
}

// TestRefusedWhileItRuns has the message of a task come that another host runs: it is not said to be rejected.
func TestRefusedWhileItRuns(t *testing.T) {
	t.Parallel()
	b, f := newTypeless(t)
	msg := typed("m")
	msg.Redelivered = true
	d, q := b.question(f, msg)
	if q.Purpose != queue.ToAdopt {
		t.Errorf("question = %+v", q)
	}
	b.Offered(queue.Offer{Question: q.ID, Host: "o2", Has: true})
	if v := b.verdict(d); v.Action != queue.Forward || v.Host != "o2" {
		t.Errorf("verdict = %+v", v)
	}
}

// TestRefusedAnswer is asked about a type that another host does not know: one who does not know it either says so, one who does says so, too, though there is no room now.
func TestRefusedAnswer(t *testing.T) {
	t.Parallel()
	b, f := newTypeless(t)
	msg := typed("m")
	ask := queue.Question{ID: "q", From: "o1", Pool: "default", Purpose: queue.ToRun, Message: &msg, Refused: true, Surely: true}
	b.Asked(ask)
	if o := next(t, f.offered); !o.Lacks || !o.Never {
		t.Errorf("offer = %+v", o)
	}

	knows, g := newFleet(t) // its Resolve takes any type
	knows.mu.Lock()
	knows.sick = "it is ill"
	knows.mu.Unlock()
	ask.Surely = false
	knows.Asked(ask)
	if o := next(t, g.offered); !o.Lacks || o.Never {
		t.Errorf("offer = %+v", o)
	}
	knows.mu.Lock()
	knows.sick = ""
	knows.mu.Unlock()
}

// amongTyped puts a host that knows no task types among n others.
func amongTyped(t *testing.T, n int, test func(h *host, f *multitude)) {
	t.Helper()
	among(t, n, func(h *host, f *multitude) {
		h.Resolve = func(t queue.Task) (queue.Task, error) {
			if t.Type != "" {
				return queue.Task{}, &queue.Refusal{Field: "type", Value: `"` + t.Type + `"`, Remedy: "this host has no such type"}
			}
			return t, nil
		}
		test(h, f)
	})
}

// verdictNow returns what has become of a message, or nil.
func (d *delivery) verdictNow() *queue.Verdict {
	synctest.Wait()
	select {
	case v := <-d.verdicts:
		return &v
	default:
		return nil
	}
}

// TestRefusedAmongMany has a fleet in which not each host says that it refuses a task: it is rejected when the question was open for long, and nobody has come who takes it.
func TestRefusedAmongMany(t *testing.T) {
	for _, n := range []int{20, 200} {
		amongTyped(t, n, func(h *host, f *multitude) {
			d := newDelivery(typed("m"))
			h.source.deliveries <- d
			time.Sleep(adoptTime)
			if v := d.verdictNow(); v != nil {
				t.Errorf("of %d: %+v", n, v)
			}
			time.Sleep(5 * time.Second)
			if v := d.verdictNow(); v == nil || v.Action != queue.Bury {
				t.Errorf("of %d: %+v, want it rejected", n, v)
			}

			d = newDelivery(typed("late"))
			h.source.deliveries <- d
			time.Sleep(adoptTime / 2)
			asked, _ := f.since(0)
			h.Offered(queue.Offer{Question: asked[len(asked)-1].ID, Host: f.names[n-1], Room: 1})
			time.Sleep(time.Second)
			if v := d.verdictNow(); v == nil || v.Host != f.names[n-1] {
				t.Errorf("of %d: %+v, want it handed to the host that was slow", n, v)
			}
		})
	}
}

// TestRefusedManyAmongMany has more of them than a host keeps questions about: what was not asked about for long goes back to the queue.
func TestRefusedManyAmongMany(t *testing.T) {
	amongTyped(t, 20, func(h *host, f *multitude) {
		var all []*delivery
		for i := range parkedHeld + 8 {
			d := newDelivery(typed(fmt.Sprint("m", i)))
			all = append(all, d)
			h.source.deliveries <- d
		}
		time.Sleep(adoptTime + 5*time.Second)
		actions := map[queue.Action]int{}
		for _, d := range all {
			if v := d.verdictNow(); v != nil {
				actions[v.Action]++
			}
		}
		if actions[queue.Bury] != parkedHeld || actions[queue.Retry] != 8 {
			t.Errorf("%v", actions)
		}
	})
}

// mumbling is a fleet to which no question can be put.
type mumbling struct{ mute }

func (mumbling) Ask(context.Context, queue.Question, string) error {
	return errors.New("it is too large")
}

// TestRefusedUnasked has one about which the others cannot be asked: nobody has refused it but this host.
func TestRefusedUnasked(t *testing.T) {
	amongTyped(t, 20, func(h *host, _ *multitude) {
		h.Fleet = mumbling{}
		d := newDelivery(typed("m"))
		h.source.deliveries <- d
		time.Sleep(adoptTime + 5*time.Second)
		if v := d.verdictNow(); v == nil || v.Action != queue.Retry {
			t.Errorf("%+v, want it put back", v)
		}
	})
}
