package gpu

import (
	"context"
	"errors"
	"log/slog"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

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
		// Nor let go of when it is to be stopped: that is its runner's to do.
		over, end := context.WithCancel(t.Context())
		end()
		if err := b.Begin(over, "y.1", true, nil); err != nil {
			t.Errorf("one that runs, and is to be stopped: %v", err)
		}
		b.lend("z.1", Request{Count: 1})
		if err := b.Begin(over, "z.1", false, nil); !errors.Is(err, context.Canceled) {
			t.Errorf("one that is stopped before it runs: %v", err)
		}
		d.mu.Lock()
		d.err = errors.New("no answer")
		d.mu.Unlock()
		if err := b.Begin(t.Context(), "z.1", false, nil); err == nil || !strings.Contains(err.Error(), "the driver does not answer: no answer") {
			t.Errorf("%v", err)
		}
	})
}

// TestBeginBesideEarlier has a holder begin on a GPU that it shares with one of an earlier life, whose first process is not known yet: what
// that one runs there is no stranger.
func TestBeginBesideEarlier(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := eight()
		b := open(t, d, Config{Shared: true})
		defer b.Close()
		b.Take("old.1", []Grant{{UUID: "GPU-0", Share: 10 << 30}})
		d.set("GPU-0", func(s *State) { s.Processes = []Process{{PID: 1 << 30, Memory: 1 << 30}} })
		if got := b.lend("new.1", Request{Count: 1, Memory: 10 << 30}); got != "0" {
			t.Fatalf("lent %q", got)
		}
		if err := b.Begin(t.Context(), "new.1", false, nil); err != nil {
			t.Error(err)
		}
		b.is("GPU-0", "held")
		b.Started("old.1", 1<<30)
		if got := b.lend("newer.1", Request{Count: 1, Memory: 10 << 30}); got != "0" {
			t.Fatalf("lent %q", got)
		}
		if err := b.Begin(t.Context(), "newer.1", false, nil); err != nil {
			t.Errorf("once it is known: %v", err)
		}
		if got := b.lend("last.1", Request{Count: 1, Memory: 10 << 30}); got != "0" {
			t.Fatalf("lent %q", got)
		}
		d.set("GPU-0", func(s *State) { s.Processes = append(s.Processes, Process{PID: 1<<30 + 1}) })
		if err := b.Begin(t.Context(), "last.1", false, nil); err == nil {
			t.Error("a stranger is not seen any more")
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
