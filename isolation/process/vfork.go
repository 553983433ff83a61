package process

import (
	"runtime"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// step is one system call that a child makes between its birth and its program.
type step struct {
	trap uintptr
	args [6]uintptr
	// what names the step in an error.
	what string
	// use has the result of the latest step that uses none as the first argument.
	use bool
	// may says that it may fail.
	may bool
	// want is what it must return, where exact is set.
	want  uintptr
	exact bool
}

// child is a process to be born: its clone flags, its control group, and what it does before it is the program. The last
// step is execve.
type child struct {
	flags  uint64
	cgroup int // descriptor of a version 2 group to be born in, or -1
	key    key // for a thread that is filtered
	// files become its standard files in three steps, of which takes is the index of the first.
	files [3]int
	takes int
	steps []step
	keep  []any // what the steps point to
	// born, if not nil, is set to the PID as soon as there is a process; from Linux 5.5 on.
	born *atomic.Int32
	// failed is the index of the step that failed, errno its error; written by the child, whose memory is ours.
	failed int
	errno  syscall.Errno
}

// stepError says which step of a child failed.
type stepError struct {
	what  string
	step  uintptr // the number of the system call
	errno syscall.Errno
}

func (e *stepError) Error() string { return "cannot " + e.what + ": " + e.errno.Error() }
func (e *stepError) Unwrap() error { return e.errno }

// The runtime's own preparations for a fork, and for a system call that may take long. The runtime keeps these five for callers outside of the standard
// library (see the notes beside them, which name gVisor, and go.dev/issue/67401).
//
//go:linkname runtimeEnterSyscall runtime.entersyscall
func runtimeEnterSyscall()

//go:linkname runtimeExitSyscall runtime.exitsyscall
func runtimeExitSyscall()

//go:linkname runtimeBeforeFork syscall.runtime_BeforeFork
func runtimeBeforeFork()

//go:linkname runtimeAfterFork syscall.runtime_AfterFork
func runtimeAfterFork()

//go:linkname runtimeAfterForkInChild syscall.runtime_AfterForkInChild
func runtimeAfterForkInChild()

// vforkSyscall makes a system call that returns twice on one stack.
func vforkSyscall(trap, a1, a2, a6 uintptr) (r1, errno uintptr)

// cloneArgs are clone3's arguments, see clone(2).
type cloneArgs struct {
	flags, pidFD, childTID, parentTID, exitSignal, stack, stackSize, tls, setTID, setTIDSize, cgroup uint64
}

// birth is the reserved flag bits' part of clone flags: the child uses our memory, and we stand still until it is a program
// of its own or has ended.
const birth = unix.CLONE_VM | unix.CLONE_VFORK

// start gives birth to the child and returns its PID once its program runs.
func (c *child) start() (int, error) {
	args := &cloneArgs{flags: c.flags | birth | unix.CLONE_CLEAR_SIGHAND, exitSignal: uint64(syscall.SIGCHLD)}
	if c.born != nil {
		args.flags |= unix.CLONE_PARENT_SETTID
		args.parentTID = uint64(uintptr(unsafe.Pointer(c.born)))
	}
	if c.cgroup >= 0 {
		args.flags |= unix.CLONE_INTO_CGROUP
		args.cgroup = uint64(c.cgroup)
	}
	c.failed = -1
	// Without syscall.ForkLock, so that threads fork side by side: what it guards, descriptors between their birth and their
	// close-on-exec flag, is none of the Linux library's, and the child marks them all itself.
	pid, errno := vfork(unix.SYS_CLONE3, uintptr(unsafe.Pointer(args)), unsafe.Sizeof(*args), c)
	runtime.KeepAlive(args)
	runtime.KeepAlive(c.keep)
	if (errno == uintptr(unix.ENOSYS) || errno == uintptr(unix.EINVAL)) && c.cgroup < 0 {
		// A filter around us, or an old kernel, has no clone3, or one that clears no handlers (before Linux 5.5).
		pid, errno = vfork(unix.SYS_CLONE, uintptr(c.flags|birth)|uintptr(syscall.SIGCHLD), 0, c)
	}
	if errno != 0 {
		return 0, &stepError{what: "fork", step: unix.SYS_CLONE, errno: syscall.Errno(errno)}
	}
	if c.failed >= 0 {
		var status syscall.WaitStatus
		for {
			// Its own child, which the keeper knows nothing of; where that was quicker, there is nobody to wait for.
			if _, err := syscall.Wait4(int(pid), &status, 0, nil); err != syscall.EINTR { //nolint:forbidigo // see above
				break
			}
		}
		s := &c.steps[c.failed]
		return 0, &stepError{what: s.what, step: s.trap, errno: c.errno}
	}
	return int(pid), nil
}

// vfork clones and, in the child, walks the steps. Between the clone and the program the child must not allocate, grow
// its stack, take a lock or be instrumented: it makes system calls and nothing else. It is a function of its own, not
// inlined, so that what the child does to this frame does not matter to the parent, which leaves it at once.
//
// A child may be held up for long, by a file system that does not answer. To the runtime this thread is in a system call meanwhile, so that the others, and the
// collection of garbage, go on without it. So the child, which shares our memory with them, must not write pointers to it either.
//
//go:noinline
//go:norace
//go:nocheckptr
func vfork(trap, a1, a2 uintptr, c *child) (pid, errno uintptr) {
	var (
		i    int
		s    *step
		r    uintptr
		last uintptr
		e    syscall.Errno
	)
	runtimeEnterSyscall()
	runtimeBeforeFork()
	pid, errno = vforkSyscall(trap, a1, a2, uintptr(c.key))
	if errno != 0 || pid != 0 {
		runtimeAfterFork()
		runtimeExitSyscall()
		return pid, errno
	}
	if trap != unix.SYS_CLONE3 { // which has cleared the signals' handlers: the runtime does it one by one
		runtimeAfterForkInChild()
	}
	for i = range c.steps {
		s = &c.steps[i]
		if s.use {
			s.args[0] = last
		}
		r, _, e = syscall.RawSyscall6(s.trap, s.args[0], s.args[1], s.args[2], s.args[3], s.args[4], s.args[5])
		if (e != 0 && !s.may) || (s.exact && r != s.want) {
			c.failed, c.errno = i, e
			break
		}
		if !s.use {
			last = r
		}
	}
	for {
		_, _, _ = syscall.RawSyscall(unix.SYS_EXIT_GROUP, 253, 0, 0)
	}
}

// add appends a step that must succeed.
func (c *child) add(what string, trap uintptr, args ...uintptr) *step {
	s := step{trap: trap, what: what}
	copy(s.args[:], args)
	c.steps = append(c.steps, s)
	return &c.steps[len(c.steps)-1]
}

// keyed has the filter let the step pass.
func (s *step) keyed(c *child) { s.args[5] = uintptr(c.key) }

// text returns the address of a C string that lives as long as the child's steps.
func (c *child) text(s string) uintptr {
	b := append([]byte(s), 0)
	c.keep = append(c.keep, b)
	return uintptr(unsafe.Pointer(&b[0]))
}

// vector returns the address of a NULL-terminated array of C strings.
func (c *child) vector(list []string) uintptr {
	v := make([]*byte, len(list)+1)
	for i, s := range list {
		b := append([]byte(s), 0)
		v[i] = &b[0]
	}
	c.keep = append(c.keep, v)
	return uintptr(unsafe.Pointer(&v[0]))
}

// address returns the address of what p points to, which must be on the heap and lives as long as the child's steps.
func address[T any](c *child, p *T) uintptr {
	c.keep = append(c.keep, p)
	return uintptr(unsafe.Pointer(p))
}
