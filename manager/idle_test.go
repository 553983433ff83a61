package manager

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
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
