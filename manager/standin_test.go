package manager

import (
	"testing"
	"time"

	"github.com/mayfly/mayfly/queue"
	"github.com/mayfly/mayfly/worker"
)

// The tests below have a message come whose words are those of one that this host waits for, and which is another one all the same.

var retried = queue.Message{MessageID: "t", Body: []byte(`{"command": ["true"], "max_attempts": 2}`)}

// TestNextTryComesFirst has the acknowledgement of a failed attempt be lost, and its copy for the next try be delivered before the message is again: the copy is run, and is not
// given up in the place of the message.
func TestNextTryComesFirst(t *testing.T) {
	t.Parallel()
	for _, redelivered := range []bool{false, true} { // another host had it before
		b := newBench(t)
		original := retried
		original.QueuedAt = time.Now().Add(-time.Second)
		first := newDelivery(original)
		first.breaks = true
		b.source.deliveries <- first
		b.runner.ended <- worker.Outcome{Cause: queue.CauseExit}
		v := b.verdict(first)
		if v.Action != queue.Retry {
			t.Fatalf("verdict = %+v, want a retry", v)
		}
		copied := original
		copied.History, copied.Redelivered = v.History, redelivered
		second := newDelivery(copied)
		b.source.deliveries <- second
		select {
		case b.runner.ended <- worker.Outcome{Cause: queue.CauseNone}:
		case v := <-second.verdicts:
			t.Fatalf("the copy is given up without a run: %+v", v)
		case <-time.After(30 * time.Second):
			t.Fatal("the copy is not run")
		}
		if v := b.verdict(second); v.Result == nil || v.Result.Attempt != 2 {
			t.Errorf("verdict = %+v, want the result of the second attempt", v)
		}
		original.Redelivered = true
		third := newDelivery(original)
		b.source.deliveries <- third
		if v := b.verdict(third); v.Action != queue.Done || v.Result != nil {
			t.Errorf("verdict = %+v, want the message given up", v)
		}
		if n := b.ran("t.1") + b.ran("t.2"); n != 2 {
			t.Errorf("ran %d times", n)
		}
	}
}

// TestSubmittedAnewWhileLost has the same task submitted again while the message of the first is lost, before its end and behind it: both run.
func TestSubmittedAnewWhileLost(t *testing.T) {
	t.Parallel()
	for name, ended := range map[string]bool{"while it runs": false, "after its end": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			original, anew := message, message
			original.QueuedAt = time.Now().Add(-time.Minute)
			anew.QueuedAt = original.QueuedAt.Add(time.Second)
			first, second := newDelivery(original), newDelivery(anew)
			b.source.deliveries <- first
			b.until("it runs", func() bool { return b.ran("t.1") == 1 })
			if ended {
				first.breaks = true
				b.runner.ended <- worker.Outcome{Cause: queue.CauseNone}
				b.verdict(first)
			} else {
				close(first.lost)
			}
			b.source.deliveries <- second
			if !ended {
				b.runner.ended <- worker.Outcome{Cause: queue.CauseNone}
			}
			original.Redelivered = true
			again := newDelivery(original)
			b.source.deliveries <- again
			if v := b.verdict(again); v.Action != queue.Done || (v.Result == nil) != ended {
				t.Errorf("verdict on the first = %+v", v)
			}
			select {
			case b.runner.ended <- worker.Outcome{Cause: queue.CauseNone}:
			case v := <-second.verdicts:
				t.Fatalf("the second is given up without a run: %+v", v)
			}
			if v := b.verdict(second); v.Result == nil {
				t.Errorf("verdict on the second = %+v", v)
			}
		})
	}
}

// TestMessageIsGone has a task end whose message does not come back, for its acknowledgement has arrived: the next one with its id need not wait for that for long.
func TestMessageIsGone(t *testing.T) {
	simulate(t, nil, func(h *host) {
		h.takes["t"] = time.Second
		dated := message
		dated.QueuedAt = time.Now()
		first := newDelivery(dated)
		first.breaks = true
		h.source.deliveries <- first
		time.Sleep(10 * time.Second)
		dated.QueuedAt = time.Now()
		second := newDelivery(dated)
		h.source.deliveries <- second
		time.Sleep(2 * time.Minute)
		h.started("t", 61)
		select {
		case v := <-second.verdicts:
			if v.Result == nil {
				t.Errorf("verdict = %+v", v)
			}
		default:
			t.Error("it is not settled")
		}
	})
}

// TestLaterCopyTakenFor has a host fail a task while its connection is silent: it does not hear that its copy for the next try was taken, and another host fails that, too. Where the copy
// for the third try joins the first one's end, what is put into the queue in its place is for the third try: one for the second would be given up by who has settled that.
func TestLaterCopyTakenFor(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	original := retried
	original.Body = []byte(`{"command": ["true"], "max_attempts": 9}`)
	original.QueuedAt = time.Now().Add(-time.Second)
	first := newDelivery(original)
	b.source.deliveries <- first
	b.until("it runs", func() bool { return b.ran("t.1") == 1 })
	close(first.lost)
	b.runner.ended <- worker.Outcome{Cause: queue.CauseExit}
	later := original
	later.Redelivered = true
	later.History = []queue.Past{{Attempt: 1, Host: "h", Cause: queue.CauseExit}, {Attempt: 2, Host: "o", Cause: queue.CauseHostLost}}
	third := newDelivery(later)
	b.source.deliveries <- third
	v := b.verdict(third)
	if v.Action != queue.Retry || nextAttempt(v.History) != 3 || len(v.History) != 2 || v.History[1].Host != "o" {
		t.Errorf("verdict = %+v, want the third try", v)
	}
	original.Redelivered = true
	again := newDelivery(original)
	b.source.deliveries <- again
	if v := b.verdict(again); v.Action != queue.Done || v.Result != nil {
		t.Errorf("verdict = %+v, want the message given up", v)
	}
	if n := b.ran("t.1") + b.ran("t.2") + b.ran("t.3"); n != 1 {
		t.Errorf("ran %d times", n)
	}
}
