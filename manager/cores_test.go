package manager

import (
	"maps"
	"math/rand/v2"
	"testing"
)

func fourCores() *corePool { return newCorePool([]Core{{0, 0}, {1, 0}, {2, 1}, {3, 1}}) }

func TestCores(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		before []int64
		milli  int64
		want   map[int]int64
	}{
		"one":                            {nil, 1000, map[int]int64{0: 1000}},
		"two, of one node":               {[]int64{1000}, 2000, map[int]int64{2: 1000, 3: 1000}},
		"one, where a node is in use":    {[]int64{1000}, 1000, map[int]int64{1: 1000}},
		"three, over two nodes":          {nil, 3000, map[int]int64{2: 1000, 3: 1000, 0: 1000}},
		"a fraction":                     {nil, 300, map[int]int64{0: 300}},
		"a fraction beside another":      {[]int64{300}, 700, map[int]int64{0: 700}},
		"a fraction where least is left": {[]int64{300, 900, 600}, 300, map[int]int64{2: 300}},
		"one and a half":                 {nil, 1500, map[int]int64{0: 1000, 1: 500}},
		"whole, but none is whole":       {[]int64{600, 600, 600, 600}, 1000, map[int]int64{0: 400, 1: 400, 2: 200}},
	} {
		c := fourCores()
		for _, milli := range tt.before {
			c.mark(c.pick(milli))
		}
		if got := c.pick(tt.milli); !maps.Equal(got, tt.want) {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
		}
	}
	if got := newCorePool(nil).pick(1000); got != nil {
		t.Errorf("without cores: %v", got)
	}
}

// TestCoresNeverOverlap lends and returns at random: nobody gets less or more than asked for, no core lends more than it has, and
// one that is somebody's own is nobody else's.
func TestCoresNeverOverlap(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	c := fourCores()
	var held []map[int]int64
	total := int64(0)
	for range 100_000 {
		if milli := 1 + random.Int64N(2200); random.IntN(2) == 0 && total+milli <= 4000 {
			if random.IntN(2) == 0 && milli >= 1000 {
				milli = milli / 1000 * 1000
			}
			share := c.pick(milli)
			c.mark(share)
			sum := int64(0)
			for _, part := range share {
				sum += part
			}
			if sum != milli {
				t.Fatalf("%d for %d: %v", sum, milli, share)
			}
			total += milli
			held = append(held, share)
		} else if len(held) > 0 {
			i := random.IntN(len(held))
			for _, part := range held[i] {
				total -= part
			}
			c.giveBack(held[i])
			held[i] = held[len(held)-1]
			held = held[:len(held)-1]
		}
		for n, lent := range c.lent {
			if lent < 0 || lent > coreFull {
				t.Fatalf("core %d lends %d", n, lent)
			}
		}
	}
}
