package gpu

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"
)

// holder is who has devices. The Host's lock guards it.
type holder struct {
	id     string
	grants []Grant
	// stop ends it; nil before it runs, and once it was called.
	stop func()
	// begun says that it is about to run, or does; runs, that it has since an earlier life.
	begun, runs bool
	// leader is its first process, groups the control groups of that.
	leader int
	groups string
	ended  time.Time

	// first and latest are the energies of its GPUs, by UUID; now the bytes that it uses of each device, by UUID.
	first, latest map[string]float64
	now           map[string]int64
	peak          int64
	busy          float64 // the sum of what samples showed
	samples       int
	faults        []Fault
	// broken says which of its devices cannot go on, over of which it takes more than its share; both are empty else.
	broken, over string
}

func newHolder(id string, grants []Grant) *holder {
	return &holder{id: id, grants: grants, first: map[string]float64{}, latest: map[string]float64{}, now: map[string]int64{}}
}

// Report is what became of a holder's devices while it ran.
type Report struct {
	// MemoryPeak is the most memory used at a time, in bytes, as far as samples show it.
	MemoryPeak int64
	// Energy is in joules; 0 where it is not known, as of shares and instances.
	Energy float64
	// Utilization is the mean of the samples, 0 to 1.
	Utilization float64
	// Broken says what is wrong with a device that cannot go on, Over what was used beyond a share; both are empty else.
	Broken, Over string
	// Faults are what the driver reported meanwhile.
	Faults []Fault
}

// Begin looks at a holder's devices once more before it runs: what came to them in the meantime is none of its business, and none of ours to
// kill. stop is called, at most once, when it must not go on. A holder that runs since before is not looked at.
func (h *Host) Begin(ctx context.Context, id string, runs bool, stop func()) error {
	h.mu.Lock()
	x := h.holders[id]
	if x == nil {
		h.mu.Unlock()
		return fmt.Errorf("cannot use GPUs: %s holds none", id)
	}
	gpus := h.gpusOf(x)
	h.mu.Unlock()
	if runs { // and is not let go of when it is to be stopped
		ctx = context.WithoutCancel(ctx)
	}
	states, err := h.config.Driver.States(ctx, gpus, false)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	x.stop, x.begun = stop, true
	var unfit error
	for _, g := range x.grants {
		u := h.unit(g.UUID)
		if u == nil {
			continue
		}
		u.see(states, err)
		if why := h.unready(u); why != "" && !runs {
			h.quarantine(u, why, now)
			unfit = fmt.Errorf("cannot use GPU %d (%s): %s", u.Index, u.UUID, why)
			continue
		}
		x.sample(u, h)
		u.pause = 0
		u.pace(now, sampleMin, sampleMax)
	}
	if unfit != nil {
		x.stop, x.begun = nil, false
	}
	h.wake()
	return unfit
}

// unready says why a device must not be used by one who is about to, or is empty. The lock is held.
func (h *Host) unready(u *unit) string {
	if u.why != "" {
		return u.why
	}
	if why := u.unfit(); why != "" {
		return why
	}
	if h.unknown(u) {
		return ""
	}
	whole := u.whole
	u.whole = false // whoever is there is a stranger: the holder has no process yet
	defer func() { u.whole = whole }()
	if list := h.strangers(u); len(list) > 0 {
		return "it is used by " + h.procs.name(list[0].PID) + ", which no task holds"
	}
	return ""
}

// Started names a holder's first process.
func (h *Host) Started(id string, pid int) {
	groups := h.procs.groups(pid)
	h.mu.Lock()
	defer h.mu.Unlock()
	if x := h.holders[id]; x != nil {
		x.leader, x.groups = pid, groups
	}
}

// End takes a holder's account once it has ended, and before it returns what it holds. With failed, it waits for what the driver may still
// have to report.
func (h *Host) End(ctx context.Context, id string, failed bool) Report {
	h.mu.Lock()
	x := h.holders[id]
	if x == nil {
		h.mu.Unlock()
		return Report{}
	}
	x.stop, x.begun = nil, false
	x.ended = time.Now()
	gpus := h.gpusOf(x)
	h.mu.Unlock()
	states, err := h.config.Driver.States(ctx, gpus, failed)
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	for _, g := range x.grants {
		u := h.unit(g.UUID)
		if u == nil {
			continue
		}
		if u.see(states, err); err == nil {
			x.meter(u)
			if why := u.last.Unfit(); why != "" {
				h.broken(u, why, now)
			}
		}
	}
	r := Report{MemoryPeak: x.peak, Broken: x.broken, Over: x.over, Faults: x.faults}
	for uuid, first := range x.first {
		r.Energy += max(0, x.latest[uuid]-first)
	}
	if x.samples > 0 {
		r.Utilization = x.busy / float64(x.samples)
	}
	return r
}

// gpusOf lists the UUIDs of a holder's GPUs. The lock is held.
func (h *Host) gpusOf(x *holder) []string {
	all := map[string]bool{}
	for _, g := range x.grants {
		if u := h.unit(g.UUID); u != nil {
			all[u.gpu()] = true
		}
	}
	return slices.Sorted(maps.Keys(all))
}

// owns reports whether a process is the holder's.
func (x *holder) owns(pid int, procs processes) bool {
	if x.leader == 0 {
		return false
	}
	if pid == x.leader {
		return true
	}
	if x.groups != "" && x.groups != procs.own {
		return within(procs.groups(pid), x.groups)
	}
	_, session, _, ok := procs.stat(pid) // without control groups, by the session that it began
	return ok && session == x.leader
}

// sample notes what the holder uses of a device. The Host's lock is held.
func (x *holder) sample(u *unit, h *Host) {
	if u.silence != "" || u.last.Lost != "" || !x.begun {
		return
	}
	x.meter(u)
	mine := int64(0)
	for _, p := range u.last.on(&u.Device) {
		if x.owns(p.PID, h.procs) {
			mine += p.Memory
		}
	}
	share := int64(0)
	for _, g := range x.grants {
		if g.UUID == u.UUID {
			share = g.Share
		}
	}
	if share == 0 {
		mine = max(mine, u.last.used(&u.Device)-max(0, u.baseline))
	} else if mine > share && x.over == "" {
		x.over = fmt.Sprintf("it used %s of GPU %d, of which it had asked for %s (gpu_memory)", h.config.FormatSize(mine), u.Index, h.config.FormatSize(share))
	}
	x.now[u.UUID] = mine
	sum := int64(0)
	for _, n := range x.now {
		sum += n
	}
	x.peak = max(x.peak, sum)
	x.busy += u.last.Utilization
	x.samples++
}

// meter reads the counter of energy, which counts a GPU as a whole.
func (x *holder) meter(u *unit) {
	if !u.whole || u.Parent != "" || u.last.Energy == 0 {
		return
	}
	if _, ok := x.first[u.UUID]; !ok {
		x.first[u.UUID] = u.last.Energy
	}
	x.latest[u.UUID] = u.last.Energy
}
