package keeper

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	landlock "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"

	"github.com/mayfly/mayfly/internal/rest"
	"github.com/mayfly/mayfly/isolation"
	"github.com/mayfly/mayfly/isolation/process"
)

// sandboxed makes a bench whose keeper confines what it runs as far as this host allows; the tests below need all of it.
func sandboxed(t testing.TB, change func(*process.Policy)) *bench {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("it takes root to confine programs")
	}
	b := newBench(t)
	b.Close()
	policy := process.Policy{Users: process.DefaultUsers, Hidden: []string{b.dir}}
	if change != nil {
		change(&policy)
	}
	b.Client = New(Config{Dir: b.dir, Argv: []string{"/proc/self/exe"}, Policy: policy, Env: []string{"KEEPER_TEST_ROLE=keeper"},
		Idle: 200 * time.Millisecond, Log: b.config.Log})
	return b
}

// confined makes a program of shell commands that has a directory of its own, in which it begins.
func (b *bench) confined(id, script string) isolation.Spec {
	s := b.spec(id, script)
	own := filepath.Join(b.dir, "own-"+id)
	s.Private, s.Dirs, s.Dir = own, []string{"scratch"}, filepath.Join(own, "scratch")
	s.Env = append(s.Env, "OWN="+own)
	s.Limits = isolation.Limits{MilliCPU: 1000, Memory: 64 << 20, PIDs: 64}
	return s
}

// shell runs commands confined and returns how they ended and what they said on both streams.
func (b *bench) shell(id, script string, change ...func(*isolation.Spec)) (isolation.Exit, string) {
	b.t.Helper()
	s := b.confined(id, script)
	for _, c := range change {
		c(&s)
	}
	e := b.run(s)
	return e, b.read(id+".out") + b.read(id+".err")
}

// TestConfined lists what a program can see and do, by its own word.
func TestConfined(t *testing.T) {
	t.Parallel()
	b := sandboxed(t, nil)
	// The thread that starts the keeper is at rest, which its programs are not to inherit.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(20*time.Millisecond), 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(rest.Slack), 0, 0, 0) }()
	seen := fmt.Sprint("mayfly-private-", os.Getpid()) // nobody else has such a file
	var files unix.Rlimit                              // not what the keeper has
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(b.dir, "secret"), []byte("secret"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		script, want string
	}{
		"user":             {"id -u; id -g; id -G", "1879048192\n1879048192\n1879048192\n"},
		"capabilities":     {"grep -E '^(Cap|NoNewPrivs)' /proc/self/status | tr -s '\\t 0' ' ' | cut -d: -f2 | tr -d ' \\n'", "1"},
		"seccomp":          {"grep ^Seccomp: /proc/self/status", "Seccomp:\t2\n"},
		"starts in":        {"test $(pwd) = $OWN/scratch && touch here && ls $OWN/scratch", "here\n"},
		"own temporary":    {"ls -A /tmp /var/tmp /dev/shm; touch /tmp/" + seen + " /var/tmp/b /dev/shm/c && echo writes", "/dev/shm:\n\n/tmp:\n%s\n/var/tmp:\nwrites\n"},
		"state hidden":     {"ls -A $DIR; cat $DIR/secret 2>&1 | sed 's/.*: //'", "own-state-hidden\nNo such file or directory\n"},
		"system read-only": {"touch /usr/x /etc/x /root/x /x 2>&1 | wc -l", "4\n"},
		"devices":          {"ls /dev | tr '\\n' ' '", "fd full null ptmx pts random shm stderr stdin stdout tty urandom zero "},
		"no sockets":       {"ls /run | tr '\\n' ' '", "lock "},
		"own processes":    {"all=$(ls /proc); echo \"$all\" | grep -c '^[0-9]'", ""},
		"descriptors":      {"ls /proc/self/fd | tr '\\n' ' '", "0 1 2 3 "}, // ls has the directory open
		"environment":      {"env | cut -d= -f1 | sort | tr '\\n' ' '", "DIR MAYFLY_KEEPER_MARK OWN PATH PWD "},
		"session":          {"test $(ps -o sid= -p $$) -eq $$ && echo leads", "leads\n"},
		"no namespaces":    {"unshare -U true 2>&1 | grep -c 'not permitted'; unshare -n true 2>&1 | grep -c 'not permitted'", "1\n1\n"},
		"no sudo":          {"cp /bin/id ./id; chmod u+s id; ./id -u", "1879048192\n"},
		"core":             {"ulimit -c; ulimit -n", "0\n1024\n"},
		"shared memory":    {"ipcs -m | grep -c ^0x", "0\n"},
		"timers":           {"cat /proc/self/timerslack_ns", "50000\n"},
		"most files":       {"ulimit -Hn", fmt.Sprintln(files.Max)},
	} {
		id := strings.ReplaceAll(name, " ", "-")
		e, out := b.shell(id, c.script)
		switch name {
		case "own processes":
			// The shell and ls.
			if got := strings.TrimSpace(out); got != "2" {
				t.Errorf("%s: it sees %s processes", name, got)
			}
			continue
		case "own temporary":
			top := "" // the mount point of its own directory, where that lies in a temporary one
			if rest, ok := strings.CutPrefix(b.dir, "/tmp/"); ok {
				top = strings.Split(rest, "/")[0] + "\n"
			}
			c.want = fmt.Sprintf(c.want, top)
		case "environment":
			c.want = strings.Replace(c.want, "MAYFLY_KEEPER_MARK", markName, 1)
		}
		if e.StartError != "" || out != c.want {
			t.Errorf("%s: %q, want %q (%+v)", name, out, c.want, e)
		}
	}
	if _, err := os.Stat("/tmp/" + seen); err == nil {
		t.Error("a private file is seen by all")
	}
}

