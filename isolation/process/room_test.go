package process

import (
	"os"
	"runtime"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/mayfly/mayfly/integration/need"
)

// TestRoomEmpty leaves one object after the other in an IPC namespace: each is seen, and that it has gone, too.
func TestRoomEmpty(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("it takes root to make namespaces")
	}
	runtime.LockOSThread() // for good: the thread ends with the test
	if err := unix.Unshare(unix.CLONE_NEWIPC); err != nil {
		need.Missing(t, "no IPC namespace can be made: %v", err)
	}
	r := &room{}
	if err := r.watch(); err != nil {
		t.Fatal(err)
	}
	defer r.close()
	if len(r.tables) != 3 || r.queues <= 0 {
		need.Missing(t, "this kernel has no System V objects, or no message queues: %+v", r)
	}
	call := func(trap uintptr, args ...uintptr) uintptr {
		t.Helper()
		args = append(args, 0, 0, 0, 0)
		n, _, errno := unix.Syscall6(trap, args[0], args[1], args[2], args[3], 0, 0)
		if errno != 0 {
			t.Fatalf("system call %d: %v", trap, errno)
		}
		return n
	}
	name := []byte("left\x00")
	at := uintptr(unsafe.Pointer(&name[0]))
	const create = unix.IPC_CREAT | 0o600
	for what, object := range map[string]struct {
		create func() uintptr
		remove func(id uintptr)
	}{
		"shared memory":    {func() uintptr { return call(unix.SYS_SHMGET, 0, 4096, create) }, func(id uintptr) { call(unix.SYS_SHMCTL, id, unix.IPC_RMID) }},
		"a message queue":  {func() uintptr { return call(unix.SYS_MSGGET, 0, create) }, func(id uintptr) { call(unix.SYS_MSGCTL, id, unix.IPC_RMID) }},
		"semaphores":       {func() uintptr { return call(unix.SYS_SEMGET, 0, 1, create) }, func(id uintptr) { call(unix.SYS_SEMCTL, id, 0, unix.IPC_RMID) }},
		"a queue of POSIX": {func() uintptr { return call(unix.SYS_MQ_OPEN, at, unix.O_CREAT|unix.O_RDWR, 0o600) }, func(fd uintptr) { unix.Close(int(fd)); call(unix.SYS_MQ_UNLINK, at) }},
	} {
		if !r.empty() {
			t.Errorf("before %s: it is not empty", what)
		}
		id := object.create()
		if r.empty() {
			t.Errorf("with %s: it is empty", what)
		}
		object.remove(id)
		if !r.empty() {
			t.Errorf("after %s: it is not empty", what)
		}
	}
	runtime.KeepAlive(name)
}
