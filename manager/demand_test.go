package manager

import (
	"context"
	"fmt"
	"testing"
)

// TestDemandOfParked has tasks wait here that this host can never run, beside some that it runs: they take no room of a host like this one, and need none.
func TestDemandOfParked(t *testing.T) {
	among(t, 1, func(h *host, _ *multitude) {
		h.Backlog.Depth = func(context.Context) (map[string]int, error) { return map[string]int{"default.normal": 8}, nil }
		for i := range 6 {
			h.deliver(fmt.Sprint("parked", i), 8)
		}
		for i := range 5 { // on four cores
			h.deliver(fmt.Sprint("t", i), 1)
		}
		d, err := h.Demand(t.Context())
		if err != nil || len(d.Pools) != 1 {
			t.Fatalf("%+v, %v", d, err)
		}
		if d.Waiting.Tasks != 1 || d.Waiting.CPU != 1 || d.OldestAt == nil || d.Running.Tasks != 4 {
			t.Errorf("%+v", d)
		}
		if p := d.Pools[0]; p.Waiting != 1 || p.Running != 4 || p.PerHost != 4 || p.Hosts != 3 {
			t.Errorf("%+v, want three hosts for eight tasks that are queued and one that waits", p)
		} else if p.Needs == nil || p.Needs.Tasks != 9 || p.Needs.CPU != 9 || p.Needs.GPUs != 0 || p.Needs.Memory != 9*d.Running.Memory/4 {
			t.Errorf("%+v, want what nine such tasks need", p.Needs)
		}
	})
}