// beside starts programs that run beside each other and calls look once each has said something.
func (b *bench) beside(specs []isolation.Spec, look func()) {
	b.t.Helper()
	ctx, cancel := context.WithCancelCause(context.Background())
	var all sync.WaitGroup
	for _, s := range specs {
		all.Go(func() {
			if _, err := b.Run(ctx, s, nil); err != nil {
				b.t.Error(err)
			}
			b.Release(s.ID)
		})
	}
	b.until("all have begun", func() bool {
		return !slices.ContainsFunc(specs, func(s isolation.Spec) bool { return b.read(s.ID+".out") == "" })
	})
	look()
	cancel(isolation.ErrKill)
	all.Wait()
}

// TestUsers runs programs beside each other: each has a user of its own, and gets at nothing of the others.
func TestUsers(t *testing.T) {
	t.Parallel()
	b := sandboxed(t, func(p *process.Policy) { p.Users.Count = 3 })
	var specs []isolation.Spec
	for n := range 3 {
		specs = append(specs, b.confined(fmt.Sprintf("u%d", n), "echo $(id -u) $$; exec sleep 600"))
	}
	b.beside(specs, func() {
		users := map[string]string{}
		for _, s := range specs {
			user, pid, _ := strings.Cut(strings.TrimSpace(b.read(s.ID+".out")), " ")
			users[user] = pid
		}
		if len(users) != 3 {
			t.Errorf("users %v", users)
		}
		// A fourth shares the user of another one: what is left then is landlock, which keeps signals back from version 6 on.
		if abi, err := landlock.LandlockGetABIVersion(); err != nil || abi < 6 {
			t.Logf("landlock %d (%v): programs of one user are not told apart", abi, err)
			return
		}
		_, out := b.shell("fourth", "id -u; kill -0 "+users["1879048192"]+" 2>&1 | grep -o 'not permitted'; all=$(ls /proc); echo \"$all\" | grep -c '^[0-9]'")
		if out != "1879048192\nnot permitted\n2\n" {
			t.Errorf("beside another program of its user: %q", out)
		}
	})
}

// TestNoNetwork looks at a network that is off, and at one that is not.
func TestNoNetwork(t *testing.T) {
	t.Parallel()
	b := sandboxed(t, nil)
	const interfaces = "tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' \n'; grep -c -w 127.0.0.1 /proc/net/fib_trie"
	if _, out := b.shell("off", interfaces, func(s *isolation.Spec) { s.NoNetwork = true }); out != "lo2\n" {
		t.Errorf("with the network off: %q", out)
	}
	here, err := os.ReadFile("/proc/net/dev")
	if err != nil {
		t.Fatal(err)
	}
	if _, out := b.shell("on", "cat /proc/net/dev | wc -l"); out != fmt.Sprintln(strings.Count(string(here), "\n")) {
		t.Errorf("with the network on: %q", out)
	}
}

