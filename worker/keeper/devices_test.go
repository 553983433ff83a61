package keeper

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/mayfly/mayfly/integration/need"
	"github.com/mayfly/mayfly/isolation"
	"github.com/mayfly/mayfly/isolation/process"
)

// device is a device of /dev/zero's number, or of another one of its kind: 3 for null, 5 for zero, 7 for full.
func device(path string, minor uint32) isolation.Device {
	return isolation.Device{Path: path, Major: 1, Minor: minor}
}

// with has a program see devices.
func with(devices ...isolation.Device) func(*isolation.Spec) {
	return func(s *isolation.Spec) { s.Devices = devices }
}

// without closes devices to a program.
func without(devices ...isolation.Device) func(*isolation.Spec) {
	return func(s *isolation.Spec) { s.Closed = devices }
}

// TestDevices shows programs devices, one after the other in the same place.
func TestDevices(t *testing.T) {
	t.Parallel()
	hierarchies(t, shownDevices)
}

// ordinaryDevices is what programs see in /dev.
const ordinaryDevices = "fd full null ptmx pts random shm stderr stdin stdout tty urandom zero "

func shownDevices(t *testing.T, b *bench) {
	dir, err := os.MkdirTemp("/tmp", "mayfly-test-") // the host's /tmp, which is not the program's
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	host := filepath.Join(dir, "dev", "dev0")
	if err := os.Mkdir(filepath.Dir(host), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mknod(host, unix.S_IFCHR|0o600, int(unix.Mkdev(1, 5))); err != nil {
		need.Missing(t, "no device file can be made: %v", err)
	}
	const look = "ls /dev | tr '\\n' ' '; find /dev/mayfly* /tmp ! -type d 2>/dev/null | sort | tr '\\n' ' '; "
	const terminals = "grep -q \" /dev/pts .*max=1024\" /proc/self/mountinfo && test -c /dev/ptmx && test -w /dev/ptmx && : >/dev/shm/x && ! grep -q \" /dev rw\\| $HOST rw\" /proc/self/mountinfo && echo whole"
	zero, capability, inTmp, elsewhere := device("/dev/mayfly0", 5), device("/dev/mayfly-caps/cap/7", 7), device(host, 5), device("/etc/hostname", 5)
	reads := func(path string) string { return "head -c3 " + path + " | wc -c; stat -c %a:%u:%t:%T " + path + "; " }
	const zeros = "3\n666:0:1:5\n"
	for i, c := range []struct {
		script  string
		devices []isolation.Device
		want    string
	}{
		{look + terminals, nil, ordinaryDevices + "whole\n"},
		{look + reads("/dev/mayfly0") + reads("$HOST") + reads("/etc/hostname") + "head -c3 /dev/mayfly-caps/cap/7 | wc -c; echo x 2>/dev/null >/dev/mayfly-caps/cap/7 || echo is full; " + terminals,
			[]isolation.Device{zero, capability, inTmp, elsewhere}, strings.Replace(ordinaryDevices, "null ", "mayfly-caps mayfly0 null ", 1) +
				"/dev/mayfly-caps/cap/7 /dev/mayfly0 " + host + " " + zeros + zeros + zeros + "3\nis full\nwhole\n"},
		{look + "wc -l </etc/hostname;" + terminals, nil, ordinaryDevices + "1\nwhole\n"},
		{look + reads("/dev/mayfly0") + terminals, []isolation.Device{zero}, strings.Replace(ordinaryDevices, "null ", "mayfly0 null ", 1) + "/dev/mayfly0 " + zeros + "whole\n"},
		{look + reads("$HOST"), []isolation.Device{inTmp}, ordinaryDevices + host + " " + zeros},
		{look + reads("/dev/full"), []isolation.Device{zero, zero, device("/dev/full", 7)}, strings.Replace(ordinaryDevices, "null ", "mayfly0 null ", 1) + "/dev/mayfly0 3\n666:0:1:7\n"},
		{look + reads("/dev/shm/d"), []isolation.Device{device("/dev/shm/d", 5)}, ordinaryDevices + zeros},
		{look + terminals, nil, ordinaryDevices + "whole\n"},
	} {
		id := "show-" + string(rune('a'+i))
		e, out := b.shell(id, c.script, with(c.devices...), func(s *isolation.Spec) { s.Env = append(s.Env, "HOST="+host) })
		if e.StartError != "" || out != c.want {
			t.Errorf("%d:\n%q, want\n%q (%+v)", i, out, c.want, e)
		}
	}

	// The room of a program is used again by one with the same devices, once it is swept, and by no other.
	const room = "stat -c %z /dev/mayfly0; test -e $HOST && echo shown; ls /tmp | grep -c left; : >/tmp/left"
	where := func(s *isolation.Spec) { s.Env = append(s.Env, "HOST="+host) }
	_, first := b.shell("room-1", room, with(zero, inTmp), where)
	_, again := b.shell("room-2", room, with(zero, inTmp), where)
	_, fewer := b.shell("room-3", room, with(zero), where)
	_, others := b.shell("room-4", room, with(zero, capability), where)
	if again != first || !strings.HasSuffix(first, "\nshown\n0\n") {
		t.Errorf("with the same devices: %q, then %q", first, again)
	}
	made, _, _ := strings.Cut(first, "\n") // when its file was made
	if strings.HasPrefix(fewer, made) || strings.Contains(fewer, "shown") || others == fewer {
		t.Errorf("with others: %q, %q, %q", first, fewer, others)
	}

	_, out := b.shell("mknod", "cd $OWN/scratch; for k in c b; do mknod x $k 1 5 2>&1 | sed 's/.*: //'; mknod /dev/shm/x $k 1 5 2>&1 | sed 's/.*: //'; done; touch /dev/mayfly0 2>/dev/null; chmod 0 /dev/mayfly0 2>&1 | grep -c 'Read-only\\|not permitted'", with(zero))
	if out != strings.Repeat("Operation not permitted\n", 4)+"1\n" {
		t.Errorf("making devices: %q", out)
	}

	for path, want := range map[string]string{
		"":                       "its path is not absolute and clean",
		"dev/x":                  "its path is not absolute and clean",
		"/dev/../etc/x":          "its path is not absolute and clean",
		"/dev":                   "that is no place for a device",
		"/tmp":                   "that is no place for a device",
		"/dev/pts/9":             "that is no place for a device",
		"/dev/null":              "cannot make the device /dev/null: file exists",
		"/dev/null/x":            "cannot make the device /dev/null/x: ",
		b.dir + "/x":             "which is hidden from programs",
		"/mayfly-no-such-file":   "there is nothing that it can be mounted on: no such file or directory",
		"/run/mayfly-no-such/x":  "there is nothing that it can be mounted on: no such file or directory",
		"/usr":                   "there is nothing that it can be mounted on: ",
		"/dev/mayfly-caps/../d0": "its path is not absolute and clean",
	} {
		s := b.confined("refuse-"+strings.ReplaceAll(path, "/", "_"), "true")
		s.Devices = []isolation.Device{device(path, 5)}
		if e, err := b.Run(context.Background(), s, nil); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%q: %v, want %q (%+v)", path, err, want, e)
		}
	}
	if _, out := b.shell("after-that", "ls /dev | tr '\\n' ' '"); out != ordinaryDevices {
		t.Errorf("after what was refused: %q", out)
	}
}

