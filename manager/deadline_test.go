package manager

import (
	"fmt"
	"testing"
	"time"

	"github.com/mayfly/mayfly/queue"
	"github.com/mayfly/mayfly/worker"
)

// due is a task with a deadline.
func due(in time.Duration) queue.Message {
	return queue.Message{MessageID: "t", Body: fmt.Appendf(nil, `{"command": ["true"], "deadline": %q}`, time.Now().Add(in).Format(time.RFC3339Nano))}
}

// TestDeadlineElsewhere has a message come back after the task's deadline, before which another host has begun it: that host is asked for it.
func TestDeadlineElsewhere(t *testing.T) {
	t.Parallel()
	b, f := newFleet(t)
	m := due(-time.Second)
	m.Redelivered, m.Turns = true, []int{0, 1}
	d := newDelivery(m)
	b.source.deliveries <- d
	select {
	case q := <-f.asked:
		b.Offered(queue.Offer{Question: q.ID, Host: "o", Has: true})
	case v := <-d.verdicts:
		t.Fatalf("nobody is asked: %+v", v)
	}
	if v := b.verdict(d); v.Action != queue.Forward || v.Host != "o" {
		t.Errorf("verdict = %+v, want it handed to who runs it", v)
	}
	d = newDelivery(m)
	b.source.deliveries <- d
	b.Offered(queue.Offer{Question: next(t, f.asked).ID, Host: "o", Lacks: true})
	if v := b.verdict(d); v.Result == nil || v.Result.Cause != queue.CauseDeadline { // nobody has it
		t.Errorf("verdict = %+v", v)
	}
}

// TestDeadlineHere has the message of a task that runs come back after its deadline, before its host has heard of the loss: it is the
// worker's end that counts.
func TestDeadlineHere(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	m := due(time.Second)
	first := newDelivery(m)
	b.source.deliveries <- first
	b.until("it runs", func() bool { return b.ran("t.1") == 1 })
	time.Sleep(time.Second)
	m.Redelivered = true
	second := newDelivery(m)
	b.source.deliveries <- second
	b.until("it has come back", func() bool { list, _ := b.List(t.Context(), 0); return len(list) == 2 || len(second.verdicts) > 0 })
	close(first.lost)
	b.runner.ended <- worker.Outcome{Cause: queue.CauseNone}
	if v := b.verdict(second); v.Result == nil || v.Result.State != queue.Succeeded {
		t.Errorf("verdict = %+v, want success", v)
	}
}

// TestCancelledTwice cancels a task that runs, and whose message has come back: it is the end of its worker that is told.
func TestCancelledTwice(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	first := newDelivery(message)
	first.gate = make(chan struct{})
	b.source.deliveries <- first
	b.until("it runs", func() bool { return b.ran("t.1") == 1 })
	m := message
	m.Redelivered = true
	second := newDelivery(m)
	b.source.deliveries <- second
	b.until("it has come back", func() bool { list, _ := b.List(t.Context(), 0); return len(list) == 2 })
	if _, err := b.Cancel(t.Context(), "t"); err != nil {
		t.Fatal(err)
	}
	close(first.lost)
	close(first.gate)
	v := b.verdict(second)
	if v.Result == nil || v.Result.State != queue.Cancelled || v.Result.Attempt != 1 {
		t.Errorf("verdict = %+v, want the end of the worker", v)
	}
	b.until("it is forgotten", func() bool { list, _ := b.List(t.Context(), 0); return len(list) == 0 })
}

// TestDeadlineIsTold has a task wait for room beyond its deadline while nothing else happens: that is told then.
func TestDeadlineIsTold(t *testing.T) {
	simulate(t, nil, func(h *host) {
		h.send(job{id: "busy", cpu: 4, takes: time.Hour})
		var all []*delivery
		for _, in := range []time.Duration{20 * time.Second, 10 * time.Second, 2 * time.Hour} {
			d := newDelivery(due(in))
			d.message.MessageID = in.String()
			h.source.deliveries <- d
			all = append(all, d)
		}
		for i, after := range []time.Duration{15 * time.Second, 10 * time.Second} {
			time.Sleep(after)
			select {
			case v := <-all[1-i].verdicts:
				if v.Result == nil || v.Result.Cause != queue.CauseDeadline {
					t.Errorf("verdict = %+v", v)
				}
			default:
				t.Errorf("nothing is told after the deadline of %s", all[1-i].message.MessageID)
			}
		}
		if len(all[2].verdicts) > 0 {
			t.Error("one is told before its deadline")
		}
	})
}
