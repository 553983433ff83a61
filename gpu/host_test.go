package gpu

import (
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

type bench struct {
	*Host
	t       *testing.T
	driver  *driver
	changed chan bool
}

// open makes a host within a bubble of its own time, and waits until it is ready.
func open(t *testing.T, d *driver, c Config) *bench {
	t.Helper()
	b := &bench{t: t, driver: d, changed: make(chan bool, 1)}
	c.Driver, c.Log, c.FormatSize = d, slog.New(slog.NewTextHandler(t.Output(), nil)), func(n int64) string { return fmt.Sprintf("%dGiB", n>>30) }
	if c.Clean == 0 {
		c.Clean = 10 * time.Second
	}
	c.Changed = func() {
		select {
		case b.changed <- true:
		default:
		}
	}
	h, err := Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	b.Host = h
	b.Start()
	synctest.Wait()
	return b
}

// lend lends, and returns the numbers of the GPUs.
func (b *bench) lend(id string, r Request) string {
	b.t.Helper()
	lacks := b.Lacks(r)
	var names []string
	for _, g := range b.Lend(id, r, nil) {
		names = append(names, strings.TrimPrefix(g.UUID, "GPU-"))
	}
	if (len(names) == 0) != (lacks != "") {
		b.t.Errorf("lacks %q, but lends %v", lacks, names)
	}
	return strings.Join(names, " ")
}

// condition returns a device's, with the reason where it is in quarantine.
func (b *bench) condition(uuid string) string {
	b.t.Helper()
	for _, s := range b.Overview(b.t.Context()).GPUs {
		if s.UUID == uuid {
			return strings.TrimSuffix(s.Condition+": "+s.Reason, ": ")
		}
	}
	b.t.Fatalf("no device %s", uuid)
	return ""
}

func (b *bench) is(uuid, want string) {
	b.t.Helper()
	if got := b.condition(uuid); !strings.HasPrefix(got, want) {
		b.t.Errorf("%s is %q, want %q", uuid, got, want)
	}
}

// TestChoose holds which devices are lent.
func TestChoose(t *testing.T) {
	t.Parallel()
	whole := func(n int) Request { return Request{Count: n} }
	for name, tt := range map[string]struct {
		shared bool
		ask    []Request
		want   []string
	}{
		"one of the half that is broken up":    {false, []Request{{Count: -5}, whole(1), whole(4)}, []string{"", "4", "0 1 2 3"}},
		"one":                                  {false, []Request{whole(1)}, []string{"0"}},
		"two of one node":                      {false, []Request{whole(2)}, []string{"0 1"}},
		"one, then four of one node":           {false, []Request{whole(1), whole(4)}, []string{"0", "4 5 6 7"}},
		"one beside what is broken up already": {false, []Request{whole(1), whole(4), whole(1), whole(2)}, []string{"0", "4 5 6 7", "1", "2 3"}},
		"three and five":                       {false, []Request{whole(3), whole(5)}, []string{"0 1 2", "3 4 5 6 7"}},
		"all, then none":                       {false, []Request{whole(8), whole(1)}, []string{"0 1 2 3 4 5 6 7", ""}},
		"shares where none are allowed":        {false, []Request{{Count: 1, Memory: 20 << 30}, {Count: 1, Memory: 20 << 30}}, []string{"0", "1"}},
		"shares": {true, []Request{{Count: 1, Memory: 50 << 30}, {Count: 1, Memory: 50 << 30}, {Count: 1, Memory: 30 << 30}, {Count: 1, Memory: 40 << 30}, whole(1)},
			[]string{"0", "1", "0", "2", "3"}},
		"by model": {false, []Request{{Count: 1, Model: "h100"}, {Count: 1, Model: "H100 80GB"}}, []string{"0", "1"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := open(t, eight(), Config{Shared: tt.shared})
				defer b.Close()
				for i, r := range tt.ask {
					if r.Count < 0 { // somebody has it since before
						b.Take("before.1", []Grant{{UUID: fmt.Sprint("GPU-", -r.Count)}})
						continue
					}
					if got := b.lend(fmt.Sprint("x.", i), r); got != tt.want[i] {
						t.Errorf("request %d: %q, want %q", i, got, tt.want[i])
					}
				}
			})
		})
	}
}

