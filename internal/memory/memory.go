// Package memory keeps a process small while it has nothing to do, and out of the garbage collector's hands while it has.
//
// # Theory of operation
//
// What a process has once touched of its program and its heap stays resident, though it may never need it again: of a Go program with large
// libraries most of its start. So when nothing has stirred for a while (Rest), the garbage is collected and given to the system, and the pages of the
// program and its libraries are unmapped (Trim); those that are still needed come back from the page cache, a fraction of a microsecond each. While a
// process stirs without pause it costs a look at the clock, and when it rests there is no timer.
//
// The collector lets the heap grow by a share of what is live. Of a heap of a few megabytes that is little, and a busy process would collect
// all the time. As its garbage goes when it rests, it may have some: Leeway sets the share so that the collector comes no earlier
// than after so many bytes.
package memory

import (
	"bufio"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Rest has something done whenever nothing has stirred for a while.
type Rest struct {
	quiet time.Duration
	do    func()
	last  atomic.Int64 // in nanoseconds since began
	began time.Time
	armed atomic.Bool
}

// NewRest returns a Rest that calls do when nothing has stirred for so long.
func NewRest(quiet time.Duration, do func()) *Rest {
	return &Rest{quiet: quiet, do: do, began: time.Now()}
}

// Stir says that there is something to do. It is cheap. A nil Rest takes no notice.
func (r *Rest) Stir() {
	if r == nil {
		return
	}
	r.last.Store(int64(time.Since(r.began)))
	if r.armed.CompareAndSwap(false, true) {
		time.AfterFunc(r.quiet, r.look)
	}
}

func (r *Rest) look() {
	if left := r.quiet - (time.Since(r.began) - time.Duration(r.last.Load())); left > 0 {
		time.AfterFunc(left, r.look)
		return
	}
	r.armed.Store(false)
	r.do()
}

// Trim gives back what memory can be spared: garbage, and pages of programs and libraries, which are their files'.
func Trim() {
	debug.FreeOSMemory()
	maps, err := os.Open("/proc/self/smaps")
	if err != nil {
		return
	}
	defer maps.Close()
	for _, r := range spare(maps) {
		// A kernel that does not do it has lost nothing.
		_, _, _ = unix.Syscall(unix.SYS_MADVISE, r.from, r.size, unix.MADV_DONTNEED)
	}
}

// area is a part of the address space, in bytes.
type area struct{ from, size uintptr }

// spare reads proc_pid_smaps(5), and lists the parts that can be read again from their files: those that nothing can be written to, and to
// which nothing was written before that, as the linker does with the tables of a program's imports.
func spare(maps io.Reader) (list []area) {
	var next area
	for lines := bufio.NewScanner(maps); lines.Scan(); {
		// 00400000-00452000 r-xp 00000000 08:02 173521      /usr/bin/program
		// Anonymous:             0 kB
		f := strings.Fields(lines.Text())
		switch {
		case len(f) >= 5 && strings.Contains(f[0], "-"):
			next = area{}
			low, high, _ := strings.Cut(f[0], "-")
			from, err := strconv.ParseUint(low, 16, 64)
			to, err2 := strconv.ParseUint(high, 16, 64)
			if err == nil && err2 == nil && len(f) > 5 && strings.HasPrefix(f[5], "/") && strings.HasPrefix(f[1], "r-") {
				next = area{uintptr(from), uintptr(to - from)}
			}
		case len(f) == 3 && f[0] == "Anonymous:" && f[1] == "0" && next.size > 0:
			list = append(list, next)
		}
	}
	return list
}

// least is the smallest growth of the heap in percent before it is collected, most the largest.
const (
	least = 50
	most  = 1000
)

// Leeway has the garbage collector come after so many bytes of garbage at the earliest, or when the heap has grown by half, whichever is more. It is for the
// whole process and its life.
func Leeway(bytes uint64) {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	last := share(m.HeapAlloc, bytes)
	debug.SetGCPercent(last)
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	var collected func(struct{})
	again := func() { // what is garbage at once tells of the next collection
		type sentinel struct{ _ [16]byte }
		runtime.AddCleanup(&sentinel{}, collected, struct{}{})
	}
	collected = func(struct{}) {
		metrics.Read(sample)
		if next := share(sample[0].Value.Uint64(), bytes); next < last*3/4 || next > last*4/3 { // to set it stops the world
			last = next
			debug.SetGCPercent(next)
		}
		again()
	}
	again()
}

// share is how many percent of the live heap so many bytes are, within bounds.
func share(live, bytes uint64) int { return int(min(most, max(least, bytes*100/max(live, 1)))) }
