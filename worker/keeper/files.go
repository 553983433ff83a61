package keeper

import (
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	// filesKept is how many files may be open for a program: three or four for itself (its pipes, its file system, the peak of its memory), the others (namespaces, control
	// groups) for the next one.
	filesKept = 20
	// filesBorn is how many are while it is being born. Where there are less than filesEach for each, fewer are born at once.
	filesBorn, filesEach = 28, 128
	// birthsMax is how many programs are prepared at once. Some may wait for the disk.
	birthsMax = 2 * spawners
	// keptMax is of how many programs that run side by side the latter are kept at most. Where there are more, most of them run for long, and need not be born fast.
	keptMax = 512
)

// places says how many programs are prepared at once, and of how many places namespaces and groups are kept, with so many files that may be open: half of what births
// leave is for the other programs.
func places(files uint64) (births, kept int) {
	most := int(min(files, 1<<30))
	births = min(birthsMax, max(1, most/filesEach))
	return births, min(max(0, most-births*filesBorn)/2/filesKept, keptMax)
}

// filesMost is how many files the keeper may open.
func filesMost() uint64 {
	var limit unix.Rlimit
	_ = unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) // never fails
	return limit.Cur
}

// raiseFiles lets the keeper open as many files as the kernel allows one process (fs.nr_open in proc_sys_fs(5)). It takes a right that root has, but not in every container; who
// has it not keeps the limit. Programs do not inherit it.
func raiseFiles() {
	text, _ := os.ReadFile("/proc/sys/fs/nr_open")
	most, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		return
	}
	_ = unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: most, Max: most})
}