// TestHiddenDevice keeps hidden what is hidden in the /dev of all programs, in one of a program's own.
func TestHiddenDevice(t *testing.T) {
	t.Parallel()
	b := sandboxed(t, func(p *process.Policy) { p.Hidden = append(p.Hidden, "/dev/full", "/dev/mayfly1") })
	const look = "head -c1 /dev/full | wc -c; head -c1 /dev/mayfly0 2>/dev/null | wc -c"
	if _, out := b.shell("all", look); out != "0\n0\n" {
		t.Errorf("in the /dev of all: %q", out)
	}
	if _, out := b.shell("own", look, with(device("/dev/mayfly0", 5))); out != "0\n1\n" {
		t.Errorf("in one of its own: %q", out)
	}
	s := b.confined("hidden", "true")
	s.Devices = []isolation.Device{device("/dev/mayfly1", 5)}
	if e, err := b.Run(t.Context(), s, nil); err == nil || !strings.Contains(err.Error(), "hidden from programs") {
		t.Errorf("a hidden one: %v, %+v", err, e)
	}
}

// TestClosedDevices closes devices to programs that see them.
func TestClosedDevices(t *testing.T) {
	t.Parallel()
	hierarchies(t, closedDevices)
}

func closedDevices(t *testing.T, b *bench) {
	const try = "for f in /dev/full /dev/zero /dev/mayfly7 /dev/mayfly5; do test -e $f || continue; head -c1 $f >/dev/null 2>&1 && echo $f; done; head -c1 /dev/full 2>&1 | grep -c 'not permitted'"
	full, zero := device("", 7), device("", 5)
	for i, c := range []struct {
		shown, closed []isolation.Device
		want          string
	}{
		{nil, nil, "/dev/full\n/dev/zero\n0\n"},
		{nil, []isolation.Device{full}, "/dev/zero\n1\n"},
		{[]isolation.Device{device("/dev/mayfly7", 7), device("/dev/mayfly5", 5)}, []isolation.Device{full}, "/dev/zero\n/dev/mayfly5\n1\n"},
		{[]isolation.Device{device("/dev/mayfly7", 7)}, []isolation.Device{zero}, "/dev/full\n/dev/mayfly7\n0\n"},
		{nil, []isolation.Device{zero, full}, "1\n"},
		{nil, nil, "/dev/full\n/dev/zero\n0\n"},
	} {
		e, out := b.shell("close-"+string(rune('a'+i)), try, with(c.shown...), without(c.closed...))
		if e.StartError != "" || out != c.want {
			t.Errorf("%d: %q, want %q (%+v)", i, out, c.want, e)
		}
	}
}

