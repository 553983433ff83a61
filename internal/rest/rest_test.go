package rest

import (
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mayfly/mayfly/integration/need"
)

// TestRest counts the rests: one when nothing has stirred for long enough, none while something does, and no timer after it; and the ends of them.
func TestRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var rests, ends atomic.Int32
		r := New(5*time.Second, func() { rests.Add(1) }, func() { ends.Add(1) })
		for range 10 {
			r.Stir()
			time.Sleep(3 * time.Second)
		}
		if rests.Load() != 0 || ends.Load() != 0 {
			t.Errorf("%d rests, %d ends while it stirs", rests.Load(), ends.Load())
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if rests.Load() != 1 || ends.Load() != 0 {
			t.Errorf("%d rests, %d ends", rests.Load(), ends.Load())
		}
		r.Stir()
		if ends.Load() != 1 {
			t.Errorf("%d ends once it stirs", ends.Load())
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if rests.Load() != 2 || ends.Load() != 1 {
			t.Errorf("%d rests, %d ends", rests.Load(), ends.Load())
		}
		(*Rest)(nil).Stir()
		without := New(time.Second, func() { rests.Add(1) }, nil)
		for range 2 {
			without.Stir()
			time.Sleep(time.Minute)
			synctest.Wait()
		}
		if rests.Load() != 4 {
			t.Errorf("%d rests", rests.Load())
		}
	})
}

// TestSlack looks at the timers of all threads.
func TestSlack(t *testing.T) {
	if os.Geteuid() != 0 {
		need.Missing(t, "it takes root to tell other threads")
	}
	slacks := func() (all []string) {
		t.Helper()
		threads, err := os.ReadDir("/proc/self/task")
		if err != nil {
			t.Fatal(err)
		}
		for _, thread := range threads {
			if text, err := os.ReadFile("/proc/" + thread.Name() + "/timerslack_ns"); err == nil {
				all = append(all, strings.TrimSpace(string(text)))
			}
		}
		return slices.Compact(all)
	}
	before := slacks()
	Slacken()
	if got := slacks(); !slices.Equal(got, []string{"20000000"}) {
		t.Errorf("at rest: %v", got)
	}
	Tighten()
	if got := slacks(); !slices.Equal(got, before) || len(got) != 1 {
		t.Errorf("after it: %v, before: %v", got, before)
	}
}

// TestSpare tells what can be read again from what cannot: where something was written, though nothing can be any more.
func TestSpare(t *testing.T) {
	const maps = `00400000-00411000 r--p 00000000 08:02 173521   /usr/bin/a program
Size:                 68 kB
Anonymous:             0 kB
VmFlags: rd mr mw me
00411000-00c9f000 r-xp 00011000 08:02 173521   /usr/bin/a program
Anonymous:             0 kB
016ab000-016ac000 r--p 012ab000 08:02 173521   /usr/bin/a program
Anonymous:             4 kB
016ac000-01780000 rw-p 012ac000 08:02 173521   /usr/bin/a program
Anonymous:             0 kB
3324a5400000-3324a5c00000 r--p 00000000 00:00 0
Anonymous:             0 kB
7f0000000000-7f0000002000 r--s 00000000 08:02 99   /var/lib/mayfly/history.db
Anonymous:             0 kB
7ffd5d1f8000-7ffd5d219000 r-xp 00000000 00:00 0    [vdso]
Anonymous:             0 kB
`
	want := []area{{0x400000, 0x11000}, {0x411000, 0x88e000}, {0x7f0000000000, 0x2000}}
	if got := spare(strings.NewReader(maps)); !slices.Equal(got, want) {
		t.Errorf("%x, want %x", got, want)
	}
}

// TestTrim looks at what of the program is resident.
func TestTrim(t *testing.T) {
	resident := func() int {
		text, err := os.ReadFile("/proc/self/status")
		if err != nil {
			t.Fatal(err)
		}
		_, after, ok := strings.Cut(string(text), "RssFile:")
		n, err := strconv.Atoi(strings.Fields(after + " x")[0])
		if !ok || err != nil {
			t.Fatalf("no RssFile in %s", text)
		}
		return n
	}
	before := resident()
	Trim()
	if after := resident(); after > before*3/4 {
		t.Errorf("%d KiB of files resident, %d before", after, before)
	}
}

func TestShare(t *testing.T) {
	for live, want := range map[uint64]int{0: 1000, 1 << 20: 1000, 4 << 20: 400, 16 << 20: 100, 1 << 30: 50} {
		if got := share(live, 16<<20); got != want {
			t.Errorf("%d MiB live: %d %%, want %d", live>>20, got, want)
		}
	}
}

var sink []byte

// TestLeeway makes garbage and counts how often it is collected.
func TestLeeway(t *testing.T) {
	collections := func() uint32 {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		for range 64 << 4 {
			sink = make([]byte, 64<<10) // 64 MiB in all
		}
		runtime.ReadMemStats(&after)
		return after.NumGC - before.NumGC
	}
	defer debug.SetGCPercent(debug.SetGCPercent(50))
	often := collections()
	Leeway(32 << 20)
	if n := collections(); n > 3 || n*3 > often {
		t.Errorf("%d collections, %d before", n, often)
	}
}