// TestNever holds what is refused, and in which words.
func TestNever(t *testing.T) {
	t.Parallel()
	d := eight()
	d.inventory.Devices[7].Divided = true
	d.inventory.Devices = append(d.inventory.Devices, Device{UUID: "MIG-a", Index: 7, Parent: "GPU-7", Profile: "1g.10gb", Model: "NVIDIA H100 80GB HBM3", Memory: 10 << 30})
	synctest.Test(t, func(t *testing.T) {
		b := open(t, d, Config{})
		defer b.Close()
		for _, tt := range []struct {
			r    Request
			want string
		}{
			{Request{Count: 7}, ""},
			{Request{Count: 8}, "lends 7 such"},
			{Request{Count: 1, Memory: 81 << 30}, "lends 7 NVIDIA H100 80GB HBM3 with 80GiB, 1 NVIDIA H100 80GB HBM3 with 10GiB"},
			{Request{Count: 1, Model: "A100"}, "lends 7 NVIDIA H100"},
			{Request{Count: 1, Model: "H10"}, "lends 7 NVIDIA H100"},
			{Request{Count: 1, Model: "1g.10gb"}, ""},
			{Request{Count: 2, Model: "1g.10gb"}, "lends 7 NVIDIA H100"},
		} {
			if got := b.Never(tt.r); !strings.HasPrefix(got, tt.want) || tt.want == "" && got != "" {
				t.Errorf("%+v: %q, want %q", tt.r, got, tt.want)
			}
		}
		// An instance goes to who asks for its size, and a whole GPU to who does not.
		if g := b.Lend("a.1", Request{Count: 1, Memory: 9 << 30}, nil); len(g) != 1 || g[0].UUID != "MIG-a" || g[0].Share != 0 {
			t.Errorf("%+v", g)
		}
		if got := b.lend("b.1", Request{Count: 7}); got != "0 1 2 3 4 5 6" {
			t.Errorf("%q", got)
		}
	})
}

// TestFiles holds which device files are open to whom.
func TestFiles(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := open(t, eight(), Config{Only: []string{"0", "GPU-1"}})
		defer b.Close()
		text := func(files []File) (s string) {
			for _, f := range files {
				s += strings.TrimPrefix(f.Path, "/dev/nvidia") + " "
			}
			return s
		}
		open, closed := b.Files(b.Lend("x.1", Request{Count: 1}, nil))
		if text(open) != "ctl 0 " || text(closed) != "1 2 3 4 5 6 7 " {
			t.Errorf("with one: %s, closed %s", text(open), text(closed))
		}
		open, closed = b.Files(nil)
		if text(open) != "" || text(closed) != "0 1 2 3 4 5 6 7 ctl " {
			t.Errorf("with none: %s, closed %s", text(open), text(closed))
		}
		if b.lend("y.1", Request{Count: 2}) != "" || b.Never(Request{Count: 3}) == "" {
			t.Error("lends what was not chosen")
		}
	})
	if _, err := Open(t.Context(), Config{Driver: eight(), Only: []string{"8"}}); err == nil || !strings.Contains(err.Error(), "0 (GPU-0)") {
		t.Errorf("a GPU that is not there: %v", err)
	}
}

// TestAccount holds what is told of a holder's use.
func TestAccount(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := eight()
		for _, uuid := range []string{"GPU-0", "GPU-1"} {
			d.set(uuid, func(s *State) { s.Energy, s.Used = 1000, 5<<20 })
		}
		b := open(t, d, Config{})
		defer b.Close()
		b.lend("x.1", Request{Count: 2})
		if err := b.Begin(t.Context(), "x.1", false, nil); err != nil {
			t.Fatal(err)
		}
		d.set("GPU-0", func(s *State) { s.Energy, s.Used, s.Utilization = 1100, 3<<30, 1 })
		d.set("GPU-1", func(s *State) { s.Energy, s.Used, s.Utilization = 1050, 1<<30, 1 })
		time.Sleep(10 * time.Second)
		for _, uuid := range []string{"GPU-0", "GPU-1"} {
			d.set(uuid, func(s *State) { s.Energy, s.Used = s.Energy+10, 5<<20 })
		}
		time.Sleep(2 * time.Second)
		r := b.End(t.Context(), "x.1", false)
		if r.MemoryPeak != 4<<30-10<<20 || r.Energy != 170 || r.Utilization < 0.8 || r.Utilization > 1 {
			t.Errorf("%+v", r)
		}
	})
}

