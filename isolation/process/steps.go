package process

import (
	"maps"
	"slices"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// openFiles is the soft limit of a program's open files: the traditional one, above which select(2) does not work. Programs
// that need more raise it themselves, up to the hard limit.
const openFiles = 1024

// oomScore is a program's oom_score_adj. When the host as a whole runs out of memory, workers go before its services.
const oomScore = "500"

// prepare fills in what a program's child does on its way: it joins, is separated, gives its rights up, takes its files, and
// becomes the program. Its order matters in many places; what must come before or after what is said beside each.
func (s *Spawner) prepare(c *child, p *Program, path string) {
	c.key = s.key
	// The thread that forks it blocks all signals meanwhile.
	c.add("let signals come", unix.SYS_RT_SIGPROCMASK, uintptr(sigSetmask), address(c, new(uint64)), 0, 8)
	// While it is root and sees the host.
	for _, f := range p.Join {
		zero := c.text("0") // ourselves
		st := c.add("join "+f.Name(), unix.SYS_WRITE, f.Fd(), zero, 1)
		st.want, st.exact = 1, true
	}
	c.add("begin a session", unix.SYS_SETSID)
	s.limits(c)
	if p.Private != nil {
		c.add("enter its mount namespace", unix.SYS_SETNS, p.Private.room.mounts.Fd(), unix.CLONE_NEWNS).keyed(c)
		c.add("enter its IPC namespace", unix.SYS_SETNS, p.Private.room.ipc.Fd(), unix.CLONE_NEWIPC).keyed(c)
	}
	if p.NoNetwork {
		c.flags |= unix.CLONE_NEWNET
		loopback(c)
	}
	s.renounce(c, p)
	// As its user, so that nothing is entered that the user may not enter.
	c.add("start in the working directory "+p.Dir, unix.SYS_CHDIR, c.text(p.Dir))
	// After the change of user, which clears it. The parent may have died before.
	c.add("die with the parent", unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, uintptr(syscall.SIGKILL))
	st := c.add("live with the parent", unix.SYS_GETPPID)
	st.want, st.exact = uintptr(s.pid), true
	if s.ruleset != nil {
		c.add("enter its landlock domain", unix.SYS_LANDLOCK_RESTRICT_SELF, s.ruleset.Fd(), 0)
	}
	if strings.Contains(p.Args[0], "/") { // else it was found
		c.add("find "+path, unix.SYS_FACCESSAT, cwd, c.text(path), unix.F_OK)
	}
	if s.desks != nil {
		// Up to here its files are ours. Of its own it gets the lowest ones: to copy all would take longer than all else where there are thousands.
		c.flags |= unix.CLONE_FILES
		c.add("leave our files", unix.SYS_CLOSE_RANGE, uintptr(s.low), uintptr(^uint32(0)), unix.CLOSE_RANGE_UNSHARE)
	}
	c.files, c.takes = p.Files, len(c.steps)
	for i, f := range p.Files {
		c.add("take its files", unix.SYS_DUP3, uintptr(f), uintptr(i), 0)
	}
	c.add("close our files", unix.SYS_CLOSE_RANGE, 3, uintptr(^uint32(0)), unix.CLOSE_RANGE_CLOEXEC).may = true // before Linux 5.11
	c.add("execute "+path, unix.SYS_EXECVE, c.text(path), c.vector(p.Args), c.vector(p.Env))
}

// sigSetmask is SIG_SETMASK of rt_sigprocmask(2), the same on all architectures that Go's Linux runs on but MIPS.
const sigSetmask = 2

// cwd is AT_FDCWD as an argument.
const cwd = ^uintptr(99)

// limits sets what processes have beside control groups.
func (s *Spawner) limits(c *child) {
	files := &unix.Rlimit{Cur: min(openFiles, s.files.Max), Max: s.files.Max}
	c.add("limit its open files", unix.SYS_PRLIMIT64, 0, unix.RLIMIT_NOFILE, address(c, files), 0)
	if !s.policy.Off {
		c.add("find its oom score", unix.SYS_OPENAT, cwd, c.text("/proc/self/oom_score_adj"), unix.O_WRONLY|unix.O_CLOEXEC).may = true
		st := c.add("set its oom score", unix.SYS_WRITE, 0, c.text(oomScore), uintptr(len(oomScore)))
		st.use, st.may = true, true
		st = c.add("close its oom score", unix.SYS_CLOSE, 0) // its files may be ours, see desks.go
		st.use, st.may = true, true
	}
}

// renounce gives up the rights of root.
func (s *Spawner) renounce(c *child, p *Program) {
	if !s.changesUser {
		return
	}
	uid, gid := s.policy.Users.Of(p.Place)
	groups := slices.Clone(s.policy.Users.Groups)
	if len(groups) == 0 {
		c.add("give up its groups", unix.SYS_SETGROUPS, 0, 0)
	} else {
		c.keep = append(c.keep, groups)
		c.add("take its groups", unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(unsafe.Pointer(&groups[0])))
	}
	c.add("take its group", unix.SYS_SETRESGID, uintptr(gid), uintptr(gid), uintptr(gid))
	c.add("take its user", unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid))
}

// ifreq is struct ifreq with flags, see netdevice(7).
type ifreq struct {
	name  [unix.IFNAMSIZ]byte
	flags uint16
	_     [22]byte
}

// loopback brings the loopback interface of a new network namespace up.
func loopback(c *child) {
	up := &ifreq{flags: unix.IFF_UP}
	copy(up.name[:], "lo")
	c.add("make a socket", unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	c.add("bring the loopback interface up", unix.SYS_IOCTL, 0, unix.SIOCSIFFLAGS, address(c, up)).use = true
	c.add("close the socket", unix.SYS_CLOSE, 0).use = true
}

// sorted are the paths, those above first.
func sorted(trees map[string]int) []string { return slices.Sorted(maps.Keys(trees)) }
