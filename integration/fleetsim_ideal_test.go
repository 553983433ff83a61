package integration

import (
	"cmp"
	"container/heap"
	"slices"
	"testing"
	"time"
)

// room is what is free on hosts.
type room []simShape

// takes reports whether a host has room for a task.
func (r room) takes(host int, t simShape) bool {
	return t.milliCPU <= r[host].milliCPU && t.memory <= r[host].memory
}

func (r room) change(host int, t simShape, sign int64) {
	r[host].milliCPU -= sign * t.milliCPU
	r[host].memory -= sign * t.memory
}

// place takes room for a task on the host where the fewest cores are left then, and returns that; -1 where there is none.
func (r room) place(t simShape) int {
	best := -1
	for host := range r {
		if r.takes(host, t) && (best < 0 || r[host].milliCPU < r[best].milliCPU) {
			best = host
		}
	}
	if best >= 0 {
		r.change(best, t, 1)
	}
	return best
}

// ideal returns when each task would have begun under a scheduler that knows all hosts and all that waits, and needs no time: what was published first
// starts first, but others pass what fits nowhere. It knows of no bands, and reserves no room.
func ideal(hosts []simShape, tasks []simTask) []time.Duration {
	free, begun := room(slices.Clone(hosts)), make([]time.Duration, len(tasks))
	arrivals := make([]int, len(tasks))
	for i := range arrivals {
		arrivals[i] = i
	}
	slices.SortStableFunc(arrivals, func(a, b int) int { return cmp.Compare(tasks[a].published, tasks[b].published) })
	var waiting []int
	var running endings
	for len(arrivals)+len(running) > 0 {
		var now time.Duration
		if len(running) == 0 || len(arrivals) > 0 && tasks[arrivals[0]].published < running[0].at {
			now = tasks[arrivals[0]].published
			waiting, arrivals = append(waiting, arrivals[0]), arrivals[1:]
		} else {
			e := heap.Pop(&running).(ending)
			now = e.at
			free.change(e.host, tasks[e.task].shape, -1)
		}
		tight := map[simShape]bool{} // found no room just now
		waiting = slices.DeleteFunc(waiting, func(i int) bool {
			if tight[tasks[i].shape] {
				return false
			}
			host := free.place(tasks[i].shape)
			if host < 0 {
				tight[tasks[i].shape] = true
				return false
			}
			begun[i] = now
			heap.Push(&running, ending{now + tasks[i].lasts, i, host})
			return true
		})
	}
	return begun
}

// ending is when a task will end; endings are a heap of them.
type ending struct {
	at         time.Duration
	task, host int
}

type endings []ending

func (e endings) Len() int           { return len(e) }
func (e endings) Less(i, j int) bool { return e[i].at < e[j].at }
func (e endings) Swap(i, j int)      { e[i], e[j] = e[j], e[i] }

// Push implements [heap.Interface].
func (e *endings) Push(x any) { *e = append(*e, x.(ending)) }

// Pop implements [heap.Interface].
func (e *endings) Pop() any {
	last := (*e)[len(*e)-1]
	*e = (*e)[:len(*e)-1]
	return last
}

// idleness is how the cores of a fleet were used, in shares of all.
type idleness struct {
	// Busy had a task. Waste were idle while tasks waited that could have had them: as many as these would have had, had they been placed at once.
	// Beside were idle on hosts on which any waiting task would have fitted: the same, but for each host as if it were alone.
	Busy, Waste, Beside float64
}

// idle looks at the fleet at equal distances from one moment to another.
func idle(hosts []simShape, tasks []simTask, from, to, step time.Duration) (sum idleness) {
	type change struct {
		at   time.Duration
		task int
		what int // 0: published, 1: begun, 2: ended
	}
	var changes []change
	for i := range tasks {
		t := &tasks[i]
		changes = append(changes, change{t.published, i, 0}, change{t.begun, i, 1}, change{t.ended, i, 2})
	}
	slices.SortStableFunc(changes, func(a, b change) int { return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.what, b.what)) })
	total := int64(0)
	for _, h := range hosts {
		total += h.milliCPU
	}
	free, waiting := room(slices.Clone(hosts)), map[int]bool{}
	busy, looks := int64(0), 0
	for now := from; now < to; now += step {
		for ; len(changes) > 0 && changes[0].at <= now; changes = changes[1:] {
			t := &tasks[changes[0].task]
			switch changes[0].what {
			case 0:
				waiting[changes[0].task] = true
			case 1:
				delete(waiting, changes[0].task)
				free.change(t.host, t.shape, 1)
				busy += t.shape.milliCPU
			case 2:
				free.change(t.host, t.shape, -1)
				busy -= t.shape.milliCPU
			}
		}
		looks++
		sum.Busy += float64(busy) / float64(total)
		if len(waiting) == 0 {
			continue
		}
		shapes := map[simShape]int{}
		for i := range waiting {
			shapes[tasks[i].shape]++
		}
		for host := range free {
			for shape := range shapes {
				if free.takes(host, shape) {
					sum.Beside += float64(free[host].milliCPU) / float64(total)
					break
				}
			}
		}
		could := room(slices.Clone(free))
		for _, shape := range simTasks[:] {
			for range shapes[shape] {
				if could.place(shape) < 0 {
					break
				}
				sum.Waste += float64(shape.milliCPU) / float64(total)
			}
		}
	}
	if looks > 0 {
		sum.Busy, sum.Waste, sum.Beside = sum.Busy/float64(looks), sum.Waste/float64(looks), sum.Beside/float64(looks)
	}
	return sum
}

// TestIdealSchedule holds what a simulated fleet is measured against.
func TestIdealSchedule(t *testing.T) {
	t.Parallel()
	one, two := simTasks[0], simTasks[2]
	hosts := []simShape{{milliCPU: 2000, memory: 8 * gigabyte}, {milliCPU: 1000, memory: 8 * gigabyte}}
	tasks := []simTask{
		{shape: one, published: 0, lasts: 10, begun: 0, ended: 10, host: 0},  // the ideal takes host 1, where nothing is left then
		{shape: two, published: 1, lasts: 4, begun: 11, ended: 15, host: 0},  // and so it starts at once
		{shape: two, published: 2, lasts: 4, begun: 15, ended: 19, host: 0},  // when host 0 is free again
		{shape: one, published: 3, lasts: 10, begun: 3, ended: 13, host: 1},  // waits, too, behind none that it could help
		{shape: one, published: 20, lasts: 1, begun: 20, ended: 21, host: 0}, // an empty fleet
	}
	if got := ideal(hosts, tasks); !slices.Equal(got, []time.Duration{0, 1, 5, 9, 20}) {
		t.Errorf("an ideal scheduler begins at %v", got)
	}
	// From 1 to 3, a core of the first host is idle beside a task of two, which does not fit. From 10 to 11 it would fit.
	if got := idle(hosts, tasks, 0, 12, 1); got.Waste != 1*2.0/3/12 || got.Beside != got.Waste {
		t.Errorf("the fleet is idle like %+v", got)
	}
}
