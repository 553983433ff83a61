// Package rest has a process cost little while it has nothing to do, and keeps the garbage collector out of its way while it has.
//
// # Theory of operation
//
// What a process has once touched of its program and its heap stays resident, though it may never need it again: of a Go program with large
// libraries most of its start. So when nothing has stirred for a while (Rest), the garbage is collected and given to the system, and the pages of the
// program and its libraries are unmapped (Trim); those that are still needed come back from the page cache, a fraction of a microsecond each. While a
// process stirs without pause it costs a look at the clock, and when it rests there is no timer.
//
// The Go runtime has a thread that looks after the others. Whenever one of them has been up, be it for a heartbeat that takes 50 µs, it naps 20 µs, some twenty times, before it
// believes that there is nothing to do. A process that rests need not be on time, so it tells the kernel that its timers may be late (Slacken): then a nap takes as long as that,
// and one or two are enough.
//
// The collector lets the heap grow by a share of what is live. Of a heap of a few megabytes that is little, and a busy process would collect
// all the time. As its garbage goes when it rests, it may have some: Leeway sets the share so that the collector comes no earlier
// than after so many bytes.
package rest

import (
	"sync"
	"sync/atomic"
	"time"
)

// Rest has something done whenever nothing has stirred for a while, and whenever something stirs again.
type Rest struct {
	quiet      time.Duration
	begin, end func()
	last       atomic.Int64 // in nanoseconds since began
	began      time.Time
	armed      atomic.Bool
	mu         sync.Mutex // held while begin or end runs
	resting    bool
}

// New returns a Rest that calls begin when nothing has stirred for so long, and end, if it is not nil, when something does after that, before Stir returns.
func New(quiet time.Duration, begin, end func()) *Rest {
	return &Rest{quiet: quiet, begin: begin, end: end, began: time.Now()}
}

// Stir says that there is something to do. It is cheap but for the first time after a rest. A nil Rest takes no notice.
func (r *Rest) Stir() {
	if r == nil {
		return
	}
	r.last.Store(int64(time.Since(r.began)))
	if r.armed.CompareAndSwap(false, true) {
		time.AfterFunc(r.quiet, r.look)
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.resting && r.end != nil {
			r.end()
		}
		r.resting = false
	}
}

func (r *Rest) look() {
	if left := r.quiet - (time.Since(r.began) - time.Duration(r.last.Load())); left > 0 {
		time.AfterFunc(left, r.look)
		return
	}
	r.armed.Store(false)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.armed.Load() {
		return // somebody has stirred in between
	}
	r.begin()
	r.resting = true
}
