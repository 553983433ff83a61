package manager

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"

	"github.com/mayfly/mayfly/queue"
	"github.com/mayfly/mayfly/worker"
)

// fullDisk is a history that takes nothing for a while.
type fullDisk struct {
	*memory
	full  atomic.Bool
	tries chan struct{}
}

func (h *fullDisk) Put(r Record) error {
	if h.full.Load() {
		h.tries <- struct{}{}
		return errors.New("no space left on device")
	}
	return h.memory.Put(r)
}

// TestResultNotKept has the disk be full when a task ends: where the history is the only place of its result, the message is kept until there is room; else it is not.
func TestResultNotKept(t *testing.T) {
	t.Parallel()
	for name, alone := range map[string]bool{"embedded queue": true, "broker": false} {
		h := &fullDisk{tries: make(chan struct{}, 16)}
		h.full.Store(true)
		b := newBenchWith(t, func(c *Config, s *Services) { c.Alone, h.memory, s.History = alone, s.History.(*memory), h })
		d := newDelivery(message)
		b.source.deliveries <- d
		b.runner.ended <- worker.Outcome{Cause: queue.CauseNone}
		next(t, h.tries)
		if alone {
			next(t, h.tries) // again
			if len(d.verdicts) > 0 {
				t.Errorf("%s: the message is given up", name)
			}
			h.full.Store(false)
		}
		if v := b.verdict(d); v.Action != queue.Done || v.Result == nil {
			t.Errorf("%s: verdict = %+v", name, v)
		}
		if _, kept := h.Get("t"); kept != alone {
			t.Errorf("%s: the result is kept: %t", name, kept)
		}
	}
}

// TestWaitForNothing waits for a task that this host, which is alone, does not know.
func TestWaitForNothing(t *testing.T) {
	t.Parallel()
	b := newBenchWith(t, func(c *Config, s *Services) {
		c.Alone = true
		s.Backlog.Find = func(_ context.Context, id string) (queue.Message, bool) { return queue.Message{}, id == "queued" }
	})
	ctx, cancel := context.WithTimeout(t.Context(), 3*unknownTime)
	defer cancel()
	if _, err := b.Wait(ctx, "nosuch"); !errors.Is(err, ErrUnknownTask) {
		t.Errorf("waiting for an unknown task: %v", err)
	}
	if _, err := b.Wait(ctx, "queued"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("waiting for a queued task: %v", err)
	}
	d := newDelivery(message)
	b.source.deliveries <- d
	b.until("it runs", func() bool { return b.ran("t.1") == 1 })
	b.runner.ended <- worker.Outcome{Cause: queue.CauseNone}
	if v, err := b.Wait(t.Context(), "t"); err != nil || v.ID != "t" {
		t.Errorf("waiting for one that runs: %+v, %v", v, err)
	}
}
