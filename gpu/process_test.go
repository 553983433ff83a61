package gpu

import (
	"os"
	"os/exec"
	"testing"
)

// TestKill holds whom we kill.
func TestKill(t *testing.T) {
	t.Parallel()
	full, err := os.Open("/dev/full")
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	files := []File{{Path: "/dev/nvidia0", Major: 1, Minor: 7}} // which /dev/full has
	run := func(open bool) *exec.Cmd {
		cmd := exec.CommandContext(t.Context(), "sleep", "600")
		if open {
			cmd.ExtraFiles = []*os.File{full}
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		return cmd
	}
	foreign := procFS("/proc")
	foreign.numbered = false // as in a container
	own := foreign
	own.numbered = true
	for name, tt := range map[string]struct {
		procs processes
		open  bool
		want  bool
	}{"on the host": {own, false, true}, "in a container, with the device open": {foreign, true, true}, "in a container, by chance": {foreign, false, false}} {
		cmd := run(tt.open)
		if got := tt.procs.kill(cmd.Process.Pid, files); got != tt.want {
			t.Errorf("%s: killed %t", name, got)
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait() //nolint:forbidigo // our own child
	}
	for _, pid := range []int{0, 1, os.Getpid(), os.Getppid(), 1 << 30, -1} {
		if own.kill(pid, files) {
			t.Errorf("PID %d killed", pid)
		}
	}
}

// TestWithin holds which control groups are below others.
func TestWithin(t *testing.T) {
	t.Parallel()
	const of = "4:memory:/a\n0::/w/1\n"
	for groups, want := range map[string]bool{of: true, "4:memory:/a/b\n0::/w/1/x\n": true, "4:memory:/ab\n0::/w/1\n": false, "4:memory:/a\n0::/w/11\n": false,
		"4:memory:/a\n0::/w\n": false, "4:memory:/a\n": false, "": false} {
		if got := within(groups, of); got != want {
			t.Errorf("within(%q) = %t", groups, got)
		}
	}
	if within("0::/\n", "") {
		t.Error("within nothing")
	}
}
