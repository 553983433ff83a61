package keeper

import (
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// raiseFiles lets the keeper open as many files as the kernel allows one process (fs.nr_open in proc_sys_fs(5)): it holds some seventeen for each program, and a usual limit would
// be reached with a thousand of those. It takes a right that root has, but not in every container; who has it not keeps the limit. Programs do not inherit it.
func raiseFiles() {
	text, _ := os.ReadFile("/proc/sys/fs/nr_open")
	most, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		return
	}
	_ = unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: most, Max: most})
}
