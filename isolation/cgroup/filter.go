package cgroup

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The kernel asks the program of a version 2 group each time that a member opens or makes a device file. It is a list of comparisons,
// made of five different instructions and handed over by three forms of one system call. A library for that would bring a megabyte
// that nothing else here needs.

// instruction is one of the kernel's virtual machine: struct bpf_insn, on little-endian machines.
type instruction struct {
	code      uint8
	registers uint8 // the source in the upper half, the destination in the lower one
	offset    int16
	immediate int32
}

// The instructions that a filter is made of.
const (
	opLoad   = unix.BPF_LDX | unix.BPF_MEM | unix.BPF_W
	opAnd    = unix.BPF_ALU64 | unix.BPF_AND | unix.BPF_K
	opSet    = unix.BPF_ALU64 | unix.BPF_MOV | unix.BPF_K
	opUnless = unix.BPF_JMP | unix.BPF_JNE | unix.BPF_K
	opExit   = unix.BPF_JMP | unix.BPF_EXIT
)

// filter is the program that denies every access to the devices, and allows all else. What it is asked about is in struct
// bpf_cgroup_dev_ctx: the access with the kind of device in its lower half, the major and the minor number.
func filter(closed []Device) []instruction {
	const asked, kind, major, minor, verdict = 1, 2, 3, 4, 0
	list := []instruction{
		{code: opLoad, registers: asked<<4 | kind, offset: 0},
		{code: opAnd, registers: kind, immediate: 0xffff}, // the first kernels with such programs let nobody load a half
		{code: opLoad, registers: asked<<4 | major, offset: 4},
		{code: opLoad, registers: asked<<4 | minor, offset: 8},
	}
	for _, d := range closed {
		number := int32(unix.BPF_DEVCG_DEV_CHAR)
		if d.Block {
			number = unix.BPF_DEVCG_DEV_BLOCK
		}
		list = append(list, // each jump goes to the next device
			instruction{code: opUnless, registers: kind, offset: 4, immediate: number},
			instruction{code: opUnless, registers: major, offset: 3, immediate: int32(d.Major)},
			instruction{code: opUnless, registers: minor, offset: 2, immediate: int32(d.Minor)},
			instruction{code: opSet, registers: verdict, immediate: 0},
			instruction{code: opExit},
		)
	}
	return append(list, instruction{code: opSet, registers: verdict, immediate: 1}, instruction{code: opExit})
}

// license is what the kernel wants to hear of a program; this one uses nothing that asks for a certain one.
var license = []byte("Apache-2.0\x00")

// loadFilter hands a program to the kernel. It lives as long as its descriptor, or the groups that it is attached to.
func loadFilter(program []instruction) (fd int, err error) {
	// union bpf_attr of BPF_PROG_LOAD, as far as Linux 4.15 has it; what follows is zero. Pointers have 64 bits, as on all machines that
	// we are built for.
	attr := struct {
		kind, count      uint32
		program, license unsafe.Pointer
		level, size      uint32
		log              unsafe.Pointer
		version, flags   uint32
	}{kind: unix.BPF_PROG_TYPE_CGROUP_DEVICE, count: uint32(len(program)), program: unsafe.Pointer(&program[0]), license: unsafe.Pointer(&license[0])}
	once := func() error {
		var err error
		for range 10 { // a signal interrupts the examination of the program, and the Go runtime sends them
			if fd, err = bpf(unix.BPF_PROG_LOAD, unsafe.Pointer(&attr), unsafe.Sizeof(attr)); !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
				break
			}
		}
		return err
	}
	if err = once(); !errors.Is(err, unix.EPERM) {
		return fd, err
	}
	// Before Linux 5.11, programs count as locked memory of their user, of which even root may have little. The limit is set back at once,
	// for it is inherited by what we fork.
	var before unix.Rlimit
	if unix.Prlimit(0, unix.RLIMIT_MEMLOCK, &unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}, &before) == nil {
		err = once()
		_ = unix.Prlimit(0, unix.RLIMIT_MEMLOCK, &before, nil)
	}
	return fd, err
}

// attachment is union bpf_attr of BPF_PROG_ATTACH and BPF_PROG_DETACH.
type attachment struct{ group, program, kind, flags uint32 }

// attach has the program decide for the members of a group, in place of the one that did. What programs of the groups above deny stays
// denied.
func attach(group *os.File, program int) error {
	attr := attachment{group: uint32(group.Fd()), program: uint32(program), kind: unix.BPF_CGROUP_DEVICE}
	_, err := bpf(unix.BPF_PROG_ATTACH, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	return err
}

// detach takes a group's program away.
func detach(group *os.File) error {
	attr := attachment{group: uint32(group.Fd()), kind: unix.BPF_CGROUP_DEVICE}
	_, err := bpf(unix.BPF_PROG_DETACH, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	return err
}

// canFilter reports why programs cannot be had. To load one takes what it takes to attach it, and is a matter of microseconds.
func canFilter() error {
	fd, err := loadFilter(filter(nil))
	if err != nil {
		return fmt.Errorf("cannot filter the use of devices: %w", err)
	}
	return unix.Close(fd)
}

func bpf(command int, attr unsafe.Pointer, size uintptr) (int, error) {
	r, _, errno := unix.Syscall(unix.SYS_BPF, uintptr(command), uintptr(attr), size)
	if errno != 0 {
		return -1, os.NewSyscallError("bpf", errno)
	}
	return int(r), nil
}
