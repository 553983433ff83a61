package cgroup

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/cgroups/v3"
	"golang.org/x/sys/unix"

	"github.com/mayfly/mayfly/integration/need"
)

// inLegacy says that this is the test binary run again by itself, where the version 2 hierarchy is unmounted.
const inLegacy = "MAYFLY_TEST_CGROUP_LEGACY"

// The devices of the tests: those of /dev/full and /dev/zero, which every machine has and does without.
var full, zero = Device{Major: 1, Minor: 7}, Device{Major: 1, Minor: 5}

// TestClosed opens devices from within groups that are used again and again with other lists.
func TestClosed(t *testing.T) {
	t.Parallel()
	r := rootOf(t)
	dir := t.TempDir()
	alias := filepath.Join(dir, "of another name")
	if err := unix.Mknod(alias, unix.S_IFCHR|0o666, int(unix.Mkdev(full.Major, full.Minor))); err != nil {
		need.Missing(t, "no device file can be made: %v", err)
	}
	const look = `for f in /dev/full "$ALIAS" /dev/zero /dev/null; do head -c1 <"$f" >/dev/null 2>&1 && printf 'r' || printf '-'; (: >"$f") 2>/dev/null && printf 'w' || printf '-'; done; ` +
		`rm -f "$NEW"; mknod "$NEW" c 1 7 2>/dev/null && echo m || echo -; head -c1 /dev/full 2>&1 | grep -c 'not permitted'`
	const none, fullClosed, zeroClosed, both = "rwrwrwrwm\n0\n", "----rwrw-\n1\n", "rwrw--rwm\n0\n", "------rw-\n1\n"
	var first *Group
	for i, c := range []struct {
		closed []Device
		want   string
	}{
		{nil, none},
		{[]Device{full}, fullClosed},
		{[]Device{full}, fullClosed},
		{[]Device{zero}, zeroClosed},
		{[]Device{zero, full}, both},
		{[]Device{full, zero, full}, both},
		{[]Device{{Block: true, Major: 1, Minor: 7}, {Major: 1, Minor: 8}, {Major: 2, Minor: 7}}, none}, // others of like numbers
		{nil, none},
		{[]Device{full}, fullClosed},
		{nil, none},
	} {
		g, err := r.Lend(Limits{PIDs: 50, Closed: c.closed})
		if err != nil {
			t.Fatalf("%d: %v", i, err)
		}
		if first == nil {
			first = g
		}
		if g != first && r.Mode() != "unified" { // where memory's peak cannot be set back before Linux 6.12
			t.Errorf("%d: the group was not used again", i)
		}
		if out := inside(t, g, look, "ALIAS="+alias, "NEW="+filepath.Join(dir, "new")); out != c.want {
			t.Errorf("%d: %v closed: %q, want %q", i, c.closed, out, c.want)
		}
		if err := g.Return(); err != nil {
			t.Error(err)
		}
	}
	if len(r.programs) > 4 || r.filters == (len(r.programs) == 0) {
		t.Errorf("%d programs, filters %v", len(r.programs), r.filters)
	}
}

// TestNothingClosed lends groups that close nothing: they have no part in the controller, and no program is loaded.
func TestNothingClosed(t *testing.T) {
	t.Parallel()
	r := rootOf(t)
	g, err := r.Lend(Limits{PIDs: 50})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.programs) > 0 || g.dirs[devices] != "" || slices.ContainsFunc(g.Join(), func(f *os.File) bool { return strings.Contains(f.Name(), "/devices/") }) {
		t.Errorf("%d programs, %v", len(r.programs), g.dirs)
	}
	if err := g.Return(); err != nil {
		t.Error(err)
	}
}

// TestManyClosed closes more lists than programs are held ready, and more devices than any machine has.
func TestManyClosed(t *testing.T) { //nolint:paralleltest // it counts descriptors
	r := rootOf(t)
	list := []Device{full}
	for i := range programs + 5 {
		list = append(list, Device{Major: 195, Minor: uint32(i)}, Device{Major: majorMax, Minor: minorMax - uint32(i)})
		g, err := r.Lend(Limits{PIDs: 50, Closed: list})
		if err != nil {
			t.Fatal(err)
		}
		if i%30 == 0 {
			if out := inside(t, g, "head -c1 /dev/full 2>&1 | grep -c 'not permitted'; head -c1 /dev/zero | wc -c"); out != "1\n1\n" {
				t.Errorf("with %d closed: %q", len(list), out)
			}
		}
		if err := g.Return(); err != nil {
			t.Error(err)
		}
	}
	if n := openPrograms(); n != len(r.programs) || n > programs || r.filters == (n == 0) {
		t.Errorf("%d programs are open, and %d known", n, len(r.programs))
	}
	r.Close()
	if n := openPrograms(); n != 0 {
		t.Errorf("%d programs are left", n)
	}
}

