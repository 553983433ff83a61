package cgroup

import (
	"slices"
	"testing"

	"github.com/mayfly/mayfly/integration/need"
)

// TestLikeGroup lends groups of other cores and devices at once, gives them back, and wants each again by what it has.
func TestLikeGroup(t *testing.T) {
	t.Parallel()
	r := rootOf(t)
	if r.Mode() == "unified" {
		t.Skip("SKIPPED: whether a group is used again depends on the kernel; where there are version 1 groups, this runs")
	}
	if !slices.Contains(r.Controllers(), "cpuset") {
		need.Missing(t, "no processors can be given: %v", r.Lacking())
	}
	kinds := []Limits{{PIDs: 50}, {PIDs: 50, Cores: []int{0}}, {PIDs: 50, Closed: []Device{full}}, {PIDs: 50, Cores: []int{0}, Closed: []Device{full}}}
	lend := func(l Limits) *Group {
		t.Helper()
		g, err := r.Lend(l)
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
	giveBack := func(groups ...*Group) {
		t.Helper()
		for _, g := range groups {
			if err := g.Return(); err != nil {
				t.Error(err)
			}
		}
	}
	var groups []*Group
	for _, l := range kinds {
		groups = append(groups, lend(l))
	}
	giveBack(groups...)
	for i, l := range kinds {
		g := lend(l)
		if g != groups[i] {
			t.Errorf("%+v: lent %s, want %s", l, g.name, groups[i].name)
		}
		giveBack(g)
	}
	g := lend(Limits{PIDs: 40, Closed: []Device{zero}})
	if !slices.Contains(groups, g) {
		t.Errorf("a group was made while others were unused: %s", g.name)
	}
	giveBack(g)
}
