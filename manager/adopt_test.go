package manager

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/mayfly/mayfly/queue"
	"github.com/mayfly/mayfly/worker"
)

// TestAdopted has a message come back that another host has begun: it goes there. What nobody has begun runs here.
func TestAdopted(t *testing.T) {
	t.Parallel()
	b, f := newFleet(t)
	again := queue.Message{MessageID: "m", Body: message.Body, Redelivered: true, Turns: []int{0, 1, 2}}
	d := newDelivery(again)
	b.source.deliveries <- d
	q := next(t, f.asked)
	if q.Purpose != queue.ToAdopt || q.Message != nil || q.AttemptID != "m.1" {
		t.Errorf("question = %+v", q)
	}
	b.Offered(queue.Offer{Question: q.ID, Host: "o1", Gave: []int{0}})
	b.Offered(queue.Offer{Question: q.ID, Host: "o2", Has: true})
	if v := b.verdict(d); v.Action != queue.Forward || v.Host != "o2" {
		t.Errorf("verdict = %+v", v)
	}
	again.MessageID = "n"
	d = newDelivery(again)
	b.source.deliveries <- d
	q = next(t, f.asked)
	b.Offered(queue.Offer{Question: q.ID, Host: "o1", Gave: []int{1}})
	if n := b.ran("n.1"); n != 0 {
		t.Errorf("begun %d times while it may run elsewhere", n)
	}
	b.Offered(queue.Offer{Question: q.ID, Host: "o2", Gave: []int{0}})
	b.runner.ended <- worker.Outcome{Cause: queue.CauseNone}
	if v := b.verdict(d); v.Action != queue.Done || v.Result == nil {
		t.Errorf("verdict = %+v", v)
	}
	// All hosts that are known have not begun it; one has left, and one has nothing to do with the pool.
	b.Greeted(queue.Hello{Host: "o3", Pools: []string{"default"}})
	b.Greeted(queue.Hello{Host: "o4", Pools: []string{"default", "other"}})
	b.Greeted(queue.Hello{Host: "o3", Pools: []string{"default"}, Leaves: true})
	again.MessageID = "p"
	d = newDelivery(again)
	b.source.deliveries <- d
	if q = next(t, f.asked); !q.Surely {
		t.Errorf("question = %+v", q)
	}
	b.Offered(queue.Offer{Question: q.ID, Host: "o1", Lacks: true})
	b.Offered(queue.Offer{Question: q.ID, Host: "o2", Lacks: true})
	if n := b.ran("p.1"); n != 0 {
		t.Errorf("begun %d times while it may run elsewhere", n)
	}
	b.Offered(queue.Offer{Question: q.ID, Host: "o4", Lacks: true})
	b.runner.ended <- worker.Outcome{Cause: queue.CauseNone}
	if v := b.verdict(d); v.Action != queue.Done || v.Result == nil {
		t.Errorf("verdict = %+v", v)
	}
}

// TestHas asks this host for what it runs, and for what it has just settled.
func TestHas(t *testing.T) {
	t.Parallel()
	b, f := newFleet(t)
	m := message
	m.QueuedAt = time.Now()
	d := newDelivery(m)
	b.source.deliveries <- d
	b.until("it runs", func() bool { return b.ran("t.1") == 1 })
	m = d.Message()
	fingerprint := m.Fingerprint()
	put := func(id string, purpose queue.Purpose, fingerprint [16]byte) {
		b.Asked(queue.Question{ID: id, From: "o", Pool: "default", Purpose: purpose, TaskID: "t", AttemptID: "t.1", Fingerprint: fingerprint[:], QueuedAt: m.QueuedAt})
	}
	ask := func(id string, fingerprint [16]byte) { put(id, queue.ToAdopt, fingerprint) }
	ask("other", [16]byte{1})
	put("not settled yet", queue.ToSettle, fingerprint)
	ask("running", fingerprint)
	if o := next(t, f.offered); o.Question != "running" || !o.Has {
		t.Errorf("offer = %+v", o)
	}
	b.runner.ended <- worker.Outcome{Cause: queue.CauseNone}
	b.verdict(d)
	b.until("it is forgotten", func() bool { list, _ := b.List(t.Context(), 0); return len(list) == 0 })
	put("in vain", queue.ToSettle, fingerprint)
	if o := next(t, f.offered); o.Question != "in vain" || !o.Has {
		t.Errorf("offer = %+v", o)
	}
	put("another message", queue.ToSettle, [16]byte{1})
	b.Asked(queue.Question{ID: "a copy of it", From: "o", Pool: "default", Purpose: queue.ToAdopt, TaskID: "t", AttemptID: "t.2", Fingerprint: fingerprint[:], QueuedAt: m.QueuedAt})
	if o := next(t, f.offered); o.Question != "a copy of it" || !o.Has {
		t.Errorf("offer = %+v", o)
	}
	b.history.mu.Lock()
	again := b.history.latest["t"]
	again.Result.State = "" // it is to be tried again
	b.history.latest["t"] = again
	b.history.mu.Unlock()
	b.mu.Lock()
	if b.hasSettled(&queue.Question{TaskID: "t", AttemptID: "t.1", Fingerprint: fingerprint[:]}) {
		t.Error("what is to be tried again is settled")
	}
	b.mu.Unlock()
	ask("settled", fingerprint)
	if o := next(t, f.offered); o.Question != "settled" || !o.Has {
		t.Errorf("offer = %+v", o)
	}
}

