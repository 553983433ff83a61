package manager

import (
	"cmp"
	"maps"
	"slices"
)

// Core is one processor that workers may run on.
type Core struct {
	// Number is Linux's, Node that of the memory node beside it.
	Number, Node int
}

// coreFull is what one core has to lend, in thousandths.
const coreFull = 1000

// corePool lends processors. A lease of whole cores gets ones that nobody else has, for as long as there are any. All others
// share: each is packed onto as few cores as hold it, so that whole ones stay free, and never onto one that is somebody's own. As
// the cores hold at least as much as the ledger lends, there is always room for what the ledger agrees to.
type corePool struct {
	list []Core
	// lent is in thousandths, by number.
	lent map[int]int64
}

func newCorePool(list []Core) *corePool { return &corePool{list: list, lent: map[int]int64{}} }

// pick chooses cores for so many thousandths, of the nodes that are named where those have room; none where no processors are lent one by
// one.
func (c *corePool) pick(milli int64, near ...int) map[int]int64 {
	if len(c.list) == 0 || milli <= 0 {
		return nil
	}
	beside := func(core Core) bool { return slices.Contains(near, core.Node) }
	if slices.ContainsFunc(c.list, beside) {
		part := &corePool{slices.DeleteFunc(slices.Clone(c.list), func(core Core) bool { return !beside(core) }), c.lent}
		if share := part.pick(milli); total(share) == milli && (milli%coreFull != 0 || len(share) == int(milli/coreFull)) {
			return share
		}
	}
	if milli%coreFull == 0 {
		if share := c.whole(int(milli / coreFull)); share != nil {
			return share
		}
	}
	return c.packed(milli)
}

func total(share map[int]int64) (sum int64) {
	for _, part := range share {
		sum += part
	}
	return sum
}

// whole finds n untouched cores, within one node where one has them: in the node where fewest are left over, so that larger
// leases find room in others.
func (c *corePool) whole(n int) map[int]int64 {
	free := map[int][]int{}
	var all []int
	for _, core := range c.list {
		if c.lent[core.Number] == 0 {
			free[core.Node] = append(free[core.Node], core.Number)
		}
	}
	nodes := slices.SortedFunc(maps.Keys(free), func(a, b int) int { return cmp.Or(cmp.Compare(len(free[a]), len(free[b])), cmp.Compare(a, b)) })
	for _, node := range nodes {
		if len(free[node]) >= n {
			all = free[node]
			break
		}
	}
	if all == nil { // over several nodes: the emptiest first, for the fewest nodes
		for _, node := range slices.Backward(nodes) {
			all = append(all, free[node]...)
		}
	}
	if len(all) < n {
		return nil
	}
	share := map[int]int64{}
	for _, number := range all[:n] {
		share[number] = coreFull
	}
	return share
}

// packed finds shares of cores that hold so much: of one core, the one where least is left over; else of those with most room.
func (c *corePool) packed(milli int64) map[int]int64 {
	room := func(core Core) int64 { return coreFull - c.lent[core.Number] }
	best := slices.IndexFunc(c.list, func(core Core) bool { return room(core) >= milli })
	for i, core := range c.list {
		if r := room(core); best >= 0 && r >= milli && r < room(c.list[best]) {
			best = i
		}
	}
	if best >= 0 {
		return map[int]int64{c.list[best].Number: milli}
	}
	share := map[int]int64{}
	for _, core := range slices.SortedStableFunc(slices.Values(c.list), func(a, b Core) int { return cmp.Compare(room(b), room(a)) }) {
		part := min(milli, room(core))
		if part <= 0 {
			break
		}
		share[core.Number] = part
		milli -= part
	}
	return share
}

// mark notes what is lent; giveBack, what is not any more.
func (c *corePool) mark(share map[int]int64) {
	for number, part := range share {
		c.lent[number] += part
	}
}

func (c *corePool) giveBack(share map[int]int64) {
	for number, part := range share {
		c.lent[number] -= part
	}
}
