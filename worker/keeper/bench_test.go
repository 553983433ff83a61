package keeper

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"testing"

	"github.com/mayfly/mayfly/isolation"
	"github.com/mayfly/mayfly/isolation/process"
)

// BenchmarkSpawn runs /bin/true, several at a time, in all the ways that are to be compared: compare the rates of one run.
//
//	go test -run '^$' -bench Spawn ./worker/keeper
func BenchmarkSpawn(b *testing.B) {
	command := func(b *testing.B, args ...string) {
		if _, err := exec.LookPath(args[0]); err != nil {
			b.Skip(err)
		}
		b.SetParallelism(2)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if err := exec.Command(args[0], args[1:]...).Run(); err != nil {
					b.Error(err)
				}
			}
		})
	}
	b.Run("exec", func(b *testing.B) { command(b, "/bin/true") })
	b.Run("bubblewrap", func(b *testing.B) {
		command(b, "bwrap", "--ro-bind", "/", "/", "--dev", "/dev", "--tmpfs", "/tmp", "--unshare-ipc", "--new-session", "--cap-drop", "ALL", "--die-with-parent", "/bin/true")
	})
	for name, policy := range map[string]process.Policy{"keeper": {Off: true}, "keeper-sandbox": {Users: process.DefaultUsers, Hidden: []string{}}} {
		b.Run(name, func(b *testing.B) {
			k := newBench(b)
			k.Close()
			if !policy.Off {
				if os.Geteuid() != 0 {
					b.Skip("it takes root to confine programs")
				}
				policy.Hidden = []string{k.dir}
			}
			c := k.config
			c.Policy = policy
			k.Client = New(c)
			own := filepath.Join(k.dir, "own")
			var next atomic.Int64
			one := func() {
				id := strconv.FormatInt(next.Add(1), 10)
				e, err := k.Run(context.Background(), isolation.Spec{ID: id, Args: []string{"/bin/true"}, Env: []string{"PATH=/usr/bin:/bin"}, Dir: own + "/scratch",
					Stdout: filepath.Join(k.dir, id+".out"), Stderr: filepath.Join(k.dir, id+".err"), OutputMax: 1 << 20, Private: own, Dirs: []string{"scratch"},
					Limits: isolation.Limits{MilliCPU: 1000, Cores: []int{int(next.Load()) % 2}, Memory: 1 << 30, PIDs: 100}}, nil)
				k.Release(id)
				if err != nil || e.Code != 0 || e.StartError != "" {
					b.Errorf("%+v, %v", e, err)
				}
			}
			one() // starts the keeper
			b.ResetTimer()
			b.SetParallelism(2)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					one()
				}
			})
			b.StopTimer()
		})
	}
}
