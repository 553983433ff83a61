package gpu

import (
	"cmp"
	"slices"
)

// searchMax is the most free GPUs among which all sets are tried. With more, a set is grown from its best pair: the largest hosts
// have 16.
const searchMax = 16

// shareable reports whether a request takes a share of a device rather than all of it.
func (h *Host) shareable(u *unit, r Request) bool {
	return h.config.Shared && r.Memory > 0 && u.Parent == ""
}

// room is how many bytes of a device could be lent to a request now; 0 for none. The lock is held.
func (h *Host) room(u *unit, r Request) int64 {
	if u.dirty { // or in quarantine, which is for dirty ones
		return 0
	}
	return h.roomBeside(u, r, nil)
}

// roomBeside is how many bytes of a clean device could be lent to a request if the holders that have ended were gone; 0 for none. The
// lock is held.
func (h *Host) roomBeside(u *unit, r Request, ended map[string]bool) int64 {
	left, held := u.Memory, false
	for id, n := range u.shares {
		if !ended[id] {
			left -= n
			held = true
		}
	}
	switch {
	case !held:
		return u.Memory
	case u.whole || !h.shareable(u, r) || left < r.Memory:
		return 0
	}
	return left
}

// choose finds the devices for a request, or nil where too few are free. room says how many bytes of a device there are for it. The lock
// is held.
func (h *Host) choose(r Request, room func(*unit) int64) []*unit {
	var list []*unit
	for _, u := range h.units {
		if r.serves(&u.Device) && room(u) > 0 {
			list = append(list, u)
		}
	}
	if r.Count <= 0 || len(list) < r.Count {
		return nil
	}
	if r.Memory > 0 || list[0].Parent != "" {
		// Tightly: what is left over is to be as small as can be, so that larger requests find room elsewhere.
		slices.SortStableFunc(list, func(a, b *unit) int { return cmp.Compare(room(a), room(b)) })
		least := room(list[r.Count-1])
		list = slices.DeleteFunc(list, func(u *unit) bool { return room(u) > least })
		if list[0].Parent != "" {
			return list[:1]
		}
	}
	set := best(list, r.Count)
	slices.SortFunc(set, func(a, b *unit) int { return cmp.Compare(a.Index, b.Index) })
	return set
}

// best finds the n units that are best connected with each other and, among those that are equally so, least with those that are left:
// so that the next set is good, too.
func best(list []*unit, n int) []*unit {
	if len(list) > searchMax {
		list = grow(list, max(n, searchMax))
		if n > searchMax {
			return list[:n]
		}
	}
	score := make([][]int, len(list))
	for i, a := range list {
		score[i] = make([]int, len(list))
		for j, b := range list {
			if i != j {
				score[i][j] = a.Links[b.UUID].score()
			}
		}
	}
	var found, chosen []int
	inside, across := -1, 0
	var try func(from, within, out int)
	try = func(from, within, out int) {
		if len(chosen) == n {
			if within > inside || within == inside && out < across {
				inside, across, found = within, out, slices.Clone(chosen)
			}
			return
		}
		for i := from; i <= len(list)-(n-len(chosen)); i++ {
			// What joins it to the chosen ones was across before, and is within now.
			joins, all := 0, 0
			for j := range list {
				all += score[i][j]
			}
			for _, j := range chosen {
				joins += score[i][j]
			}
			chosen = append(chosen, i)
			try(i+1, within+joins, out+all-2*joins)
			chosen = chosen[:len(chosen)-1]
		}
	}
	try(0, 0, 0)
	set := make([]*unit, n)
	for i, at := range found {
		set[i] = list[at]
	}
	return set
}

// grow chooses n units one after the other: each time the one that is best connected with the ones before.
func grow(list []*unit, n int) []*unit {
	rest := slices.Clone(list)
	set := rest[:1:1]
	rest = rest[1:]
	for len(set) < n {
		at, most := 0, -1
		for i, u := range rest {
			sum := 0
			for _, s := range set {
				sum += u.Links[s.UUID].score()
			}
			if sum > most {
				at, most = i, sum
			}
		}
		set = append(set, rest[at])
		rest = slices.Delete(rest, at, at+1)
	}
	return set
}
