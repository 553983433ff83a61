package process

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"syscall"
	"unsafe"

	"github.com/elastic/go-seccomp-bpf"
	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// denied are system calls that a program has no business with on a shared host: they need a capability that it does not
// have, or open parts of the kernel that have let programs out before. What Docker's default profile denies was the guide
// (moby/profiles/seccomp); io_uring is denied for the same reason as there. Debugging one's own children stays allowed.
var denied = []string{
	"acct", "add_key", "adjtimex", "bpf", "chroot", "clock_adjtime", "clock_settime", "delete_module", "fanotify_init", "finit_module",
	"fsconfig", "fsmount", "fsopen", "fspick", "init_module", "io_uring_enter", "io_uring_register", "io_uring_setup",
	"kexec_file_load", "kexec_load", "keyctl", "lookup_dcookie", "mount", "mount_setattr", "move_mount", "name_to_handle_at",
	"open_by_handle_at", "open_tree", "perf_event_open", "pivot_root", "quotactl", "quotactl_fd", "reboot", "request_key",
	"setdomainname", "sethostname", "settimeofday", "swapoff", "swapon", "syslog", "umount2", "userfaultfd",
	"vhangup", "iopl", "ioperm", "_sysctl", "nfsservctl", "uselib", "ustat", "sysfs",
}

// namespaces are the clone flags that make a new namespace of any kind.
const namespaces = unix.CLONE_NEWCGROUP | unix.CLONE_NEWIPC | unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWPID |
	unix.CLONE_NEWTIME | unix.CLONE_NEWUSER | unix.CLONE_NEWUTS

// verdict is what a filter says of one system call.
type verdict int

const (
	allow  verdict = iota
	deny           // EPERM, as if a capability were missing
	absent         // ENOSYS, as if the kernel did not know it
	// separate looks at flags in the first argument: no new namespaces.
	separate
	// unlessKeyed is a bit beside these: calls that show the key are allowed.
	unlessKeyed verdict = 1 << 4
)

// key lets the child of a filtered thread make those calls that it needs before it is the program. No call has a use for the sixth
// argument that it is shown in, and none of the programs can know it: 64 random bits, in the memory of a process whose capabilities they
// lack. So the filter is made and translated by the kernel once for a thread, not for each program, which costs as much as all other
// parts of the sandbox together.
type key uint64

func newKey() key {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return key(binary.NativeEndian.Uint64(b[:]))
}

// filter is a seccomp program as the kernel takes it.
func filter(k key) ([]syscall.SockFilter, error) {
	native, err := arch.GetInfo("")
	if err != nil {
		return nil, fmt.Errorf("cannot make a system call filter: %w", err)
	}
	verdicts := map[int]verdict{}
	set := func(name string, v verdict) {
		if number, ok := native.SyscallNames[name]; ok { // not every architecture has every call
			verdicts[number] = v
		}
	}
	for _, name := range denied {
		set(name, deny)
	}
	set("unshare", separate)
	set("setns", deny|unlessKeyed)
	set("clone", separate|unlessKeyed)
	set("clone3", absent|unlessKeyed) // a filter cannot look into its arguments; the C libraries fall back to clone
	// The numbers are the native ones. Other system call tables of the same machine would be a way around them.
	program := []bpf.Instruction{
		bpf.LoadAbsolute{Off: 4, Size: 4}, // seccomp_data.arch, see seccomp(2)
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(native.ID), SkipTrue: 1},
		answer(absent),
		bpf.LoadAbsolute{Off: 0, Size: 4}, // seccomp_data.nr
		// x32 is a table of the native architecture, by a bit of the number (seccomp(2)). No other number is that large.
		bpf.JumpIf{Cond: bpf.JumpGreaterOrEqual, Val: x32, SkipFalse: 1},
		answer(absent),
	}
	raw, err := bpf.Assemble(append(program, tree(ranges(verdicts), k)...))
	if err != nil {
		return nil, fmt.Errorf("cannot make a system call filter: %w", err)
	}
	list := make([]syscall.SockFilter, len(raw))
	for i, r := range raw {
		list[i] = syscall.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	return list, nil
}

// x32 is __X32_SYSCALL_BIT.
const x32 = 1 << 30

// span is the system calls from one number up to the next span's, of one verdict.
type span struct {
	from    uint32
	verdict verdict
}

// ranges joins the numbers into spans; what is not named is allowed.
func ranges(verdicts map[int]verdict) []span {
	list := []span{{0, allow}}
	add := func(from int, v verdict) {
		last := &list[len(list)-1]
		switch {
		case last.verdict == v:
		case last.from == uint32(from):
			last.verdict = v
		default:
			list = append(list, span{uint32(from), v})
		}
	}
	for _, number := range slices.Sorted(maps.Keys(verdicts)) {
		add(number, verdicts[number])
		add(number+1, allow)
	}
	return list
}

// tree decides by bisection. The kernel runs a new filter once for each system call that there is, to find out which are always
// allowed, so its depth is what a program's start pays for; libseccomp's trees are there for the same reason.
func tree(list []span, k key) []bpf.Instruction {
	if len(list) == 1 {
		return leaf(list[0].verdict, k)
	}
	half := len(list) / 2
	low, high := tree(list[:half], k), tree(list[half:], k)
	// A conditional jump reaches 255 instructions only; the other one any distance.
	return slices.Concat([]bpf.Instruction{bpf.JumpIf{Cond: bpf.JumpGreaterOrEqual, Val: list[half].from, SkipFalse: 1}, bpf.Jump{Skip: uint32(len(low))}}, low, high)
}

func leaf(v verdict, k key) []bpf.Instruction {
	if v&unlessKeyed != 0 {
		return append([]bpf.Instruction{
			bpf.LoadAbsolute{Off: sixthArgument, Size: 4},
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(k), SkipFalse: 3},
			bpf.LoadAbsolute{Off: sixthArgument + 4, Size: 4},
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(k >> 32), SkipFalse: 1},
			answer(allow),
		}, leaf(v&^unlessKeyed, k)...)
	}
	if v != separate {
		return []bpf.Instruction{answer(v)}
	}
	return []bpf.Instruction{
		bpf.LoadAbsolute{Off: firstArgument, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: namespaces, SkipFalse: 1},
		answer(deny),
		answer(allow),
	}
}

// These are where the lower halves of seccomp_data.args lie on the machines that we are built for, which are little-endian.
const (
	firstArgument = 16
	sixthArgument = 56
)

// install filters the calling thread, and all that it forks.
func install(list []syscall.SockFilter) error {
	program := &syscall.SockFprog{Len: uint16(len(list)), Filter: &list[0]}
	_, _, errno := syscall.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(program)))
	if errno != 0 {
		return fmt.Errorf("cannot filter system calls: %w", errno)
	}
	return nil
}

func answer(v verdict) bpf.Instruction {
	switch v {
	case deny:
		return bpf.RetConstant{Val: uint32(seccomp.ActionErrno) | uint32(unix.EPERM)}
	case absent:
		return bpf.RetConstant{Val: uint32(seccomp.ActionErrno) | uint32(unix.ENOSYS)}
	}
	return bpf.RetConstant{Val: uint32(seccomp.ActionAllow)}
}
