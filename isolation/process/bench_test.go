package process_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/mayfly/mayfly/isolation"
	"github.com/mayfly/mayfly/isolation/cgroup"
	"github.com/mayfly/mayfly/isolation/process"
)

// BenchmarkStart compares what it takes to start /bin/true and to wait for its end, several at a time: compare within one run.
//
//	go test -run '^$' -bench Start -benchtime 2000x ./isolation/process
//
// exec is the standard library's fork and exec; confined, all that this package does, within limits of a re-used control group
// and with its account; bubblewrap a sandbox of the same kind, without limits.
func BenchmarkStart(b *testing.B) {
	parallel := func(b *testing.B, one func() error) {
		b.ReportAllocs()
		b.SetParallelism(2)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if err := one(); err != nil {
					b.Error(err)
				}
			}
		})
	}
	b.Run("exec", func(b *testing.B) {
		parallel(b, func() error { return exec.Command("/bin/true").Run() })
	})
	b.Run("bubblewrap", func(b *testing.B) {
		if _, err := exec.LookPath("bwrap"); err != nil {
			b.Skip(err)
		}
		parallel(b, func() error {
			return exec.Command("bwrap", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp", "--unshare-ipc", "--new-session",
				"--cap-drop", "ALL", "--die-with-parent", "/bin/true").Run()
		})
	})
	for _, limits := range []bool{false, true} {
		for _, on := range []bool{false, true} {
			b.Run(fmt.Sprintf("sandbox=%v/limits=%v", on, limits), func(b *testing.B) { parallel(b, confined(b, on, limits)) })
		}
	}
}

func confined(b *testing.B, sandbox, limits bool) func() error {
	if os.Geteuid() != 0 {
		b.Skip("it takes root")
	}
	hidden := b.TempDir()
	own := filepath.Join(hidden, "own")
	spawner, err := process.NewSpawner(4, process.Policy{Off: !sandbox, Users: process.DefaultUsers, Hidden: []string{hidden}})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(spawner.Close)
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		b.Fatal(err)
	}
	var groups *cgroup.Root
	if limits {
		if groups, err = cgroup.Find(fmt.Sprintf("mayfly-bench-%d", os.Getpid())); err != nil {
			b.Skip(err)
		}
		b.Cleanup(groups.Close)
	}
	var mu sync.Mutex
	places := []int{7, 6, 5, 4, 3, 2, 1, 0}
	return func() error {
		mu.Lock()
		place := places[len(places)-1]
		places = places[:len(places)-1]
		mu.Unlock()
		defer func() {
			mu.Lock()
			places = append(places, place)
			mu.Unlock()
		}()
		p := &process.Program{Args: []string{"/bin/true"}, Env: []string{"PATH=/bin"}, Dir: own + "/scratch", Files: [3]int{int(null.Fd()), int(null.Fd()), int(null.Fd())}, Place: place}
		var err error
		if p.Private, err = spawner.Private(&isolation.Spec{Private: own, Dirs: []string{"scratch"}, Limits: isolation.Limits{Memory: 1 << 30}}, place, process.Images{}); err != nil {
			return err
		}
		var g *cgroup.Group
		if limits {
			if g, err = groups.Lend(cgroup.Limits{MilliCPU: 500, Memory: 1 << 30, PIDs: 100}); err != nil {
				return err
			}
			p.Cgroup, p.Join = g.Birth(), g.Join()
		}
		pid, err := spawner.Start(p)
		if err != nil {
			return err
		}
		var status syscall.WaitStatus
		for {
			if _, err := syscall.Wait4(pid, &status, 0, nil); err != syscall.EINTR {
				break
			}
		}
		if status != 0 {
			return fmt.Errorf("status %v", status)
		}
		if g == nil {
			p.Private.Close()
			return nil
		}
		if err := g.WaitEmpty(1e9); err != nil {
			return err
		}
		g.Account()
		p.Private.Close()
		return g.Return()
	}
}
