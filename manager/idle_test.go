package manager

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mayfly/mayfly/queue"
)

// A host that has nothing to do leaves, but neither while it has something, nor while it cannot know.
func TestIdleExit(t *testing.T) {
	simulate(t, func(c *Config) { c.IdleExit = time.Minute }, func(h *host) {
		var inReach, holds atomic.Bool
		h.InReach, h.Holds = inReach.Load, holds.Load
		left := func(want bool) {
			h.t.Helper()
			synctest.Wait()
			if got := h.drainAsked.Err() != nil; got != want || h.LeftIdle() != want {
				h.t.Errorf("after %s it has left: %v, want %v", time.Since(h.begin), got, want)
			}
		}
		time.Sleep(50 * time.Second)
		h.send(job{id: "a", takes: 2 * time.Minute})
		time.Sleep(time.Minute)
		left(false)
		time.Sleep(time.Minute + 50*time.Second)
		left(false)
		time.Sleep(20 * time.Second) // the queue is out of reach
		left(false)
		holds.Store(true)
		inReach.Store(true)
		time.Sleep(time.Minute) // one waits for its next try
		left(false)
		holds.Store(false)
		time.Sleep(idleCheck)
		left(true)
	})
}

// pausing is a queue that confirms nothing before it is told to.
type pausing struct {
	confirm chan struct{}
	got     atomic.Int64
}

func (p *pausing) Publish(context.Context, queue.Message) error {
	<-p.confirm
	p.got.Add(1)
	return nil
}

// TestIdleExitWhileSubmitting submits a task to a host that has had nothing to do for almost long enough: it does not leave before the queue has confirmed that, and takes nothing more
// once it does, unless there are others.
func TestIdleExitWhileSubmitting(t *testing.T) {
	for _, alone := range []bool{true, false} {
		simulate(t, func(c *Config) { c.IdleExit, c.Alone = time.Minute, alone }, func(h *host) {
			p := &pausing{confirm: make(chan struct{})}
			h.Publisher = p
			submit := func() error {
				_, err := h.Submit(context.Background(), []byte(`{"command": ["x"]}`), "default")
				return err
			}
			time.Sleep(59 * time.Second)
			submitted := make(chan error, 1)
			go func() { submitted <- submit() }()
			time.Sleep(time.Hour)
			if h.LeftIdle() {
				t.Error("it has left while a task was on its way into its queue")
			}
			close(p.confirm)
			if err := <-submitted; err != nil {
				t.Error(err)
			}
			time.Sleep(time.Minute)
			synctest.Wait()
			if !h.LeftIdle() {
				t.Error("it has not left")
			}
			if err := submit(); alone != errors.Is(err, ErrLeaving) || alone != (p.got.Load() == 1) {
				t.Errorf("alone %t: %v, %d in the queue", alone, err, p.got.Load())
			}
		})
	}
}

// TestMissed has a host leave whose queue has something when all has ended: it has not left for want of work.
func TestMissed(t *testing.T) {
	for _, holds := range []bool{true, false} {
		simulate(t, func(c *Config) { c.IdleExit = time.Minute }, func(h *host) {
			var some atomic.Bool
			h.Holds = some.Load
			if err := h.Missed(); err != nil {
				t.Error(err)
			}
			time.Sleep(2 * time.Minute)
			some.Store(holds)
			if err := h.Missed(); (err != nil) != holds || h.LeftIdle() == holds {
				t.Errorf("its queue holds something: %t; %v, left idle: %t", holds, err, h.LeftIdle())
			}
		})
	}
}
