package keeper

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/cgroups/v3"
	"golang.org/x/sys/unix"

	"github.com/mayfly/mayfly/integration/fence"
	"github.com/mayfly/mayfly/integration/need"
	"github.com/mayfly/mayfly/isolation"
)

// hierarchies has a test run in a fence, with the control groups of this host as they are and, where there are some of both
// versions, with those of version 1 alone, as on an older host.
func hierarchies(t *testing.T, test func(t *testing.T, b *bench)) {
	legacy := []string{"unshare", "--mount", "sh", "-c", `umount /sys/fs/cgroup/unified && exec "$@"`, "legacy"}
	modes := map[string][]string{modeName(): nil}
	if cgroups.Mode() == cgroups.Hybrid {
		modes["legacy"] = legacy
	}
	for mode, prefix := range modes {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			b := sandboxed(t, nil)
			enter := fence.New(b.t)
			b.Close()
			c := b.config
			c.Argv = slices.Concat(enter, prefix, []string{fmt.Sprintf("/proc/%d/exe", os.Getpid())})
			b.Client = New(c)
			_, out := b.shell("where", "cat /proc/self/cgroup")
			if v2 := regexp.MustCompile(`(?m)^0::.*/` + groupName(b.dir) + `/w\d+$`).MatchString(out); v2 != (mode != "legacy") {
				t.Fatalf("in version 2: %v, of %q", v2, out)
			}
			need.Exercised(t, mode+" control groups")
			test(t, b)
		})
	}
}

// modeName names the control groups of this host.
func modeName() string {
	switch cgroups.Mode() {
	case cgroups.Unified:
		return "unified"
	case cgroups.Hybrid:
		return "hybrid"
	}
	return "legacy"
}

// TestHostile runs programs that take what they can and defend themselves. Each ends within its limits, and nothing of it is left.
func TestHostile(t *testing.T) {
	t.Parallel()
	hierarchies(t, hostile)
}

func hostile(t *testing.T, b *bench) {
	for name, script := range map[string]string{
		"fork-bomb":      `f() { f | f & }; f; sleep 600`,
		"detached":       "setsid -f sleep 600; setsid -f sh -c 'trap \"\" TERM HUP INT; while :; do sleep 1; done'",
		"double-fork":    "(setsid sh -c 'sleep 600 & sleep 600 &' &) ",
		"stopped":        "sh -c 'kill -STOP $$; sleep 600' & sleep 0.1; kill -STOP $$",
		"respawns":       "r() { trap r TERM EXIT; sh -c 'sleep 0.01' & wait; r & sleep 600; }; r",
		"deaf":           "trap '' TERM HUP INT QUIT USR1; sleep 600 & while :; do wait; done",
		"many-files":     "i=0; while touch /tmp/$i 2>/dev/null; do i=$((i+1)); test $i -gt 3000 && break; done; sleep 600",
		"wide-processes": "for i in $(seq 1 200); do sleep 600 2>/dev/null & done; wait",
	} {
		e, _ := b.shell(name, script, func(s *isolation.Spec) { s.Timeout, s.Grace = 300*time.Millisecond, 100*time.Millisecond })
		if e.Left != "" || e.Lost || e.StartError != "" {
			t.Errorf("%s: %+v", name, e)
		}
	}
}

// TestProcessLimit counts the processes that a program can have.
func TestProcessLimit(t *testing.T) {
	t.Parallel()
	hierarchies(t, processLimit)
}

func processLimit(t *testing.T, b *bench) {
	_, out := b.shell("pids", "for i in $(seq 1 20); do sleep 600 >/dev/null & echo began; done 2>/dev/null | grep -c began", func(s *isolation.Spec) { s.Limits.PIDs = 8 })
	// The shell, its part of the pipe, and grep; the rest could begin. The shell ends the loop at the first that cannot.
	if n := strings.TrimSpace(out); n != "5" {
		t.Errorf("%q began beside three others within 8", out)
	}
}

// TestMemoryLimit goes beyond it in several ways.
func TestMemoryLimit(t *testing.T) {
	t.Parallel()
	hierarchies(t, memoryLimit)
}

