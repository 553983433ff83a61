package keeper

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mayfly/mayfly/isolation"
)

// TestFewFiles has more programs run at once than there are open files for what is kept of each: those of the first places have all that, the others do without. The
// keeper starts with few files and without the right to raise that.
func TestFewFiles(t *testing.T) {
	t.Parallel()
	files, programs, rounds := 512, 60, 2
	if testing.Short() { // which takes that they come one after the other
		files, programs, rounds = 200, 20, 1
	}
	b := sandboxed(t, nil)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b.config.Argv = []string{"setpriv", "--bounding-set=-sys_resource", "prlimit", fmt.Sprint("--nofile=", files), exe}
	for round := range rounds { // of which the second one finds what the first one left
		var ends sync.WaitGroup
		ctx, end := context.WithCancel(t.Context())
		for i := range programs {
			s := b.confined(fmt.Sprintf("p%d-%d", round, i), `trap 'cat $OWN/scratch/file; exit 7' TERM; echo kept >$OWN/scratch/file; echo up; sleep 600 & wait`)
			s.Grace = time.Minute // on an emulated machine ten seconds were too few for sixty that end at once
			ends.Go(func() {
				exit, err := b.Run(ctx, s, nil)
				if err != nil || exit.Code != 7 || exit.Stopped != isolation.Asked || exit.MemoryPeak == 0 {
					t.Errorf("%s: %+v, %v", s.ID, exit, err)
				}
				b.Release(s.ID)
				if said := b.read(s.ID + ".out"); said != "up\nkept\n" {
					t.Errorf("%s said %q", s.ID, said)
				}
			})
			if i == 0 || testing.Short() {
				b.until("it runs", func() bool { return b.read(s.ID+".out") != "" })
			}
		}
		b.until("all run", func() bool {
			up := 0
			for i := range programs {
				if b.read(fmt.Sprintf("p%d-%d.out", round, i)) != "" {
					up++
				}
			}
			return up == programs || t.Failed()
		})
		end()
		ends.Wait()
	}
}

// TestRaiseFiles looks at the limit of the keeper: the kernel's own where we may raise it, else ours.
func TestRaiseFiles(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	var data [2]unix.CapUserData
	var ours unix.Rlimit
	if err := unix.Capget(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &data[0]); err != nil {
		t.Fatal(err)
	}
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &ours); err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprint(ours.Max)
	if data[0].Effective&(1<<unix.CAP_SYS_RESOURCE) != 0 {
		text, err := os.ReadFile("/proc/sys/fs/nr_open")
		if err != nil {
			t.Fatal(err)
		}
		want = strings.TrimSpace(string(text))
	}
	b.run(b.spec("limits", `grep "open files" /proc/$PPID/limits; echo $(ulimit -Hn)`))
	f := strings.Fields(b.read("limits.out"))
	if len(f) != 7 || f[3] != want || f[4] != want || f[6] != strconv.FormatUint(ours.Max, 10) {
		t.Errorf("%q, want the keeper's to be %s, and the program's %d", f, want, ours.Max)
	}
}