// TestSettledAndHanded has another host hand over what was settled here, for its acknowledgement was lost: it is given up. What comes by hand and is new, is not.
func TestSettledAndHanded(t *testing.T) {
	t.Parallel()
	b, _ := newFleet(t)
	run := func(m queue.Message) queue.Verdict {
		t.Helper()
		d := newDelivery(m)
		b.source.deliveries <- d
		b.runner.ended <- worker.Outcome{Cause: queue.CauseNone}
		v := b.verdict(d)
		b.until("it is forgotten", func() bool { list, _ := b.List(t.Context(), 0); return len(list) == 0 })
		return v
	}
	run(message)
	handed := message
	handed.HandedBy = "o"
	if v := run(handed); v.Result == nil || b.ran("t.1") != 2 {
		t.Errorf("the producer's second message: %+v after %d runs", v, b.ran("t.1"))
	}
	handed.Redelivered, handed.Turns = true, nil
	d := newDelivery(handed)
	b.source.deliveries <- d
	if v := b.verdict(d); v.Action != queue.Done || v.Result != nil {
		t.Errorf("verdict = %+v, want the message given up", v)
	}
}

// TestDoubtfulCopy loses the delivery of a task that is to be tried again before the confirm: there may be two copies.
func TestDoubtfulCopy(t *testing.T) {
	t.Parallel()
	b, _ := newFleet(t)
	task := queue.Message{MessageID: "t", Body: []byte(`{"command": ["x"], "max_attempts": 2}`)}
	first := newDelivery(task)
	first.loses = true
	b.source.deliveries <- first
	b.runner.ended <- worker.Outcome{Cause: queue.CauseExit}
	<-first.lost
	task.Redelivered = true
	second := newDelivery(task)
	b.source.deliveries <- second
	if v := b.verdict(second); v.Action != queue.Retry || !v.Doubtful {
		t.Errorf("verdict = %+v, want a retry that is doubtful", v)
	}
	third := newDelivery(queue.Message{MessageID: "u", Body: task.Body})
	b.source.deliveries <- third
	b.runner.ended <- worker.Outcome{Cause: queue.CauseExit}
	if v := b.verdict(third); v.Action != queue.Retry || v.Doubtful {
		t.Errorf("verdict = %+v, want a retry", v)
	}
}

// TestInVain has an attempt end whose message another host has settled: it is given up once that is known, and not before.
func TestInVain(t *testing.T) {
	simulate(t, nil, func(h *host) {
		f := &talkative{}
		h.Fleet = f
		h.Joined()
		h.Greeted(queue.Hello{Host: "o1", Pools: []string{"default"}})
		h.takes["t"] = 20 * time.Second
		d := newDelivery(queue.Message{MessageID: "t", Body: []byte(`{"id": "t", "command": ["x"]}`)})
		h.source.deliveries <- d
		synctest.Wait()
		close(d.lost)
		left := func() int { list, _ := h.List(t.Context(), 0); return len(list) }
		time.Sleep(20*time.Second + vainTime - time.Second) // it ends after 20 s
		if asked := f.list(); len(asked) > 0 {
			t.Errorf("asked at once: %+v", asked)
		}
		time.Sleep(7 * vainTime)
		asked := f.list()
		if len(asked) != 3 || asked[0].Purpose != queue.ToSettle || asked[0].AttemptID != "t.1" || asked[0].Message != nil {
			t.Fatalf("asked: %+v", asked)
		}
		h.Joined() // it was away
		h.Greeted(queue.Hello{Host: "o2", Pools: []string{"default"}})
		synctest.Wait()
		if again := f.list(); len(again) != 5 || again[4].ID != asked[0].ID {
			t.Errorf("asked when hosts are back: %+v", again[3:])
		}
		h.Offered(queue.Offer{Question: asked[0].ID, Host: "o1"})
		synctest.Wait()
		if left() != 1 {
			t.Fatal("it is given up without a reason")
		}
		h.Offered(queue.Offer{Question: asked[0].ID, Host: "o1", Has: true})
		synctest.Wait()
		if n := left(); n != 0 {
			t.Errorf("%d are left", n)
		}
		before := len(f.list())
		time.Sleep(time.Hour)
		if n := len(f.list()); n != before {
			t.Errorf("asked %d times after the end", n-before)
		}
	})
}

