package manager

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mayfly/mayfly/queue"
	"github.com/mayfly/mayfly/worker"
)

// TestUnfit loses workers one after the other: the host gives back what it holds, takes nothing, and comes back when a probe succeeds.
func TestUnfit(t *testing.T) {
	t.Parallel()
	b, _ := newFleet(t)
	lost := worker.Outcome{Cause: queue.CauseHostLost, Message: "no disk"}
	for i := range faultsMax {
		d := newDelivery(queue.Message{MessageID: fmt.Sprint("t", i), Body: message.Body})
		b.source.deliveries <- d
		if i == faultsMax-1 { // it waits for the first core
			waiting := newDelivery(queue.Message{MessageID: "waiting", Body: message.Body})
			b.source.deliveries <- waiting
			b.until("it waits", func() bool { v, err := b.Show(t.Context(), "waiting"); return err == nil && v.Status == Waiting })
			b.runner.ended <- lost
			if v := b.verdict(waiting); v.Action != queue.Retry || v.Delay != 0 || len(v.History) != 0 {
				t.Errorf("verdict = %+v", v)
			}
		} else {
			b.runner.ended <- lost
		}
		if v := b.verdict(d); v.Action != queue.Retry || len(v.History) != 1 {
			t.Errorf("verdict = %+v", v)
		}
	}
	if info, _ := b.Info(t.Context()); !strings.Contains(info.Unfit, "3 workers") || !strings.HasSuffix(info.Unfit, "no disk") {
		t.Errorf("unfit is %q", info.Unfit)
	}
	b.runner.ended <- lost                                   // the first probe
	b.runner.ended <- worker.Outcome{Cause: queue.CauseNone} // the second
	b.until("it is fit", func() bool { info, _ := b.Info(t.Context()); return info.Unfit == "" })
	d := newDelivery(message)
	b.source.deliveries <- d
	b.runner.ended <- worker.Outcome{Cause: queue.CauseNone}
	b.verdict(d)
}

// TestSignOfLife has a host that has heard nothing of the queue for a while, as one that was stopped, ask for a sign of life before it begins what it holds.
func TestSignOfLife(t *testing.T) {
	t.Parallel()
	asked, answers := make(chan bool), make(chan error)
	var heard atomic.Int64 // in nanoseconds
	b := newBenchWith(t, func(_ *Config, s *Services) {
		s.Heard = func() time.Time { return time.Unix(0, heard.Load()) }
		s.Prove = func(ctx context.Context) error {
			asked <- true
			select {
			case err := <-answers:
				return err
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	})
	first, second, third := newDelivery(queue.Message{MessageID: "t", Body: message.Body}), newDelivery(queue.Message{MessageID: "u", Body: message.Body}), newDelivery(queue.Message{MessageID: "v", Body: message.Body})
	b.source.deliveries <- first
	next(t, asked)
	b.source.deliveries <- second
	b.until("both wait", func() bool {
		list, _ := b.List(t.Context(), 0)
		return len(list) == 2 && strings.Contains(list[0].Reason+list[1].Reason, "sign of life")
	})
	close(first.lost) // it had been given to another host
	answers <- errors.New("gone")
	next(t, asked)
	if n := b.ran("t.1") + b.ran("u.1"); n != 0 {
		t.Errorf("%d began unheard", n)
	}
	answers <- nil
	b.runner.ended <- worker.Outcome{Cause: queue.CauseNone}
	if v := b.verdict(second); v.Result == nil || b.ran("t.1") != 0 {
		t.Errorf("verdict = %+v", v)
	}
	heard.Store(time.Now().UnixNano())
	b.source.deliveries <- third // and nobody is asked
	b.runner.ended <- worker.Outcome{Cause: queue.CauseNone}
	b.verdict(third)
}

// TestCutOff hears nothing of the queue: the worker that must not go on is stopped, and its task tried again.
func TestCutOff(t *testing.T) {
	t.Parallel()
	f := &hosts{asked: make(chan queue.Question, 64), offered: make(chan queue.Offer, 64), hellos: make(chan queue.Hello, 64)}
	b := newBenchWith(t, func(c *Config, s *Services) {
		s.Fleet, s.Heard = f, func() time.Time { return time.Time{} }
		c.CutOff = 50 * time.Millisecond
	})
	d := newDelivery(queue.Message{MessageID: "t", Body: []byte(`{"command": ["true"], "on_lost": "kill", "grace": "1h"}`)})
	b.source.deliveries <- d
	if v := b.verdict(d); v.Action != queue.Retry || len(v.History) != 1 || v.History[0].Cause != queue.CauseHostLost {
		t.Errorf("verdict = %+v", v)
	}
	task := queue.Task{OnLost: queue.KillOnLost, Grace: time.Hour}
	if graceOf(&task) != cutGrace || cutGrace+10*time.Second >= adoptTime {
		t.Error("another host may begin the task before the worker is gone")
	}
}
