package process

import (
	"encoding/binary"
	"testing"

	"github.com/elastic/go-seccomp-bpf"
	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// TestFilter runs the filter on every system call that there is.
func TestFilter(t *testing.T) {
	t.Parallel()
	list, err := filter()
	if err != nil {
		t.Fatal(err)
	}
	var program []bpf.Instruction
	for _, f := range list {
		i := bpf.RawInstruction{Op: f.Code, Jt: f.Jt, Jf: f.Jf, K: f.K}.Disassemble()
		program = append(program, i)
	}
	vm, err := bpf.NewVM(program)
	if err != nil {
		t.Fatal(err)
	}
	native, err := arch.GetInfo("")
	if err != nil {
		t.Fatal(err)
	}
	run := func(number, architecture int, argument uint64) seccomp.Action {
		// The virtual machine reads packets, which are big-endian; the kernel, its own words.
		data := make([]byte, 64)
		binary.BigEndian.PutUint32(data[0:], uint32(number))
		binary.BigEndian.PutUint32(data[4:], uint32(architecture))
		binary.BigEndian.PutUint32(data[16:], uint32(argument))
		n, err := vm.Run(data)
		if err != nil {
			t.Fatal(err)
		}
		return seccomp.Action(uint32(n))
	}
	eperm, enosys := seccomp.ActionErrno|seccomp.Action(unix.EPERM), seccomp.ActionErrno|seccomp.Action(unix.ENOSYS)
	want := map[int]seccomp.Action{native.SyscallNames["clone3"]: enosys}
	for _, name := range denied {
		if number, ok := native.SyscallNames[name]; ok {
			want[number] = eperm
		}
	}
	for number := range 600 {
		expected, ok := want[number]
		if !ok {
			expected = seccomp.ActionAllow
		}
		if got := run(number, int(native.ID), 0); got != expected {
			t.Errorf("system call %d: %#x, want %#x", number, got, expected)
		}
		if got := run(number, int(native.ID)^1, 0); got != enosys {
			t.Errorf("system call %d of another table: %#x", number, got)
		}
	}
	for _, name := range []string{"clone", "unshare"} {
		for _, flag := range []uint64{unix.CLONE_NEWUSER, unix.CLONE_NEWNS, unix.CLONE_NEWNET | unix.CLONE_VM} {
			if got := run(native.SyscallNames[name], int(native.ID), flag); got != eperm {
				t.Errorf("%s with %#x: %#x", name, flag, got)
			}
		}
		if got := run(native.SyscallNames[name], int(native.ID), unix.CLONE_VM|unix.CLONE_THREAD|0x11); got != seccomp.ActionAllow {
			t.Errorf("%s of a thread: %#x", name, got)
		}
	}
	if len(list) > 300 {
		t.Errorf("%d instructions", len(list))
	}
}
