package manager

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mayfly/mayfly/queue"
)

// TestOwnerComesLate has a message wait for room after nobody has said that its task runs there: a host that comes then is asked, and has it handed.
func TestOwnerComesLate(t *testing.T) {
	simulate(t, func(c *Config) { c.Capacity.MilliCPU = 1000 }, func(h *host) {
		f := &talkative{}
		h.Fleet = f
		h.Joined()
		h.Greeted(queue.Hello{Host: "o", Pools: []string{"default"}, Back: true})
		h.takes["busy"] = time.Hour
		h.source.deliveries <- newDelivery(queue.Message{MessageID: "busy", Body: []byte(`{"id": "busy", "command": ["x"]}`)})
		synctest.Wait()
		d := newDelivery(queue.Message{MessageID: "t", Body: []byte(`{"id": "t", "command": ["x"]}`), Redelivered: true, Turns: []int{0, 1}})
		h.source.deliveries <- d
		time.Sleep(adoptTime + 5*time.Second)
		before := len(f.list())
		h.Greeted(queue.Hello{Host: "o", Pools: []string{"default"}})
		synctest.Wait()
		var again queue.Question
		for _, q := range f.list()[before:] {
			if q.Purpose == queue.ToAdopt && q.TaskID == "t" {
				again = q
			}
		}
		if again.ID == "" {
			t.Fatalf("who comes is not asked: %+v", f.list())
		}
		h.Offered(queue.Offer{Question: again.ID, Host: "o", Has: true})
		time.Sleep(time.Second)
		select {
		case v := <-d.verdicts:
			if v.Action != queue.Forward || v.Host != "o" || !v.Doubtful {
				t.Errorf("verdict: %+v", v)
			}
		default:
			t.Error("it is not handed over")
		}
	})
}

// TestKnownFromBefore has a manager that was just started wait for a host that the one before knew, though it has not heard of it; when that does not
// answer, it is forgotten.
func TestKnownFromBefore(t *testing.T) {
	simulate(t, func(c *Config) { c.KnownHosts = map[string][]string{"o1": {"default"}} }, func(h *host) {
		var kept []map[string][]string
		h.KeepHosts = func(now map[string][]string) { kept = append(kept, maps.Clone(now)) }
		h.Fleet = mute{}
		h.Joined()
		send := func(id string) {
			d := newDelivery(queue.Message{Body: fmt.Appendf(nil, `{"id": %q, "command": ["x"]}`, id), Redelivered: true, Turns: []int{0, 1}})
			h.source.deliveries <- d
			synctest.Wait()
		}
		send("a")
		time.Sleep(adoptTime - time.Second)
		h.started("a", -1)
		time.Sleep(2 * time.Second)
		h.started("a", int(adoptTime/time.Second))
		if len(kept) != 1 || len(kept[0]) != 0 {
			t.Errorf("kept: %v", kept)
		}
		send("b") // alone now
		time.Sleep(loneTime + time.Second)
		h.started("b", int((adoptTime+time.Second+loneTime)/time.Second))
		h.Greeted(queue.Hello{Host: "o2", Pools: []string{"default"}})
		if len(kept) != 2 || len(kept[1]) != 1 {
			t.Errorf("kept: %v", kept)
		}
	})
}

// TestOutOfReachItself has a host ask who has begun a task, and lose its connection: those that it has not heard are not forgotten for that, for it would not wait for them when the
// message comes back.
func TestOutOfReachItself(t *testing.T) {
	for _, away := range []bool{true, false} {
		simulate(t, func(c *Config) { c.KnownHosts = map[string][]string{"o": {"default"}} }, func(h *host) {
			var kept []map[string][]string
			h.KeepHosts = func(now map[string][]string) { kept = append(kept, maps.Clone(now)) }
			h.Fleet = mute{}
			h.Joined()
			send := func() *delivery {
				d := newDelivery(queue.Message{Body: []byte(`{"id": "t", "command": ["x"]}`), Redelivered: true, Turns: []int{0, 1}})
				h.source.deliveries <- d
				synctest.Wait()
				return d
			}
			d := send()
			time.Sleep(adoptTime - time.Second)
			if away {
				close(d.lost)
			}
			time.Sleep(2 * time.Second)
			synctest.Wait()
			if away != (len(kept) == 0) {
				t.Errorf("away %t: kept %v", away, kept)
			}
			if !away {
				h.started("t", int(adoptTime/time.Second))
				return
			}
			if list, _ := h.List(context.Background(), 0); len(list) > 0 {
				t.Errorf("it still has %+v", list)
			}
			send()
			time.Sleep(adoptTime - time.Second)
			h.started("t", -1)
			time.Sleep(2 * time.Second)
			h.started("t", 2*int(adoptTime/time.Second)+1)
		})
	}
}

