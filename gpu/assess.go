package gpu

import (
	"fmt"
	"strings"
	"time"

	"github.com/mayfly/mayfly/internal/logkey"
)

// assess judges a device by how it was last found. The lock is held.
func (h *Host) assess(u *unit, now time.Time) {
	if u.Divided {
		return
	}
	unfit, answered := u.unfit(), u.silence == ""
	if len(u.shares) > 0 {
		u.pace(now, sampleMin, sampleMax)
		for id := range u.shares {
			h.holders[id].sample(u, h)
		}
		if unfit != "" && answered && u.why == "" {
			h.broken(u, unfit, now)
			return
		}
		if !u.dirty || h.unknown(u) {
			return
		}
	}
	if u.fresh && answered {
		u.fresh = false
		for _, p := range u.last.on(&u.Device) {
			if p.Graphics { // a display is there to stay
				u.residents[h.procs.resident(p.PID)] = true
			}
		}
	}
	why := unfit
	if why == "" {
		why = h.traces(u)
	}
	switch {
	case why == "" && !now.Before(u.trust) && (u.trust.IsZero() || u.last.RecoveryKnown):
		h.clean(u, now)
	case u.why != "":
		if why != "" {
			u.why = why
		}
		u.pace(now, probeMin, probeMax)
	case !now.Before(u.bound):
		h.quarantine(u, why, now)
	case answered:
		u.pace(now, checkMin, checkMax)
	default:
		u.pace(now, checkMax, checkMax)
	}
}

// unknown reports whether a device has a holder of an earlier life that is not known by its first process yet, so that its processes cannot
// be told from strangers. The lock is held.
func (h *Host) unknown(u *unit) bool {
	for id := range u.shares {
		if x := h.holders[id]; x.leader == 0 && x.runs {
			return true
		}
	}
	return false
}

// clean puts a device back. The lock is held.
func (h *Host) clean(u *unit, now time.Time) {
	if u.why != "" {
		h.config.Log.Info("GPU let out of quarantine", logkey.GPU, u.UUID, "seconds", now.Sub(u.since).Seconds())
	}
	u.why, u.dirty, u.trust, u.pause = "", false, time.Time{}, 0
	clear(u.shot)
	h.freed = true
	if used := u.last.used(&u.Device); len(u.shares) == 0 && len(u.residents) == 0 && (u.baseline < 0 || used < u.baseline) {
		u.baseline = used
	}
}

// broken takes a device out of use that its holders cannot go on with. The lock is held.
func (h *Host) broken(u *unit, why string, now time.Time) {
	if u.why == "" {
		h.quarantine(u, why, now)
	}
	for id := range u.shares {
		if x := h.holders[id]; x.broken == "" {
			x.broken = fmt.Sprintf("GPU %d (%s): %s", u.Index, u.UUID, why)
		}
	}
}

// quarantine takes a device out of use. The lock is held.
func (h *Host) quarantine(u *unit, why string, now time.Time) {
	u.why, u.since, u.dirty, u.pause = why, now, true, 0
	u.pace(now, probeMin, probeMax)
	h.config.Log.Error("GPU in quarantine", logkey.GPU, u.UUID, "index", u.Index, logkey.Reason, why)
}

// pace sets when to look next: each time later, within bounds.
func (u *unit) pace(now time.Time, shortest, longest time.Duration) {
	u.pause = min(max(u.pause*3/2, shortest), longest)
	u.due = now.Add(u.pause)
}

// traces says what is left on a device by those who do not hold it any more, or is empty. The lock is held.
func (h *Host) traces(u *unit) string {
	var names []string
	for _, p := range h.strangers(u) {
		names = append(names, h.procs.name(p.PID))
	}
	if len(names) > 0 {
		return "it is used by " + strings.Join(names, ", ") + ", which no task holds"
	}
	used := u.last.used(&u.Device)
	if u.baseline >= 0 && len(u.shares) == 0 && len(u.residents) == 0 && used > u.baseline+slack {
		return fmt.Sprintf("%s of its memory are used, by no process that the driver shows (%s when idle)",
			h.config.FormatSize(used), h.config.FormatSize(u.baseline))
	}
	return ""
}

// strangers are the processes on a device that belong to none of its holders and were not there before. The lock is held.
func (h *Host) strangers(u *unit) []Process {
	if u.whole && len(u.shares) > 0 {
		return nil // its holder may do there what it likes
	}
	var list []Process
	for _, p := range u.last.on(&u.Device) {
		if u.residents[h.procs.resident(p.PID)] {
			continue
		}
		mine := false
		for id := range u.shares {
			mine = mine || h.holders[id].owns(p.PID, h.procs)
		}
		if !mine {
			list = append(list, p)
		}
	}
	return list
}

// reckon says what is to be done after a look: what came to a device while it was held and is still there is killed, holders that are to
// end are stopped, and whoever waits is told that something is free. Of what is in quarantine nobody is killed: whoever is there now may
// be looking for the fault. The lock is held.
func (h *Host) reckon() todo {
	var t todo
	now := time.Now()
	for _, u := range h.units {
		if !u.dirty || u.why != "" || u.fresh || !now.Before(u.bound) || u.silence != "" || h.unknown(u) {
			continue
		}
		for _, p := range h.strangers(u) {
			if !u.shot[p.PID] {
				u.shot[p.PID] = true
				t.kill = append(t.kill, victim{p.PID, u.Files})
			}
		}
	}
	for _, x := range h.holders {
		if x.stop != nil && (x.broken != "" || x.over != "") {
			t.stop = append(t.stop, x.stop)
			x.stop = nil
		}
	}
	t.changed, h.freed = h.freed, false
	return t
}

// fault takes a report of the driver's.
func (h *Host) fault(f Fault) {
	h.mu.Lock()
	now := time.Now()
	for _, u := range h.units {
		if u.gpu() != f.GPU || f.Severity != Broken && f.Instance != "" && f.Instance != u.UUID {
			continue
		}
		for id := range u.shares {
			h.holders[id].faults = append(h.holders[id].faults, f)
		}
		switch f.Severity {
		case Broken:
			u.trust = now.Add(trustAfter)
			h.broken(u, f.Text, now)
		case Check:
			u.due = now
		}
	}
	t := h.reckon()
	h.wake()
	h.mu.Unlock()
	h.config.Log.Warn("GPU fault", logkey.GPU, f.GPU, logkey.Reason, f.Text)
	h.do(t)
}
