package manager

import (
	"cmp"
	"slices"
	"sort"
	"time"

	"github.com/mayfly/mayfly/worker"
)

// reservation keeps room for the first entry that has to wait, so that smaller ones behind it do not starve it. The others may pass
// it where they do not delay it: by ending before it can start, as their time limits promise, or by taking what it leaves over. (This
// is EASY backfill: D. Lifka, The ANL/IBM SP scheduling system, 1995.)
type reservation struct {
	entry *entry
	// at is when it can start at the latest, by the time limits of what runs; zero where they do not tell.
	at time.Time
	// spare is what is left over once it has started.
	spare Capacity
	// gpus are kept for it, by UUID.
	gpus []string
}

// inTheWay returns the reservation, if there is one and the entry would not be out of its way in time.
func (r *reservation) inTheWay(e *entry, now time.Time) *reservation {
	if r == nil {
		return nil
	}
	if end := e.endBy(now); !r.at.IsZero() && !end.IsZero() && !end.After(r.at) {
		return nil
	}
	return r
}

// reserve finds when an entry can start at the latest, and what that leaves over; nil where it would not even start if all that runs had
// ended. The lock is held.
func (m *Manager) reserve(e *entry, now time.Time) (best *reservation) {
	running := m.byEnd(now)
	free := []Capacity{m.ledger.free()} // by how many have ended
	for _, r := range running {
		free = append(free, free[len(free)-1].plus(&r.attempt.Lease))
	}
	soonest := len(free)
	for i := range e.choices {
		c := &e.choices[i]
		var gpus []string
		fits := func(ended int) bool {
			if !free[ended].holds(&c.lease) {
				return false
			}
			if c.gpus.Count == 0 {
				return true
			}
			gone := make(map[string]bool, ended)
			for _, r := range running[:ended] {
				gone[r.attempt.ID()] = true
			}
			gpus = m.ledger.gpus.Expect(c.gpus, gone)
			return gpus != nil
		}
		n := sort.Search(soonest, fits)
		if n == soonest {
			continue
		}
		fits(n) // the search may have ended with another
		soonest = n
		best = &reservation{entry: e, spare: free[n].less(&c.lease), gpus: gpus}
		if n > 0 {
			best.at = running[n-1].endBy(now)
		}
	}
	return best
}

// byEnd lists what runs, first that whose time limit ends first, last what has none. The lock is held.
func (m *Manager) byEnd(now time.Time) []*entry {
	var running []*entry
	for _, e := range m.active {
		if e.status != Settling { // which has given its lease back
			running = append(running, e)
		}
	}
	slices.SortFunc(running, func(a, b *entry) int {
		x, y := a.endBy(now), b.endBy(now)
		switch {
		case x.IsZero() != y.IsZero():
			if x.IsZero() {
				return 1
			}
			return -1
		case !x.Equal(y):
			return x.Compare(y)
		}
		return cmp.Compare(a.seq, b.seq)
	})
	return running
}

// endBy is when the entry's worker will have ended at the latest if it began now or has begun; zero where it has no time limit.
func (e *entry) endBy(now time.Time) time.Time {
	t := &e.attempt.Task
	if t.Timeout <= 0 {
		return time.Time{}
	}
	from := now
	if !e.startedAt.IsZero() {
		from = e.startedAt
	}
	return from.Add(t.Timeout + t.Grace)
}

// anyFits reports whether one of the choices could be had now if nothing was kept for others.
func (l *ledger) anyFits(choices []choice) bool {
	free := l.free()
	return slices.ContainsFunc(choices, func(c choice) bool { return free.holds(&c.lease) && (c.gpus.Count == 0 || l.gpus.Lacks(c.gpus) == "") })
}

// free is what is not lent.
func (l *ledger) free() Capacity {
	return Capacity{MilliCPU: l.total.MilliCPU - l.lent.MilliCPU, Memory: l.total.Memory - l.lent.Memory, Disk: l.total.Disk - l.lent.Disk}
}

func (c Capacity) plus(l *worker.Lease) Capacity {
	return Capacity{MilliCPU: c.MilliCPU + l.MilliCPU, Memory: c.Memory + l.Memory, Disk: c.Disk + l.Disk}
}

func (c Capacity) less(l *worker.Lease) Capacity {
	return Capacity{MilliCPU: c.MilliCPU - l.MilliCPU, Memory: c.Memory - l.Memory, Disk: c.Disk - l.Disk}
}

func (c Capacity) holds(l *worker.Lease) bool {
	return l.MilliCPU <= c.MilliCPU && l.Memory <= c.Memory && l.Disk <= c.Disk
}