// TestAnswerOnItsWay has a host's connection stand still while it asks who has begun a task: when that goes on, the answer comes, and is heard before anything is decided.
func TestAnswerOnItsWay(t *testing.T) {
	simulate(t, nil, func(h *host) {
		heard, goesOn := time.Now(), make(chan struct{})
		h.Heard = func() time.Time { return heard }
		h.Prove = func(ctx context.Context) error {
			select {
			case <-goesOn:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		f := &talkative{}
		h.Fleet = f
		h.Joined()
		h.Greeted(queue.Hello{Host: "o", Pools: []string{"default"}, Back: true})
		d := newDelivery(queue.Message{MessageID: "t", Body: []byte(`{"command": ["x"]}`), Redelivered: true, Turns: []int{0, 1}})
		h.source.deliveries <- d
		time.Sleep(adoptTime + 5*time.Second)
		synctest.Wait()
		if n := len(h.others.known); n != 1 {
			t.Errorf("%d hosts are known", n)
		}
		close(goesOn)
		time.Sleep(10 * time.Millisecond)
		h.Offered(queue.Offer{Question: f.list()[0].ID, Host: "o", Has: true})
		time.Sleep(time.Second)
		h.started("t", -1)
		if v := <-d.verdicts; v.Action != queue.Forward || v.Host != "o" {
			t.Errorf("verdict: %+v", v)
		}
	})
}

// mute is a fleet of which nobody answers.
type mute struct{}

func (mute) Ask(context.Context, queue.Question, string) error { return nil }

func (mute) Own([16]byte, bool) {}

func (mute) Answer(context.Context, queue.Question, queue.Offer) error { return nil }

func (mute) Hello(context.Context, queue.Hello, string) error { return nil }

// talkative notes what others are asked.
type talkative struct {
	mute
	mu    sync.Mutex
	asked []queue.Question
}

func (f *talkative) Ask(_ context.Context, q queue.Question, _ string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, q)
	return nil
}

func (f *talkative) list() []queue.Question {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.asked
}

// speechless is a fleet that cannot be told anything until it is open.
type speechless struct {
	talkative
	open chan struct{}
}

func (f *speechless) Ask(ctx context.Context, q queue.Question, host string) error {
	select {
	case <-f.open:
		return f.talkative.Ask(ctx, q, host)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// TestAskedLate has a message come back while nobody can be asked, as when of two connections one is back before the other: nobody is silent who was not asked.
func TestAskedLate(t *testing.T) {
	simulate(t, func(*Config) {}, func(h *host) {
		f := &speechless{open: make(chan struct{})}
		h.Fleet = f
		h.Joined()
		h.Greeted(queue.Hello{Host: "o", Pools: []string{"default"}, Back: true})
		h.source.deliveries <- newDelivery(queue.Message{Body: []byte(`{"id": "t", "command": ["x"]}`), Redelivered: true, Turns: []int{0, 1}})
		time.Sleep(2*adoptTime + time.Second)
		close(f.open)
		time.Sleep(adoptTime - time.Millisecond)
		h.started("t", -1)
		if list := f.list(); len(list) != 1 || list[0].TaskID != "t" || list[0].Purpose != queue.ToAdopt {
			t.Errorf("asked: %+v", list)
		}
		time.Sleep(time.Second)
		h.started("t", int(3*adoptTime/time.Second)+1)
	})
}

// TestToldOutOfReach has a person ask for other hosts while the queue is out of reach: that is what is told, with what this host knows itself.
func TestToldOutOfReach(t *testing.T) {
	simulate(t, nil, func(h *host) {
		h.Fleet = &speechless{open: make(chan struct{})}
		h.QueueState = func() string { return "RabbitMQ at b:5672, out of reach since noon" }
		const want = "cannot ask the other hosts: nothing was confirmed in time by RabbitMQ at b:5672, out of reach since noon"
		if _, err := h.Hosts(context.Background()); err == nil || err.Error() != want {
			t.Errorf("hosts: %v", err)
		}
		h.source.deliveries <- newDelivery(queue.Message{Body: []byte(`{"id": "t", "command": ["x"]}`), Redelivered: true, Turns: []int{0, 1}})
		synctest.Wait()
		x, err := h.Explain(context.Background(), "t")
		if err != nil || !strings.Contains(x.Sentence, "was delivered before") || !strings.HasSuffix(x.Sentence, "; "+want) {
			t.Errorf("explained: %+v, %v", x, err)
		}
		if _, err := h.Explain(context.Background(), "u"); err == nil || err.Error() != want {
			t.Errorf("explained: %v", err)
		}
	})
}

// TestWhoIsAwaited has a task wait for hosts that may have begun it: explain names those that have not answered.
func TestWhoIsAwaited(t *testing.T) {
	simulate(t, func(c *Config) {
		c.KnownHosts = map[string][]string{"o1": {"default"}, "o2": {"default"}, "o3": {"default"}, "p": {"other"}}
	}, func(h *host) {
		f := &talkative{}
		h.Fleet = f
		h.Joined()
		h.source.deliveries <- newDelivery(queue.Message{Body: []byte(`{"id": "t", "command": ["x"]}`), Redelivered: true, Turns: []int{0, 1}})
		synctest.Wait()
		h.Offered(queue.Offer{Question: f.list()[0].ID, Host: "o2", Lacks: true})
		x, err := h.Explain(context.Background(), "t")
		if want := "it was delivered before: waits for the host that may have begun it; no answer yet of o1, o3"; err != nil || x.Sentence != want {
			t.Errorf("explained: %q, %v", x.Sentence, err)
		}
	})
}
