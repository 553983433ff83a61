package gpu

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// processes looks at the host's processes.
type processes struct {
	root string
	own  string // the control groups that we are in
	// numbered says that PIDs here are the host's, as the driver's are.
	numbered bool
}

// initialPIDs is the inode of the host's own PID namespace (PROC_PID_INIT_INO in the kernel's include/linux/proc_ns.h).
const initialPIDs = "pid:[4026531836]"

func procFS(root string) processes {
	p := processes{root: root}
	p.own = p.groups(os.Getpid())
	space, _ := os.Readlink(filepath.Join(root, "self/ns/pid"))
	p.numbered = space == initialPIDs
	return p
}

func (p processes) read(pid int, file string) string {
	text, _ := os.ReadFile(filepath.Join(p.root, strconv.Itoa(pid), file))
	return string(text)
}

// stat returns a process's state, session and start time, see proc(5); ok is false where there is no such process, or none that can be
// seen from here.
func (p processes) stat(pid int) (state byte, session int, start uint64, ok bool) {
	text := p.read(pid, "stat")
	end := strings.LastIndexByte(text, ')')
	if end < 0 {
		return 0, 0, 0, false
	}
	f := strings.Fields(text[end+1:])
	if len(f) < 20 {
		return 0, 0, 0, false
	}
	session, _ = strconv.Atoi(f[3])
	start, _ = strconv.ParseUint(f[19], 10, 64)
	return f[0][0], session, start, true
}

// resident names a process for good.
func (p processes) resident(pid int) resident {
	_, _, start, _ := p.stat(pid)
	return resident{pid, start}
}

// name is a process's, as "python3 (PID 123)".
func (p processes) name(pid int) string {
	if name := strings.TrimSpace(p.read(pid, "comm")); name != "" {
		return name + " (PID " + strconv.Itoa(pid) + ")"
	}
	return "PID " + strconv.Itoa(pid)
}

// groups are the control groups that a process is in.
func (p processes) groups(pid int) string { return p.read(pid, "cgroup") }

// within reports whether the process of one set of groups is in, or below, those of another.
func within(groups, of string) bool {
	if of == "" || groups == "" {
		return false
	}
	have := map[string]string{}
	for line := range strings.Lines(groups) {
		if f := strings.SplitN(strings.TrimSpace(line), ":", 3); len(f) == 3 {
			have[f[1]] = f[2]
		}
	}
	for line := range strings.Lines(of) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) != 3 {
			continue
		}
		if rest, ok := strings.CutPrefix(have[f[1]], strings.TrimSuffix(f[2], "/")); !ok || rest != "" && rest[0] != '/' {
			return false
		}
	}
	return true
}

// kill ends a process on a device with these files. It reports false for one that we must not, or cannot see. In a container the driver's PIDs
// may be others than ours: there, only who has one of the files open is meant.
func (p processes) kill(pid int, files []File) bool {
	_, _, _, ok := p.stat(pid)
	return ok && pid > 1 && pid != os.Getpid() && pid != os.Getppid() && (p.numbered || p.opened(pid, files)) && syscall.Kill(pid, syscall.SIGKILL) == nil
}

// opened reports whether a process has one of the device files open.
func (p processes) opened(pid int, files []File) bool {
	dir := filepath.Join(p.root, strconv.Itoa(pid), "fd")
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		var st unix.Stat_t
		if unix.Stat(filepath.Join(dir, e.Name()), &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFCHR {
			continue
		}
		if slices.ContainsFunc(files, func(f File) bool { return f.Major == unix.Major(st.Rdev) && f.Minor == unix.Minor(st.Rdev) }) {
			return true
		}
	}
	return false
}