// TestLossHeardLate has a message come back before its delivery is known to be lost: it joins its worker all the same.
func TestLossHeardLate(t *testing.T) {
	t.Parallel()
	b, f := newFleet(t)
	first := newDelivery(message)
	b.source.deliveries <- first
	b.until("it runs", func() bool { return b.ran("t.1") == 1 })
	handed := message
	handed.HandedBy = "o"
	for _, again := range []queue.Message{{MessageID: "t", Body: message.Body, Redelivered: true, Turns: []int{0, 1}}, handed} {
		second := newDelivery(again)
		b.source.deliveries <- second
		b.until("it waits", func() bool { list, _ := b.List(t.Context(), 0); return len(list) == 2 })
		close(first.lost)
		b.until("it has joined", func() bool { list, _ := b.List(t.Context(), 0); return len(list) == 1 })
		first = second
	}
	b.runner.ended <- worker.Outcome{Cause: queue.CauseNone}
	if v := b.verdict(first); v.Result == nil || b.ran("t.1") != 1 {
		t.Errorf("verdict = %+v after %d runs", v, b.ran("t.1"))
	}
	select {
	case q := <-f.asked:
		t.Errorf("asked for what runs here: %+v", q)
	default:
	}
}

// TestOvertaken has the message of an attempt be handed to the host that runs the next one, as its host has lost its connection between the copy for that and the acknowledgement. When the
// next one fails, too, others are asked for the first before it is begun.
func TestOvertaken(t *testing.T) {
	t.Parallel()
	for has, want := range map[bool]queue.Action{true: queue.Forward, false: queue.Done} {
		t.Run(string(want), func(t *testing.T) {
			t.Parallel()
			b, f := newFleet(t)
			b.Greeted(queue.Hello{Host: "a", Pools: []string{"default"}, Back: true})
			first := queue.Message{MessageID: "t", Body: []byte(`{"command": ["x"], "max_attempts": 5}`), QueuedAt: time.Now(), HandedBy: "c"}
			second := first
			second.HandedBy, second.History = "", []queue.Past{{Attempt: 1, Host: "a", Cause: queue.CauseExit}}
			two := newDelivery(second)
			b.source.deliveries <- two
			b.until("the second runs", func() bool { return b.ran("t.2") == 1 })
			one := newDelivery(first)
			b.source.deliveries <- one
			b.until("the first waits", func() bool { list, _ := b.List(t.Context(), 0); return len(list) == 2 })
			b.runner.ended <- worker.Outcome{Cause: queue.CauseExit}
			if v := b.verdict(two); v.Action != queue.Retry {
				t.Errorf("verdict = %+v", v)
			}
			select {
			case q := <-f.asked:
				if q.Purpose != queue.ToAdopt || q.AttemptID != "t.1" {
					t.Errorf("question = %+v", q)
				}
				b.Offered(queue.Offer{Question: q.ID, Host: "a", Has: has, Lacks: !has})
			case b.runner.ended <- worker.Outcome{Cause: queue.CauseNone}:
				t.Fatal("it is begun, and nobody was asked")
			}
			if !has { // nobody has: as where its host is gone
				b.runner.ended <- worker.Outcome{Cause: queue.CauseNone}
			}
			if v := b.verdict(one); v.Action != want || has && v.Host != "a" {
				t.Errorf("verdict = %+v, want %s", v, want)
			}
		})
	}
}

// TestTwin has the message of a running task come again before its delivery is known to be lost. Nobody else is offered it, and it joins its worker.
func TestTwin(t *testing.T) {
	simulate(t, nil, func(h *host) {
		f := &talkative{}
		h.Fleet = f
		h.Joined()
		h.Greeted(queue.Hello{Host: "o1", Pools: []string{"default"}})
		h.takes["t"] = 20 * time.Second
		deliver := func(again bool) *delivery {
			d := newDelivery(queue.Message{MessageID: "t", Body: []byte(`{"id": "t", "command": ["x"]}`), Redelivered: again})
			h.source.deliveries <- d
			synctest.Wait()
			return d
		}
		first := deliver(false)
		second := deliver(true)
		time.Sleep(10 * time.Second)
		if asked := f.list(); len(asked) > 0 {
			t.Errorf("asked: %+v", asked)
		}
		close(first.lost)
		time.Sleep(15 * time.Second)
		if v := <-second.verdicts; v.Action != queue.Done || v.Result.State != queue.Succeeded {
			t.Errorf("verdict: %+v", v)
		}
		if len(h.starts) != 1 {
			t.Errorf("started: %v", h.starts)
		}
	})
}
