package rest

import (
	"bufio"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

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