// TestClosedUnconfined closes a device to programs that are confined by nothing else: they are root, and see the host's files.
func TestClosedUnconfined(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("it takes root to close devices")
	}
	b := newBench(t)
	if err := unix.Mknod(filepath.Join(b.dir, "alias"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 7))); err != nil {
		need.Missing(t, "no device file can be made: %v", err)
	}
	s := b.spec("off", "for f in /dev/full alias; do head -c1 $f 2>&1 | grep -o 'not permitted'; done; mknod other c 1 7 2>&1 | grep -o 'not permitted'; mknod zero c 1 5 && head -c1 zero | wc -c; ls /dev/mayfly0 2>/dev/null")
	s.Closed, s.Devices = []isolation.Device{device("", 7)}, []isolation.Device{device("/dev/mayfly0", 5)}
	if e := b.run(s); b.read("off.out") != strings.Repeat("not permitted\n", 3)+"1\n" {
		t.Errorf("%q, %q, %+v", b.read("off.out"), b.read("off.err"), e)
	}
	if b.run(b.spec("next", "head -c1 /dev/full | wc -c")); b.read("next.out") != "1\n" {
		t.Errorf("the next one: %q", b.read("next.out"))
	}
}

// TestCannotClose runs no program that is to be kept from a device where that cannot be.
func TestCannotClose(t *testing.T) {
	t.Parallel()
	b := newBench(t, modes["marks"]...)
	s := b.spec("open", "echo began")
	s.Closed = []isolation.Device{device("", 7)}
	if e, err := b.Run(t.Context(), s, nil); err == nil || err.Error() != "cannot close devices to a program: there are no control groups here" || b.read("open.out") != "" {
		t.Errorf("%v, %+v, %q", err, e, b.read("open.out"))
	}
	if e := b.run(b.spec("after", "exit 3")); e.Code != 3 {
		t.Errorf("after that: %+v", e)
	}
}
