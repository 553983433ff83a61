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
	// keptMax is of how many programs that run side by side the latter are kept at most. Where there are more, most of them run for long, and need not be born fast.
	keptMax = 512
)

// keptPlaces says of how many places namespaces and groups are kept: half of all files are left to the other programs.
func keptPlaces() int {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 0 // which never fails
	}
	return min(max(0, int(min(limit.Cur, 1<<30))-births*filesKept)/2/filesKept, keptMax)
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
