package gpu

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/mayfly/mayfly/internal/logkey"
)

// The times between two looks.
const (
	// checkMin to checkMax: at a device that is to be clean. A driver takes milliseconds to hundreds of them to take a context down.
	checkMin = 10 * time.Millisecond
	checkMax = 250 * time.Millisecond
	// sampleMin to sampleMax: at one that is held.
	sampleMin = 100 * time.Millisecond
	sampleMax = time.Second
	// probeMin to probeMax: at one in quarantine.
	probeMin = time.Second
	probeMax = 30 * time.Second
	// trustAfter is how long a GPU stays in quarantine at least after a fault, for the driver takes its time to know what it wants done.
	trustAfter = 5 * time.Second
	// recent is how old a look may be to be relied on.
	recent = time.Second
	// slack is how much more than when it was idle may be used of a device that is clean, in bytes: drivers keep some of it for
	// themselves, not always the same.
	slack = 64 << 20
)

// todo is what is to be done once the lock is let go of.
type todo struct {
	kill    []victim
	stop    []func()
	changed bool
}

// victim is a process to be killed on a device with these files.
type victim struct {
	pid   int
	files []File
}

func (h *Host) do(t todo) {
	for _, v := range t.kill {
		if h.procs.kill(v.pid, v.files) {
			h.config.Log.Warn("process left on a GPU killed", logkey.PID, v.pid)
		} else {
			h.config.Log.Warn("process left on a GPU", logkey.PID, v.pid)
		}
	}
	for _, stop := range t.stop {
		stop()
	}
	if t.changed && h.config.Changed != nil {
		h.config.Changed()
	}
}

// wake has the goroutine look, and starts it where there is none. The lock is held.
func (h *Host) wake() {
	if h.closed || !h.started {
		return
	}
	if !h.looking {
		if h.next().IsZero() {
			return
		}
		h.looking = true
		h.config.Driver.Watch(h.fault)
		go h.run()
		return
	}
	select {
	case h.look <- struct{}{}:
	default:
	}
}

// watched reports whether a device is to be looked at: it is being checked, in quarantine, or used. The lock is held.
func (h *Host) watched(u *unit) bool {
	if u.Divided {
		return false
	}
	for id := range u.shares {
		if h.holders[id].begun {
			return true
		}
	}
	return u.dirty
}

// next is when there is something to look at; zero where there is nothing. The lock is held.
func (h *Host) next() time.Time {
	next := h.retry
	for _, u := range h.units {
		if due := u.due; h.watched(u) && (next.IsZero() || due.Before(next)) {
			if next = due; due.IsZero() {
				return time.Now()
			}
		}
	}
	return next
}

// run looks for as long as there is something to look at.
func (h *Host) run() {
	for {
		h.mu.Lock()
		next := h.next()
		if next.IsZero() || h.closed {
			h.looking = false
			h.config.Driver.Watch(nil)
			h.mu.Unlock()
			return
		}
		h.mu.Unlock()
		if wait := time.Until(next); wait > 0 {
			t := time.NewTimer(wait)
			select {
			case <-t.C:
			case <-h.look:
				t.Stop()
			}
			continue
		}
		h.lookAt(context.Background())
	}
}

// lookAt looks at what is due.
func (h *Host) lookAt(ctx context.Context) {
	now := time.Now()
	h.mu.Lock()
	if !h.retry.IsZero() && !h.retry.After(now) {
		h.mu.Unlock()
		h.again(ctx)
		return
	}
	due := map[string]bool{}
	for _, u := range h.units {
		if h.watched(u) && !u.due.After(now) {
			due[u.gpu()] = true
		}
	}
	h.mu.Unlock()
	gpus := slices.Sorted(maps.Keys(due))
	if len(gpus) == 0 {
		return
	}
	states, err := h.config.Driver.States(ctx, gpus, false)
	h.mu.Lock()
	h.found(gpus, states, err)
	t := h.reckon()
	h.mu.Unlock()
	h.do(t)
}

// again tries to get the inventory that could not be had.
func (h *Host) again(ctx context.Context) {
	inventory, err := h.config.Driver.Inventory(ctx)
	h.mu.Lock()
	defer h.mu.Unlock()
	if err == nil {
		err = h.adopt(inventory)
	}
	if err != nil {
		h.why = lendsNone(err)
		h.retry = time.Now().Add(probeMax)
		return
	}
	h.retry = time.Time{}
	h.config.Log.Info("GPUs found at last", "count", len(h.units))
}

// found takes over what a look at GPUs has shown, or why it has not. The lock is held.
func (h *Host) found(gpus []string, states []State, err error) {
	now := time.Now()
	for _, u := range h.units {
		if slices.Contains(gpus, u.gpu()) {
			u.see(states, err)
			h.assess(u, now)
		}
	}
}

// see notes how a device was found.
func (u *unit) see(states []State, err error) {
	at := slices.IndexFunc(states, func(s State) bool { return s.UUID == u.gpu() })
	switch {
	case at >= 0:
		u.last, u.silence = states[at], ""
	case err != nil:
		u.silence = "the driver does not answer: " + err.Error()
	default:
		u.silence = "the driver does not tell of it"
	}
}