func memoryLimit(t *testing.T, b *bench) {
	const hog = "head -c 200M /dev/zero | tail -c 200M >/dev/null"
	groups := cgroups.Mode() == cgroups.Unified // where all die together
	e, _ := b.shell("leader", "exec dd if=/dev/zero of=/dev/null bs=200M count=1")
	if e.Signal != 9 || e.OOMKills < 1 || e.Killed {
		t.Errorf("the leader: %+v", e)
	}
	e, _ = b.shell("child", hog)
	if e.OOMKills < 1 || (e.Code != 137) != groups {
		t.Errorf("a child: %+v", e)
	}
	e, out := b.shell("survives", hog+"; echo survived")
	if e.OOMKills < 1 || strings.Contains(out, "survived\n") == groups {
		t.Errorf("a child, survived: %q, %+v", out, e)
	}
	e, _ = b.shell("within", "head -c 40M /dev/zero | tail -c 40M >/dev/null")
	if e.Code != 0 || e.OOMKills != 0 || e.MemoryPeak < 40<<20 || e.MemoryPeak > 64<<20 {
		t.Errorf("within: %+v", e)
	}
	e, _ = b.shell("after", "true")
	if e.Code != 0 || e.OOMKills != 0 || e.MemoryPeak > 16<<20 {
		t.Errorf("the next one in the same group: %+v", e)
	}
}

// TestHostOOM has the kernel kill a program though it is within its limit, for the group above has no memory left.
func TestHostOOM(t *testing.T) {
	t.Parallel()
	b := sandboxed(t, nil)
	bounded := false
	b.beside([]isolation.Spec{b.confined("stays", "echo up; sleep 600")}, func() {
		for _, between := range []string{"", "/*", "/*/*", "/*/*/*"} {
			dirs, _ := filepath.Glob("/sys/fs/cgroup" + between + "/" + groupName(b.dir))
			for _, dir := range dirs {
				for _, file := range []string{"memory.limit_in_bytes", "memory.max"} {
					bounded = os.WriteFile(filepath.Join(dir, file), []byte("50331648"), 0) == nil || bounded
				}
			}
		}
		for memory, host := range map[int64]bool{512 << 20: true, 32 << 20: false} {
			if !bounded {
				break
			}
			e, _ := b.shell(fmt.Sprint("hog", memory), "exec dd if=/dev/zero of=/dev/null bs=200M count=1", func(s *isolation.Spec) { s.Limits.Memory = memory })
			if e.Signal != 9 || e.OOMKills < 1 || e.HostOOM != host {
				t.Errorf("with a limit of %d: %+v", memory, e)
			}
		}
	})
	if !bounded {
		need.Missing(t, "no group above can be bounded")
	}
}

// TestProcessorLimits looks at which processors a program may use, and how much of them it gets.
func TestProcessorLimits(t *testing.T) {
	t.Parallel()
	hierarchies(t, processorLimits)
}

func processorLimits(t *testing.T, b *bench) {
	_, out := b.shell("pinned", "grep Cpus_allowed_list /proc/self/status | cut -f2", func(s *isolation.Spec) { s.Limits.Cores = []int{1} })
	if out != "1\n" {
		t.Errorf("pinned to 1: %q", out)
	}
	var here unix.CPUSet
	if err := unix.SchedGetaffinity(0, &here); err != nil {
		t.Fatal(err)
	}
	_, out = b.shell("free", "nproc")
	if out != fmt.Sprintln(here.Count()) {
		t.Errorf("not pinned: %q of %d", out, here.Count())
	}
	// Of each period of 100 ms it gets 10; what it had of the first one before it was stopped for the first time comes on top.
	e, _ := b.shell("tenth", "while :; do :; done", func(s *isolation.Spec) {
		s.Limits.MilliCPU, s.Timeout, s.Grace = 100, 500*time.Millisecond, 0
	})
	if wall := e.FinishedAt.Sub(e.StartedAt); e.CPU > wall/5+50*time.Millisecond {
		t.Errorf("a tenth of a core for %v: %v", wall, e.CPU)
	}
}
