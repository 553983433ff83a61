package manager

import (
	"testing"
	"time"

	"github.com/mayfly/mayfly/queue"
	"github.com/mayfly/mayfly/worker"
)

// failed gives a message a history of an attempt on each host.
func failed(m queue.Message, hosts ...string) queue.Message {
	for i, host := range hosts {
		m.History = append(m.History, queue.Past{Attempt: i + 1, Host: host, Cause: queue.CauseExit})
	}
	return m
}

// TestAvoidedHosts has a task that cannot run here and has failed elsewhere: where it has failed it is tried again, rather than nowhere.
func TestAvoidedHosts(t *testing.T) {
	t.Parallel()
	b, f := newFleet(t)
	d := newDelivery(failed(large("m"), "o1"))
	b.source.deliveries <- d
	q := next(t, f.asked)
	if !q.Avoided {
		t.Errorf("question = %+v", q)
	}
	b.Offered(queue.Offer{Question: q.ID, Host: "o1", Room: 9, Avoided: true})
	if v := b.verdict(d); v.Action != queue.Forward || v.Host != "o1" {
		t.Errorf("verdict = %+v", v)
	}

	d = newDelivery(failed(large("n"), "o1"))
	b.source.deliveries <- d
	q = next(t, f.asked)
	b.Offered(queue.Offer{Question: q.ID, Host: "o1", Room: 9, Avoided: true})
	time.Sleep(3 * collectTime) // no signal says that nothing was decided
	b.Offered(queue.Offer{Question: q.ID, Host: "o2", Room: -2})
	if v := b.verdict(d); v.Action != queue.Forward || v.Host != "o2" {
		t.Errorf("verdict = %+v", v)
	}
}

// TestAvoidedOffer is asked about a task that has failed here.
func TestAvoidedOffer(t *testing.T) {
	t.Parallel()
	b, f := newFleet(t)
	msg := failed(queue.Message{MessageID: "m", Pool: "default", Body: []byte(`{"command": ["true"]}`)}, "h")
	for purpose, avoided := range map[queue.Purpose]bool{queue.ToRun: true, queue.ToSpare: false, queue.ToShare: true} {
		b.Asked(queue.Question{ID: "q" + string(purpose), From: "o", Pool: "default", Purpose: purpose, Message: &msg, Avoided: avoided, Surely: true})
		switch o := next(t, f.offered); {
		case avoided && (o.Lacks || !o.Avoided):
			t.Errorf("%s: offer = %+v", purpose, o)
		case !avoided && (!o.Lacks || !o.Never):
			t.Errorf("%s: offer = %+v", purpose, o)
		}
		b.received(msg.Fingerprint())
	}
}

// TestNobodyElse has a task that has failed here, and that no other host can ever take: nobody is waited for.
func TestNobodyElse(t *testing.T) {
	t.Parallel()
	b, f := newFleet(t)
	for _, host := range []string{"o1", "o2"} {
		b.Greeted(queue.Hello{Host: host, Pools: []string{"default"}, Back: true})
	}
	msg := failed(queue.Message{MessageID: "m", Body: []byte(`{"command": ["true"], "max_attempts": 3}`)}, "h")
	b.source.deliveries <- newDelivery(msg)
	q := next(t, f.asked)
	if q.Purpose != queue.ToSpare || !q.Surely || q.Avoided {
		t.Errorf("question = %+v", q)
	}
	b.Offered(queue.Offer{Question: q.ID, Host: "o1", Lacks: true, Never: true})
	if b.ran("m.2") != 0 {
		t.Error("it began before all had answered")
	}
	b.Offered(queue.Offer{Question: q.ID, Host: "o2", Lacks: true, Never: true})
	b.until("it runs here", func() bool { return b.ran("m.2") == 1 })
	if len(f.asked) != 0 {
		t.Error("the question was put again: it stayed open")
	}
	b.runner.ended <- worker.Outcome{Cause: queue.CauseNone}
}
