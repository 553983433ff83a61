package gpu

import (
	"fmt"
	"slices"
	"time"
)

// Never says in words that follow "this host " why it can never serve a request, or is empty.
func (h *Host) Never(r Request) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.units) == 0 {
		if h.why == "" {
			return "lends no GPU"
		}
		return h.why
	}
	n := 0
	for _, u := range h.units {
		if r.serves(&u.Device) {
			n++
		}
	}
	switch {
	case n >= r.Count:
		return ""
	case n > 0:
		return fmt.Sprintf("lends %d such", n)
	}
	return "lends " + h.summary()
}

// Summary says what can be lent, as "8 NVIDIA H100 80GB HBM3 with 80GiB", or why nothing.
func (h *Host) Summary() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.units) == 0 {
		return h.why
	}
	return h.summary()
}

// summary says what there is. The lock is held.
func (h *Host) summary() string {
	var names []string
	count := map[string]int{}
	for _, u := range h.units {
		if u.Divided {
			continue
		}
		name := fmt.Sprintf("%s with %s", u.Model, h.config.FormatSize(u.Memory))
		if count[name]++; count[name] == 1 {
			names = append(names, name)
		}
	}
	text := ""
	for i, name := range names {
		if i > 0 {
			text += ", "
		}
		text += fmt.Sprintf("%d %s", count[name], name)
	}
	return text
}

// Lacks says in a few words what is not free for a request now, or is empty.
func (h *Host) Lacks(r Request) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.choose(r, func(u *unit) int64 { return h.room(u, r) }) != nil {
		return ""
	}
	fit, free, sick := 0, 0, 0
	for _, u := range h.units {
		if r.serves(&u.Device) {
			fit++
			switch {
			case u.why != "":
				sick++
			case h.room(u, r) > 0:
				free++
			}
		}
	}
	text := fmt.Sprintf("waits for %s: %d of %d are free", r.sentence(h.config.FormatSize), free, fit)
	if sick > 0 {
		text += fmt.Sprintf(", %d in quarantine", sick)
	}
	return text
}

// Expect names the devices that could serve a request once the holders that are named have given back what they have, by UUID; nil
// where that is not enough. What is in quarantine may stay there for long, and does not count.
func (h *Host) Expect(r Request, ended map[string]bool) (uuids []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, u := range h.choose(r, func(u *unit) int64 {
		if u.why != "" {
			return 0
		}
		return h.roomBeside(u, r, ended)
	}) {
		uuids = append(uuids, u.UUID)
	}
	return uuids
}

// Lend lends devices for a request to a holder, but none that is kept for another (by UUID); nil where they are not free.
func (h *Host) Lend(id string, r Request, kept []string) []Grant {
	h.mu.Lock()
	defer h.mu.Unlock()
	chosen := h.choose(r, func(u *unit) int64 {
		if slices.Contains(kept, u.UUID) {
			return 0
		}
		return h.room(u, r)
	})
	if chosen == nil {
		return nil
	}
	grants := make([]Grant, 0, len(chosen))
	for _, u := range chosen {
		g := Grant{UUID: u.UUID, Node: u.Node}
		if h.shareable(u, r) {
			g.Share = r.Memory
		}
		grants = append(grants, g)
	}
	h.take(id, grants)
	return grants
}

// Take notes what an earlier life has lent.
func (h *Host) Take(id string, grants []Grant) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.take(id, grants)
	h.holders[id].runs = true
}

func (h *Host) take(id string, grants []Grant) {
	h.holders[id] = newHolder(id, grants)
	for _, g := range grants {
		if u := h.unit(g.UUID); u != nil {
			u.take(id, g)
		}
	}
}

func (u *unit) take(id string, g Grant) {
	u.whole, u.dirty, u.fresh = g.Share == 0, u.dirty && !u.fresh, false
	u.shares[id] = g.Share
	if u.whole {
		u.shares[id] = u.Memory
	}
}

// Return gives back what a holder has. It is lent again once it is clean.
func (h *Host) Return(id string) {
	h.mu.Lock()
	x := h.holders[id]
	if x == nil {
		h.mu.Unlock()
		return
	}
	delete(h.holders, id)
	now := time.Now()
	for _, g := range x.grants {
		u := h.unit(g.UUID)
		if u == nil {
			continue
		}
		delete(u.shares, id)
		u.dirty, u.bound, u.due, u.pause = true, now.Add(h.config.Clean), now, 0
		if u.why == "" && u.silence == "" && u.last.At.After(x.ended) && !x.ended.IsZero() && now.Sub(u.last.At) < recent {
			h.assess(u, now) // as it was found when its holder ended
		}
	}
	t := h.reckon()
	h.wake()
	h.mu.Unlock()
	go h.do(t) // the caller may hold what Changed waits for
}
