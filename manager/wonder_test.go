package manager

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mayfly/mayfly/queue"
	"github.com/mayfly/mayfly/worker"
)

// TestCopiesOnSeveralHosts has a message and copies of it come to several hosts about at once, and connections break: one host runs the task, and says its result once.
func TestCopiesOnSeveralHosts(t *testing.T) {
	for seed := range uint64(300) {
		synctest.Test(t, func(t *testing.T) {
			task := &simTask{takes: time.Minute, dated: true}
			b := simulateBroker(seed, 4, 20*time.Millisecond, map[string]*simTask{"t": task})
			time.Sleep(5 * time.Second) // they connect
			m := queue.Message{MessageID: "t", Body: []byte(`{"command": ["x"]}`), Pool: "default", Band: queue.Normal, QueuedAt: time.Now()}
			copies := int(b.between(2, 5))
			for i := range copies {
				copied := &simMessage{Message: m, uncounted: true}
				if i == 0 && seed%2 == 0 { // one of them may come as if for the first time
					copied.uncounted, copied.HandedBy, copied.to = false, "h9", b.hosts[b.between(0, 4)].name
				}
				time.AfterFunc(b.between(0, 60*time.Millisecond), func() {
					b.Lock()
					defer b.Unlock()
					b.publish(copied)
				})
			}
			for range 4 * (seed % 3) {
				h := b.hosts[b.between(0, 4)]
				time.AfterFunc(b.between(0, 2*time.Second), func() {
					b.Lock()
					defer b.Unlock()
					b.cut(h)
				})
			}
			time.Sleep(5 * time.Minute)
			b.Lock()
			if len(task.runs) != 1 || len(b.results["t"]) != 1 || len(b.ready) > 0 {
				t.Errorf("seed %d, %d copies: run %+v, results %v, %d messages left:\n%s", seed, copies, task.runs, b.results["t"], len(b.ready), strings.Join(b.tale, "\n"))
			}
			b.Unlock()
			b.stop()
		})
	}
}

// TestAnsweredInAnEarlierLife has a host answer that it has not begun a task, and greet: another life of it may have another message of that, and has to answer again; the same one, with a new
// connection, has not.
func TestAnsweredInAnEarlierLife(t *testing.T) {
	t.Parallel()
	for life, again := range map[string]bool{"1": false, "2": true, "": true} {
		b, f := newFleet(t)
		for _, host := range []string{"o1", "o2"} {
			b.Greeted(queue.Hello{Host: host, Pools: []string{"default"}, Life: "1", Back: true})
		}
		d := newDelivery(queue.Message{MessageID: "t", Body: message.Body, Redelivered: true, Turns: []int{0, 1}})
		b.source.deliveries <- d
		q := next(t, f.asked)
		b.Offered(queue.Offer{Question: q.ID, Host: "o1", Lacks: true})
		b.Greeted(queue.Hello{Host: "o1", Pools: []string{"default"}, Life: life})
		if q := next(t, f.asked); q.Purpose != queue.ToAdopt {
			t.Errorf("question = %+v", q)
		}
		b.Offered(queue.Offer{Question: q.ID, Host: "o2", Lacks: true})
		b.mu.Lock()
		if asks := len(b.others.inquiries) > 0; asks != again {
			t.Errorf("life %q: still asks: %t, want %t", life, asks, again)
		}
		b.mu.Unlock()
		if again {
			b.Offered(queue.Offer{Question: q.ID, Host: "o1", Lacks: true})
		}
		b.runner.ended <- worker.Outcome{Cause: queue.CauseNone}
		if v := b.verdict(d); v.Action != queue.Done || v.Result == nil {
			t.Errorf("life %q: %+v", life, v)
		}
	}
}

// TestHandedBesideACopy has a host be handed a copy of a message while it still asks who has begun the task of another one: it asks for each, and neither begins when the other is handed on.
func TestHandedBesideACopy(t *testing.T) {
	t.Parallel()
	b, f := newFleet(t)
	for _, host := range []string{"o1", "o2"} {
		b.Greeted(queue.Hello{Host: host, Pools: []string{"default"}, Back: true})
	}
	m := queue.Message{MessageID: "t", Body: message.Body, QueuedAt: time.Now(), Redelivered: true}
	first := newDelivery(m)
	b.source.deliveries <- first
	one := next(t, f.asked)
	m.HandedBy = "o1"
	second := newDelivery(m)
	b.source.deliveries <- second
	two := next(t, f.asked)
	if one.Purpose != queue.ToAdopt || two.Purpose != queue.ToAdopt || one.ID == two.ID {
		t.Errorf("questions = %+v, %+v", one, two)
	}
	b.Offered(queue.Offer{Question: one.ID, Host: "o2", Has: true})
	if v := b.verdict(first); v.Action != queue.Forward || v.Host != "o2" || !v.Doubtful {
		t.Errorf("verdict = %+v", v)
	}
	b.until("the first is gone", func() bool { list, _ := b.List(t.Context(), 0); return len(list) == 1 })
	if n := b.ran("t.1"); n != 0 {
		t.Errorf("begun %d times while it may run elsewhere", n)
	}
	b.Offered(queue.Offer{Question: two.ID, Host: "o2", Has: true})
	if v := b.verdict(second); v.Action != queue.Forward || v.Host != "o2" {
		t.Errorf("verdict = %+v", v)
	}
}

// TestAsksThoseWhoWonder has a message come for the first time that another host has just asked for, as there are two: who has begun it is asked. Other attempts, and what was sent at
// another time, are other matters, and so is what the one who has asked hands over, or somebody has given back.
func TestAsksThoseWhoWonder(t *testing.T) {
	for _, c := range []struct {
		attempt string
		later   time.Duration
		handed  string
		asks    bool
	}{{"t.1", 0, "p", true}, {"t.2", 0, "p", false}, {"t.1", time.Second, "p", false}, {"t.1", 0, "o", false}, {"t.1", 0, "", false}} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			simulate(t, nil, func(h *host) {
				f := &talkative{}
				h.Fleet = f
				h.Joined()
				m := newDelivery(queue.Message{MessageID: "t", Body: []byte(`{"command": ["x"]}`), QueuedAt: time.Now(), HandedBy: c.handed}).Message()
				fingerprint := m.Fingerprint()
				h.Asked(queue.Question{ID: "o/1", From: "o", Pool: "default", Purpose: queue.ToAdopt, TaskID: "t", AttemptID: c.attempt, Fingerprint: fingerprint[:],
					QueuedAt: m.QueuedAt.Add(c.later), Surely: true, Rank: 4})
				h.source.deliveries <- newDelivery(m)
				synctest.Wait()
				list := f.list()
				if asks := len(list) == 1 && list[0].Purpose == queue.ToAdopt && list[0].Rank == 5; asks != c.asks || len(h.starts) > 0 == c.asks {
					t.Errorf("asked %+v, started %v", list, h.starts)
				}
			})
		})
	}
}
