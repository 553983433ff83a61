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
	secret := key(0x1234_5678_9abc_def0)
	list, err := filter(secret)
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
	run := func(number, architecture int, first uint64, sixth key) seccomp.Action {
		// The virtual machine reads packets, which are big-endian; the kernel, its own words.
		data := make([]byte, 64)
		binary.BigEndian.PutUint32(data[0:], uint32(number))
		binary.BigEndian.PutUint32(data[4:], uint32(architecture))
		binary.BigEndian.PutUint32(data[16:], uint32(first))
		binary.BigEndian.PutUint32(data[56:], uint32(sixth))
		binary.BigEndian.PutUint32(data[60:], uint32(sixth>>32))
		n, err := vm.Run(data)
		if err != nil {
			t.Fatal(err)
		}
		return seccomp.Action(uint32(n))
	}
	eperm, enosys := seccomp.ActionErrno|seccomp.Action(unix.EPERM), seccomp.ActionErrno|seccomp.Action(unix.ENOSYS)
	want := map[int]seccomp.Action{native.SyscallNames["clone3"]: enosys, native.SyscallNames["setns"]: eperm}
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
		if got := run(number, int(native.ID), 0, 0); got != expected {
			t.Errorf("system call %d: %#x, want %#x", number, got, expected)
		}
		if got := run(number, int(native.ID)^1, 0, secret); got != enosys {
			t.Errorf("system call %d of another table: %#x", number, got)
		}
	}
	for _, name := range []string{"unshare", "setns", "clone3", "mount", "keyctl"} {
		if got := run(1<<30|native.SyscallNames[name], int(native.ID), unix.CLONE_NEWUSER, 0); got != enosys {
			t.Errorf("%s of the table x32: %#x", name, got)
		}
	}
	for _, name := range []string{"clone", "unshare"} {
		for _, flag := range []uint64{unix.CLONE_NEWUSER, unix.CLONE_NEWNS, unix.CLONE_NEWNET | unix.CLONE_VM} {
			if got := run(native.SyscallNames[name], int(native.ID), flag, secret-1); got != eperm {
				t.Errorf("%s with %#x: %#x", name, flag, got)
			}
		}
		if got := run(native.SyscallNames[name], int(native.ID), unix.CLONE_VM|unix.CLONE_THREAD|0x11, 0); got != seccomp.ActionAllow {
			t.Errorf("%s of a thread: %#x", name, got)
		}
	}
	for name, locked := range map[string]seccomp.Action{"setns": eperm, "clone": eperm, "clone3": enosys} {
		if got := run(native.SyscallNames[name], int(native.ID), unix.CLONE_NEWNET, secret); got != seccomp.ActionAllow {
			t.Errorf("%s with the key: %#x", name, got)
		}
		for _, wrong := range []key{0, secret ^ 1, secret ^ 1<<63, secret & 0xffff_ffff, secret &^ 0xffff_ffff, secret>>32 | secret<<32} {
			if got := run(native.SyscallNames[name], int(native.ID), unix.CLONE_NEWNET, wrong); got != locked {
				t.Errorf("%s with %#x for the key: %#x", name, wrong, got)
			}
		}
	}
	for _, name := range []string{"mount", "unshare", "bpf"} {
		if got := run(native.SyscallNames[name], int(native.ID), unix.CLONE_NEWNET, secret); got != eperm {
			t.Errorf("%s with the key: %#x", name, got)
		}
	}
	if len(list) > 300 {
		t.Errorf("%d instructions", len(list))
	}
}
