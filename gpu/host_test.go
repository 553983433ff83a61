package gpu

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os/exec"
	"slices"
	"strings"
	"syscall"
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

// TestGate holds what becomes of a GPU whose holder has ended.
func TestGate(t *testing.T) {
	t.Parallel()
	const uuid = "GPU-0"
	one := func() *driver {
		d := eight()
		d.inventory.Devices = d.inventory.Devices[:1]
		return d
	}
	for name, tt := range map[string]struct {
		before func(*State)
		then   string // right after its end
		later  string // when the bound is over
		mend   func(*State)
	}{
		"clean":            {func(*State) {}, "free", "free", nil},
		"memory not freed": {func(s *State) { s.Used = 1 << 30 }, "checking", "quarantined: 1GiB of its memory are used", func(s *State) { s.Used = 0 }},
		"a little memory":  {func(s *State) { s.Used = 10 << 20 }, "free", "free", nil},
		"a reset is due":   {func(s *State) { s.Recovery = "reset the GPU" }, "quarantined: the driver wants to reset the GPU", "quarantined", func(s *State) { s.Recovery = "" }},
		"lost":             {func(s *State) { s.Lost = "GPU is lost" }, "quarantined: GPU is lost", "quarantined", func(s *State) { s.Lost = "" }},
		"rows to remap":    {func(s *State) { s.Remap = "bad rows" }, "quarantined: bad rows", "quarantined", func(s *State) { s.Remap = "" }},
		"a process nobody sees": {func(s *State) { s.Processes = []Process{{PID: 1 << 30}} }, "checking", "quarantined: it is used by PID 1073741824",
			func(s *State) { s.Processes = nil }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				d := one()
				b := open(t, d, Config{})
				defer b.Close()
				b.lend("x.1", Request{Count: 1})
				if err := b.Begin(t.Context(), "x.1", false, func() {}); err != nil {
					t.Fatal(err)
				}
				d.set(uuid, tt.before)
				b.End(t.Context(), "x.1", true)
				b.Return("x.1")
				synctest.Wait()
				b.is(uuid, tt.then)
				if got := b.lend("y.1", Request{Count: 1}); (got != "") != (tt.then == "free") {
					t.Errorf("lent: %q", got)
				}
				b.Return("y.1")
				time.Sleep(11 * time.Second)
				synctest.Wait()
				b.is(uuid, tt.later)
				if tt.mend == nil {
					return
				}
				if got := b.lend("z.1", Request{Count: 1}); got != "" {
					t.Error("lent while it is in quarantine")
				}
				d.set(uuid, tt.mend)
				<-b.changed
				for range 60 {
					time.Sleep(time.Second)
				}
				synctest.Wait()
				b.is(uuid, "free")
			})
		})
	}
}

// TestStranger has a process stay on a GPU: it is killed before the GPU is lent again.
func TestStranger(t *testing.T) {
	t.Parallel()
	d := eight()
	b := &bench{t: t, driver: d}
	h, err := Open(t.Context(), Config{Driver: d, Clean: 10 * time.Second, Log: slog.New(slog.NewTextHandler(t.Output(), nil)), FormatSize: func(int64) string { return "" }})
	if err != nil {
		t.Fatal(err)
	}
	b.Host = h
	defer b.Close()
	b.Start()
	until(t, "it is free", func() bool { return b.condition("GPU-0") == "free" })
	grants := b.Lend("x.1", Request{Count: 1}, nil)
	if err := b.Begin(t.Context(), "x.1", false, func() {}); err != nil {
		t.Fatal(err)
	}
	left := exec.Command("sleep", "600")
	if err := left.Start(); err != nil {
		t.Fatal(err)
	}
	d.set(grants[0].UUID, func(s *State) { s.Processes = []Process{{PID: left.Process.Pid}} })
	b.End(t.Context(), "x.1", false)
	b.Return("x.1")
	var exit *exec.ExitError
	if err := left.Wait(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL { //nolint:forbidigo // our own child
		t.Errorf("what was left on the GPU: %v", err)
	}
	if got := b.condition(grants[0].UUID); got != "checking" {
		t.Errorf("while the driver still shows the process: %s", got)
	}
	d.set(grants[0].UUID, func(s *State) { s.Processes = nil })
	until(t, "it is free again", func() bool { return b.condition(grants[0].UUID) == "free" })
}

func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not so: %s", what)
		}
	}
}

