package keeper

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mayfly/mayfly/isolation"
	"github.com/mayfly/mayfly/isolation/process"
)

// TestPlaceNotLent has the keeper fail before a program has a place, while another one has the first: that is not given back for it.
func TestPlaceNotLent(t *testing.T) {
	t.Parallel()
	b := sandboxed(t, nil)
	b.beside([]isolation.Spec{b.confined("first", "id -u; exec sleep 600")}, func() {
		broken := b.confined("broken", "true")
		broken.Stdin = "/no/such/file"
		if _, err := b.Run(t.Context(), broken, nil); err == nil {
			t.Error("a program began without its standard input")
		}
		if _, out := b.shell("second", "id -u"); out == b.read("first.out") {
			t.Errorf("two programs that run beside each other have the user %s", out)
		}
	})
}

// passRoot sends its root directory to who listens in a directory, as a program that wants to be remembered.
func passRoot(dir string) {
	root, err := unix.Open("/", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		fmt.Println(err)
		return
	}
	conn, err := net.Dial("unix", filepath.Join(dir, "socket"))
	if err != nil {
		fmt.Println(err)
		return
	}
	_, _, err = conn.(*net.UnixConn).WriteMsgUnix([]byte("/"), unix.UnixRights(root), nil)
	fmt.Println("passed", err)
	_, _ = conn.Read(make([]byte, 1)) // until it is taken
}

// takeRoot takes such a directory, waits until another program is there, and says what it can do there.
func takeRoot(dir string) {
	l, err := net.Listen("unix", filepath.Join(dir, "socket"))
	if err == nil {
		err = os.Chmod(filepath.Join(dir, "socket"), 0o777)
	}
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("up")
	conn, err := l.Accept()
	if err != nil {
		fmt.Println(err)
		return
	}
	oob := make([]byte, 64)
	_, n, _, _, err := conn.(*net.UnixConn).ReadMsgUnix(make([]byte, 1), oob)
	conn.Close()
	var fds []int
	if messages, _ := unix.ParseSocketControlMessage(oob[:n]); len(messages) > 0 {
		fds, _ = unix.ParseUnixRights(&messages[0])
	}
	if len(fds) == 0 {
		fmt.Println("no directory came:", err)
		return
	}
	for ; ; time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(filepath.Join(dir, "look")); err == nil {
			break
		}
	}
	for _, place := range []string{"tmp", "var/tmp", "dev/shm"} {
		for what, flags := range map[string]int{"secret": unix.O_RDONLY, "planted": unix.O_CREAT | unix.O_WRONLY} {
			fd, err := unix.Openat(fds[0], place+"/"+what, flags, 0o644)
			if fmt.Println(place, what, err); err == nil {
				unix.Close(fd)
			}
		}
		if fd, err := unix.Openat(fds[0], place, unix.O_RDONLY|unix.O_DIRECTORY, 0); err == nil {
			names, _ := os.NewFile(uintptr(fd), place).Readdirnames(-1)
			fmt.Println(place, "lists", names)
		}
	}
	fmt.Println("looked")
}

// TestNextIsAlone has a program pass its root directory to one beside it. The next program of its place may have the same file systems: the
// other one must get at nothing of it, also where all have one user.
func TestNextIsAlone(t *testing.T) {
	t.Parallel()
	for name, users := range map[string]uint32{"users of their own": process.DefaultUsers.Count, "one user": 1} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			nextIsAlone(t, users)
		})
	}
}

func nextIsAlone(t *testing.T, users uint32) {
	shared := t.TempDir()
	text, err := os.ReadFile("/proc/self/exe")
	if err == nil {
		err = os.WriteFile(filepath.Join(shared, "program"), text, 0o755)
	}
	if err == nil {
		err = os.Chmod(shared, 0o777)
	}
	if err != nil {
		t.Fatal(err)
	}
	b := sandboxed(t, func(p *process.Policy) { p.Writable, p.Users.Count = []string{shared}, users })
	role := func(name string) isolation.Spec {
		s := b.confined(name, "")
		s.Args, s.Env = []string{filepath.Join(shared, "program"), shared}, append(s.Env, "KEEPER_TEST_ROLE="+name)
		s.Limits.Memory = 512 << 20 // which the test's program takes, with its race detector
		return s
	}
	b.beside([]isolation.Spec{role("taker")}, func() {
		if e := b.run(role("passer")); e.Code != 0 || b.read("passer.out") != "passed <nil>\n" {
			t.Errorf("%+v: %s%s", e, b.read("passer.out"), b.read("passer.err"))
		}
		e, out := b.shell("victim", `for d in /tmp /var/tmp /dev/shm; do echo x >$d/secret; done; touch `+shared+`/look
			while ! test -e `+shared+`/looked; do sleep 0.01; done; ls /tmp /var/tmp /dev/shm`, func(s *isolation.Spec) {
			s.Limits.Memory = 512 << 20
			go func() {
				b.until("it has looked", func() bool { return strings.HasSuffix(b.read("taker.out"), "looked\n") })
				_ = os.WriteFile(filepath.Join(shared, "looked"), nil, 0o644)
			}()
		})
		if e.Code != 0 || strings.Contains(out, "planted") {
			t.Errorf("the next one found %q, %+v", out, e)
		}
		if said := b.read("taker.out"); strings.Contains(said, "secret <nil>") || strings.Contains(said, "[secret") || strings.Contains(said, "secret]") || !strings.Contains(said, "dev/shm secret ") {
			t.Errorf("the other one could do this: %s", said)
		}
	})
}

// TestIgnoredSignals has the keeper be started with signals ignored, as by nohup, or in the background of a script: its programs are not. Nor do they block any.
func TestIgnoredSignals(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.config.Argv = []string{"sh", "-c", `trap "" HUP INT QUIT PIPE USR1 TERM; exec "$@"`, "sh", fmt.Sprintf("/proc/%d/exe", os.Getpid())}
	spec := b.spec("p", "")
	spec.Args = []string{"sed", "-n", `s/^Sig\(Blk\|Ign\):\t//p`, "/proc/self/status"} // a shell would unblock them
	b.run(spec)
	blocked, rest, _ := strings.Cut(b.read("p.out"), "\n")
	ignored, err := strconv.ParseUint(strings.TrimSpace(rest), 16, 64)
	const inner = 1<<31 | 1<<32 // signals 32 and 33 are the C library's own, which make ignores
	if err != nil || ignored&^inner != 0 || blocked != "0000000000000000" {
		t.Errorf("ignored: %#x, %v; blocked: %s", ignored, err, blocked)
	}
}

// TestSlowDisk has a disk take its time to be made: that is none of the program's.
func TestSlowDisk(t *testing.T) {
	t.Parallel()
	b := sandboxed(t, nil)
	slow := t.TempDir()
	if err := os.WriteFile(filepath.Join(slow, "mke2fs"), []byte("#!/bin/sh\nsleep 2\nPATH=/usr/sbin:/sbin:/usr/bin:/bin exec mke2fs \"$@\"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	b.config.Env = append(b.config.Env, "PATH="+slow+":/usr/bin:/bin")
	e, out := b.shell("p", "exit 3", func(s *isolation.Spec) { s.Limits.Disk = 10 << 20 })
	if wall := e.FinishedAt.Sub(e.StartedAt); e.Code != 3 || wall > 1500*time.Millisecond {
		t.Errorf("it took %v: %+v, %s", wall, e, out)
	}
}