// TestCannotClose lends no group where devices cannot be closed.
func TestCannotClose(t *testing.T) {
	t.Parallel()
	r := rootOf(t)
	for _, d := range []Device{{Major: majorMax + 1}, {Minor: minorMax + 1}} {
		if _, err := r.Lend(Limits{Closed: []Device{d}}); err == nil || !strings.Contains(err.Error(), "is not the number of any") {
			t.Errorf("%v: %v", d, err)
		}
	}
	r.filters, r.devices = false, ""
	r.lacking[devices] = errors.New("it was taken away")
	if _, err := r.Lend(Limits{Closed: []Device{full}}); err == nil || err.Error() != "cannot close devices to a program: it was taken away" {
		t.Errorf("without any means: %v", err)
	}
	g, err := r.Lend(Limits{PIDs: 5})
	if err != nil {
		t.Fatalf("with nothing to close: %v", err)
	}
	if err := g.Return(); err != nil {
		t.Error(err)
	}
}

// TestLegacyDevices runs the tests above once more where there are version 1 groups alone.
func TestLegacyDevices(t *testing.T) {
	t.Parallel()
	if cgroups.Mode() != cgroups.Hybrid || os.Getenv(inLegacy) != "" || os.Geteuid() != 0 {
		t.Skip("the version 2 hierarchy cannot be taken away here")
	}
	cmd := exec.CommandContext(t.Context(), "unshare", "--mount", "sh", "-c", `umount /sys/fs/cgroup/unified && exec "$@"`, "legacy",
		fmt.Sprintf("/proc/%d/exe", os.Getpid()), "-test.run", "Close", "-test.v")
	cmd.Env = append(os.Environ(), inLegacy+"=1")
	out, err := cmd.CombinedOutput()
	if err != nil || strings.Count(string(out), "--- PASS: Test") != 4 {
		t.Errorf("%v\n%s", err, out)
	}
}

// rootOf makes a root for a test.
func rootOf(t *testing.T) *Root {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("it takes root to make control groups")
	}
	r, err := Find(fmt.Sprintf("mayfly-test-%d-%s", os.Getpid(), t.Name()))
	if err != nil {
		need.Missing(t, "no control groups: %v", err)
	}
	t.Cleanup(func() {
		r.Close()
		for dir := range strings.SplitSeq(r.Place(), "\n") {
			if _, err := os.Stat(dir); err == nil {
				t.Errorf("%s is left", dir)
			}
		}
	})
	if legacy := os.Getenv(inLegacy) != ""; legacy != (r.Mode() == "legacy") || legacy == r.filters || r.lacking[devices] != nil {
		t.Fatalf("%s, filters %v, %v", r.Mode(), r.filters, r.lacking)
	}
	need.Exercised(t, r.Mode()+" closing of devices")
	return r
}

// inside runs shell commands in a group, and returns what they say.
func inside(t *testing.T, g *Group, script string, env ...string) string {
	t.Helper()
	in, hold, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	cmd := exec.CommandContext(t.Context(), "sh", "-c", "read -r go; "+script)
	cmd.Stdin, cmd.Env = in, append(os.Environ(), env...)
	var out strings.Builder
	cmd.Stdout = &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid := fmt.Sprint(cmd.Process.Pid)
	for _, f := range g.Join() {
		_, err = f.WriteString(pid)
	}
	if g.Birth() != nil && err == nil {
		err = os.WriteFile(fmt.Sprintf("/proc/self/fd/%d/cgroup.procs", g.Birth().Fd()), []byte(pid), 0)
	}
	_, _ = io.WriteString(hold, "go\n")
	hold.Close()
	if waited := cmd.Wait(); err == nil && waited != nil && !errors.As(waited, new(*exec.ExitError)) {
		err = waited
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := g.WaitEmpty(5e9); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// openPrograms counts the descriptors of filters that this process has.
func openPrograms() (n int) {
	links, _ := filepath.Glob("/proc/self/fd/*")
	for _, l := range links {
		if target, err := os.Readlink(l); err == nil && target == "anon_inode:bpf-prog" {
			n++
		}
	}
	return n
}