// TestFirstLook finds GPUs that are not clean before anything was lent.
func TestFirstLook(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := eight()
		d.set("GPU-0", func(s *State) { s.Processes = []Process{{PID: 1 << 30}} })
		d.set("GPU-1", func(s *State) { s.Processes = []Process{{PID: 1 << 30, Graphics: true}}; s.Used = 1 << 30 })
		d.set("GPU-2", func(s *State) { s.Recovery = "reset it" })
		b := open(t, d, Config{})
		defer b.Close()
		b.is("GPU-0", "quarantined: it is used by PID")
		b.is("GPU-1", "free") // a display is there to stay
		b.is("GPU-2", "quarantined: the driver wants to reset it")
		b.is("GPU-3", "free")
		if got := b.Lacks(Request{Count: 7}); got != "waits for 7 GPUs: 6 of 8 are free, 2 in quarantine" {
			t.Errorf("%q", got)
		}
	})
}

// TestBegin looks at a GPU once more before it is used.
func TestBegin(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := eight()
		b := open(t, d, Config{})
		defer b.Close()
		b.lend("x.1", Request{Count: 2})
		d.set("GPU-1", func(s *State) { s.Processes = []Process{{PID: 1 << 30}} })
		if err := b.Begin(t.Context(), "x.1", false, nil); err == nil || !strings.Contains(err.Error(), "cannot use GPU 1 (GPU-1): it is used by") {
			t.Errorf("somebody else's: %v", err)
		}
		b.Return("x.1")
		synctest.Wait()
		b.is("GPU-0", "free")
		b.is("GPU-1", "quarantined")
		// One that runs since before is not asked.
		b.Take("y.1", []Grant{{UUID: "GPU-2"}})
		d.set("GPU-2", func(s *State) { s.Processes = []Process{{PID: 1 << 30}} })
		if err := b.Begin(t.Context(), "y.1", true, nil); err != nil {
			t.Error(err)
		}
		b.lend("z.1", Request{Count: 1})
		d.mu.Lock()
		d.err = errors.New("no answer")
		d.mu.Unlock()
		if err := b.Begin(t.Context(), "z.1", false, nil); err == nil || !strings.Contains(err.Error(), "the driver does not answer: no answer") {
			t.Errorf("%v", err)
		}
	})
}

// TestFaults holds what reports of the driver do.
func TestFaults(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		fault       Fault
		recovery    string
		stops       bool
		broken      string
		after, then string
	}{
		"application":                   {Fault{Severity: Application, Text: "XID 31"}, "", false, "", "held", "free"},
		"broken":                        {Fault{Severity: Broken, Text: "XID 79"}, "restart the host", true, "GPU 0 (GPU-0): XID 79", "quarantined: XID 79", "quarantined: the driver wants to restart the host"},
		"broken, and it recovers":       {Fault{Severity: Broken, Text: "XID 95"}, "", true, "GPU 0 (GPU-0): XID 95", "quarantined: XID 95", "free"},
		"to be checked, and it is ill":  {Fault{Severity: Check, Text: "XID 48"}, "reset it", true, "GPU 0 (GPU-0): the driver wants to reset it", "quarantined: the driver wants to reset it", "quarantined"},
		"to be checked, and it is well": {Fault{Severity: Check, Text: "XID 74"}, "", false, "", "held", "free"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				d := eight()
				b := open(t, d, Config{})
				defer b.Close()
				b.lend("x.1", Request{Count: 1})
				stopped := make(chan bool, 10)
				if err := b.Begin(t.Context(), "x.1", false, func() { stopped <- true }); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				d.set("GPU-0", func(s *State) { s.Recovery = tt.recovery })
				tt.fault.GPU = "GPU-0"
				d.fault(tt.fault)
				synctest.Wait()
				if len(stopped) > 1 || (len(stopped) == 1) != tt.stops {
					t.Errorf("stopped %d times", len(stopped))
				}
				b.is("GPU-0", tt.after)
				r := b.End(t.Context(), "x.1", true)
				if r.Broken != tt.broken || len(r.Faults) != 1 || r.Faults[0].Text != tt.fault.Text {
					t.Errorf("%+v", r)
				}
				b.Return("x.1")
				if tt.broken != "" {
					synctest.Wait()
					b.is("GPU-0", "quarantined")
				}
				time.Sleep(time.Minute)
				synctest.Wait()
				b.is("GPU-0", tt.then)
			})
		})
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

// TestLateDriver has a driver that does not answer at first.
func TestLateDriver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := eight()
		d.err = errors.New("it hangs")
		b := open(t, d, Config{})
		defer b.Close()
		if got := b.Never(Request{Count: 1}); got != "lends no GPU: it hangs" {
			t.Errorf("%q", got)
		}
		d.mu.Lock()
		d.err = nil
		d.mu.Unlock()
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := b.lend("x.1", Request{Count: 8}); got != "0 1 2 3 4 5 6 7" {
			t.Errorf("%q", got)
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
