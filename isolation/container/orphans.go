package container

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// killOrphans kills what runs in a container's control groups. An engine that is killed while it starts a container does not know
// afterwards that it did, and leaves the processes be; the groups bear the container's id.
func killOrphans(id string) {
	if len(id) < idLength {
		return // a name, or nothing
	}
	for range 10 { // they may fork meanwhile
		found := false
		groups, _ := filepath.Glob("/proc/[0-9]*/cgroup")
		for _, path := range groups {
			text, err := os.ReadFile(path)
			if err != nil || !strings.Contains(string(text), id) {
				continue
			}
			if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path))); err == nil && pid != os.Getpid() {
				_ = syscall.Kill(pid, syscall.SIGKILL)
				found = true
			}
		}
		if !found {
			return
		}
	}
}

// idLength is the number of digits of a container's id.
const idLength = 64