// TestIdle holds that nothing looks where there is nothing to look at.
func TestIdle(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := eight()
		b := open(t, d, Config{})
		b.lend("x.1", Request{Count: 1})
		_ = b.Begin(t.Context(), "x.1", false, nil)
		b.End(t.Context(), "x.1", false)
		b.Return("x.1")
		time.Sleep(time.Second)
		synctest.Wait()
		d.mu.Lock()
		before, report := d.calls, d.report
		d.mu.Unlock()
		time.Sleep(time.Hour)
		seen := b.Seen() // by whom nobody is asked
		if len(seen.GPUs) != 8 || seen.GPUs[0].State.At.IsZero() || time.Since(seen.GPUs[0].State.At) < time.Hour || seen.GPUs[0].Condition != "free" {
			t.Errorf("seen: %+v", seen.GPUs[0])
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.calls != before || report != nil {
			t.Errorf("%d calls, and faults are watched for: %v", d.calls-before, report != nil)
		}
	})
}

// TestNeverTwo lends and returns at random, with faults, and holds that no device has two owners and none is lent in quarantine.
func TestNeverTwo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := eight()
		b := open(t, d, Config{Shared: true})
		defer b.Close()
		owners := map[string]map[string]int64{}
		rng := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // the same each time
		var holders []string
		for n := range 3000 {
			switch rng.IntN(6) {
			case 0, 1, 2:
				r := []Request{{Count: 1}, {Count: 2}, {Count: 4}, {Count: 8}, {Count: 1, Memory: 10 << 30}, {Count: 2, Memory: 35 << 30}}[rng.IntN(6)]
				id := fmt.Sprint("t", n, ".1")
				grants := b.Lend(id, r, nil)
				if grants == nil {
					continue
				}
				for _, g := range grants {
					share := g.Share
					if share == 0 {
						share = 80 << 30
					}
					if owners[g.UUID] == nil {
						owners[g.UUID] = map[string]int64{}
					}
					owners[g.UUID][id] = share
					sum := int64(0)
					for share := range maps.Values(owners[g.UUID]) {
						sum += share
					}
					if sum > 80<<30 {
						t.Fatalf("%s is lent twice: %v", g.UUID, owners[g.UUID])
					}
					if c := b.condition(g.UUID); c != "held" {
						t.Fatalf("%s is lent, and %s", g.UUID, c)
					}
				}
				_ = b.Begin(t.Context(), id, false, func() {})
				holders = append(holders, id)
			case 3, 4:
				if len(holders) == 0 {
					continue
				}
				i := rng.IntN(len(holders))
				id := holders[i]
				holders = slices.Delete(holders, i, i+1)
				b.End(t.Context(), id, rng.IntN(2) == 0)
				for _, o := range owners {
					delete(o, id)
				}
				b.Return(id)
				b.Return(id) // once is enough
			case 5:
				uuid := fmt.Sprint("GPU-", rng.IntN(8))
				if rng.IntN(2) == 0 {
					d.fault(Fault{GPU: uuid, Severity: Severity(1 + rng.IntN(3)), Text: "XID"})
				} else {
					time.Sleep(time.Duration(rng.IntN(3000)) * time.Millisecond)
				}
			}
		}
		for _, id := range holders {
			b.Return(id)
		}
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		if got := b.lend("last.1", Request{Count: 8}); got != "0 1 2 3 4 5 6 7" {
			t.Errorf("at the end %q are free: %s", got, b.Lacks(Request{Count: 8}))
		}
	})
}
