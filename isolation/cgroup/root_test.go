package cgroup

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/containerd/cgroups/v3"

	"github.com/mayfly/mayfly/integration/need"
)

// inGroup says that this is the test binary run again by itself, in a group that it was given; the value is how often.
const inGroup = "MAYFLY_TEST_CGROUP_AGAIN"

// TestFindAgain finds a place from within the leaf that an earlier keeper has moved all of a container into: beside it, where limits hold.
func TestFindAgain(t *testing.T) {
	again := os.Getenv(inGroup)
	if again != "" {
		r, err := Find("mayfly-test-again")
		if err != nil {
			t.Fatal(err)
		}
		if len(r.Lacking()) > 0 {
			t.Errorf("lacking: %v", r.Lacking())
		}
		g, err := r.Lend(Limits{Memory: 16 << 20, PIDs: 5})
		if err != nil {
			t.Fatal(err)
		}
		if err := g.remove(); err != nil {
			t.Error(err)
		}
		r.Close()
		if again == "once" {
			rerun(t, "twice")
		}
		return
	}
	t.Parallel()
	if cgroups.Mode() != cgroups.Unified {
		t.Skip("SKIPPED: there is no hierarchy of version 2 alone; TestUnifiedHost runs this where there is")
	}
	if err := os.WriteFile("/sys/fs/cgroup/cgroup.subtree_control", []byte("+memory +pids +cpu +cpuset +io"), 0); err != nil {
		need.Missing(t, "no group has controllers: %v", err)
	}
	dir := filepath.Join("/sys/fs/cgroup", fmt.Sprintf("mayfly-again-%d", os.Getpid()))
	if err := os.Mkdir(dir, 0o755); err != nil {
		need.Missing(t, "no group can be made: %v", err)
	}
	t.Cleanup(func() {
		os.Remove(filepath.Join(dir, leafName))
		if err := os.Remove(dir); err != nil {
			t.Error(err)
		}
	})
	rerun(t, "once", "/bin/sh", "-c", `echo $$ >`+dir+`/cgroup.procs && exec "$@"`, "sh")
}

// rerun runs this test by itself in another process.
func rerun(t *testing.T, times string, before ...string) {
	t.Helper()
	argv := append(before, os.Args[0], "-test.run=^TestFindAgain$", "-test.v")
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), inGroup+"="+times)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%s: %v\n%s", times, err, out)
	}
}