// TestCarry takes a file out of a program's own directory, whatever the program has put there.
func TestCarry(t *testing.T) {
	t.Parallel()
	b := sandboxed(t, nil)
	if err := os.WriteFile(filepath.Join(b.dir, "secret"), []byte("secret"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ script, file, fault string }{
		"nothing":   {"true", "", ""},
		"file":      {"echo 42 >$OWN/result", "42\n", ""},
		"link":      {"ln -s $DIR/secret $OWN/result", "", "it is a symbolic link"},
		"hard":      {"ln /etc/passwd $OWN/result 2>/dev/null; true", "", ""},
		"fifo":      {"mkfifo $OWN/result", "", "it is no regular file"},
		"directory": {"mkdir $OWN/result", "", "it is no regular file"},
		"large":     {"head -c 101 /dev/zero >$OWN/result", "", "it has 101 bytes, and at most 100 are taken"},
		"unread":    {"echo 1 >$OWN/result; chmod 0 $OWN/result", "1\n", ""},
	} {
		e, out := b.shell(name, c.script, func(s *isolation.Spec) { s.Carry, s.CarryMax = filepath.Join(s.Private, "result"), 100 })
		got := b.read("own-" + name + "/result")
		if e.Code != 0 || got != c.file || e.CarryError != c.fault {
			t.Errorf("%s: %q, %q, want %q, %q (%s)", name, got, e.CarryError, c.file, c.fault, out)
		}
	}
}

// TestDisk fills what a program may fill.
func TestDisk(t *testing.T) {
	t.Parallel()
	b := sandboxed(t, nil)
	const fill = "head -c 60M /dev/zero >$F; s=$?; wc -c <$F; exit $s"
	size := func(out string) int {
		n := 0
		_, _ = fmt.Sscan(out, &n)
		return n
	}
	for name, c := range map[string]struct {
		file        string
		disk        int64
		least, most int
		full        bool
	}{
		"scratch-memory": {"$OWN/scratch/x", 0, 31 << 20, 32 << 20, true},
		"tmp-memory":     {"/tmp/x", 0, 31 << 20, 32 << 20, true},
		"shm":            {"/dev/shm/x", 20 << 20, 31 << 20, 32 << 20, false}, // in memory whatever the disk
		"scratch-disk":   {"$OWN/scratch/x", 40 << 20, 40 << 20, 44 << 20, true},
		"tmp-disk":       {"/var/tmp/x", 40 << 20, 40 << 20, 44 << 20, true},
		"large-disk":     {"$OWN/scratch/x", 100 << 20, 60 << 20, 60 << 20, false},
	} {
		e, out := b.shell(name, "F="+c.file+"; "+fill, func(s *isolation.Spec) { s.Limits.Disk = c.disk })
		if n := size(out); n < c.least || n > c.most || e.DiskFull != c.full || (e.Code != 0) != (n < 60<<20) || e.OOMKills != 0 {
			t.Errorf("%s: %d bytes, %q, %+v", name, n, out, e)
		}
	}
	left, _ := filepath.Glob(filepath.Join(b.dir, "disk-*"))
	if len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// TestDiskFull fills disks of some sizes by writes of some sizes: ext4 refuses one whole for which there is not room enough, and leaves what there is.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	b := sandboxed(t, nil)
	sizes := []int64{10, 20, 50}
	if testing.Short() {
		sizes = sizes[:1]
	}
	for _, mb := range sizes {
		for name, c := range map[string]struct {
			script string
			full   bool
		}{
			"cat":     {"cat /dev/zero >x", true},
			"head":    {"head -c 100M /dev/zero >x", true},
			"dd-1M":   {"dd if=/dev/zero of=x bs=1M", true},
			"dd-4M":   {"dd if=/dev/zero of=x bs=4M", true},
			"dd-100K": {"dd if=/dev/zero of=x bs=100K", true},
			"tmp":     {"dd if=/dev/zero of=/tmp/x bs=1M", true},
			"many":    {"i=0; while head -c 900K /dev/zero >x$i; do i=$((i+1)); done; exit 1", true},
			"bug":     {fmt.Sprintf("head -c %dK /dev/zero >x && exit 3", mb*850), false}, // it fails for another reason, with room left
		} {
			e, out := b.shell(fmt.Sprintf("%s-%d", name, mb), c.script, func(s *isolation.Spec) { s.Limits.Disk = mb * 1000 * 1000 })
			if e.Code == 0 || e.DiskFull != c.full || e.OOMKills != 0 {
				t.Errorf("%s of %d MB: %q, %+v", name, mb, out, e)
			}
		}
	}
	for name, script := range map[string]string{"cat": "cat /dev/zero >x", "dd-1M": "dd if=/dev/zero of=/tmp/x bs=1M", "dd-100K": "dd if=/dev/zero of=x bs=100K"} {
		if e, out := b.shell(name+"-memory", script); e.Code == 0 || !e.DiskFull || e.OOMKills != 0 {
			t.Errorf("%s in memory: %q, %+v", name, out, e)
		}
	}
}

// TestSandboxStartErrors are faults of the program that only a confined one has.
func TestSandboxStartErrors(t *testing.T) {
	t.Parallel()
	b := sandboxed(t, nil)
	script := filepath.Join(b.dir, "script")
	if err := os.WriteFile(script, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	locked := t.TempDir()
	if err := os.WriteFile(filepath.Join(locked, "x"), []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change func(*isolation.Spec)
		want   string
	}{
		"hidden":    {func(s *isolation.Spec) { s.Args = []string{script} }, "cannot start " + script + ": it does not exist"},
		"directory": {func(s *isolation.Spec) { s.Dir = "/nowhere" }, "cannot start in the working directory /nowhere: it does not exist"},
		"init's":    {func(s *isolation.Spec) { s.Args = []string{"/proc/1/root/etc/shadow"} }, "cannot start /proc/1/root/etc/shadow: it does not exist"},
		"not its":   {func(s *isolation.Spec) { s.Dir = "/root" }, "cannot start in the working directory /root: permission denied"},
	} {
		e, _ := b.shell(strings.ReplaceAll(name, " ", "-"), "true", c.change)
		if e.StartError != c.want {
			t.Errorf("%s: %q, want %q", name, e.StartError, c.want)
		}
	}
}

// TestWritable leaves a directory of the host writable, wherever it lies.
func TestWritable(t *testing.T) {
	t.Parallel()
	shared := t.TempDir()
	if err := os.Chmod(shared, 0o777); err != nil {
		t.Fatal(err)
	}
	b := sandboxed(t, func(p *process.Policy) { p.Writable = []string{shared} })
	e, out := b.shell("w", "echo $(id -u) >"+shared+"/x && touch "+shared+"/../y")
	text, _ := os.ReadFile(filepath.Join(shared, "x"))
	if e.Code == 0 || string(text) != "1879048192\n" {
		t.Errorf("%q, %q, %+v", text, out, e)
	}
}

// TestNextFindsNothing runs programs one after the other in the same place: what one leaves, the next does not find.
func TestNextFindsNothing(t *testing.T) {
	t.Parallel()
	shared := t.TempDir() // which lies in the programs' own /tmp
	b := sandboxed(t, func(p *process.Policy) { p.Writable = []string{shared} })
	const look = "find /tmp /var/tmp /dev/shm $OWN -mindepth 1 ! -type d | sort; find $OWN /tmp /var/tmp -maxdepth 1 -printf '%m '; ipcs -m | grep -c ^0x; ipcs -q | grep -c ^0x; ipcs -s | grep -c ^0x; df --output=iused,used /tmp | tail -1"
	_, first := b.shell("first", look)
	if !strings.Contains(first, "\n0\n0\n") {
		t.Fatalf("at first: %q", first)
	}
	for name, leave := range map[string]string{
		"nothing":           "true",
		"a file":            "echo x >/tmp/x; echo y >$OWN/y; mkdir -p /var/tmp/a/b/c; echo >/var/tmp/a/b/c/d",
		"links":             "ln -s /etc /tmp/etc; ln -s ../../.. $OWN/up; mkfifo /dev/shm/f",
		"many files":        "for i in $(seq 300); do : >/tmp/$i; done",
		"much":              "head -c 5M /dev/zero >/dev/shm/x",
		"another furniture": "rmdir $OWN/scratch; : >/tmp/x",
		"modes":             "chmod 0 $OWN/scratch; chmod 7777 $OWN; mkdir /tmp/locked; : >/tmp/locked/x; chmod 0 /tmp/locked",
		"shared memory":     "ipcmk -M 4096 >/dev/null",
		"a message queue":   "ipcmk -Q >/dev/null",
		"semaphores":        "ipcmk -S 2 >/dev/null",
	} {
		id := strings.ReplaceAll(name, " ", "-")
		if e, out := b.shell("leave-"+id, "cd /; "+leave); e.Code != 0 {
			t.Errorf("%s: %q, %+v", name, out, e)
		}
		if _, out := b.shell("look-"+id, look); out != first {
			t.Errorf("after %s: %q, before: %q", name, out, first)
		}
	}
	e, _ := b.shell("large", "head -c 20M /dev/zero >/tmp/x", func(s *isolation.Spec) { s.Limits.Memory = 100 << 20 })
	if e.Code != 0 {
		t.Errorf("with more memory: %+v", e)
	}
	e, _ = b.shell("small", "head -c 20M /dev/zero >/tmp/x", func(s *isolation.Spec) { s.Limits.Memory = 20 << 20 })
	if e.Code == 0 || !e.DiskFull {
		t.Errorf("with less memory: %+v", e)
	}
}
