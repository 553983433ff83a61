package keeper

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mayfly/mayfly/isolation"
)

// freezer makes a version 1 freezer group, whose frozen members take no signal, not even SIGKILL: as a process does that is stuck
// in the kernel.
func freezer(t *testing.T) (dir string) {
	dir = fmt.Sprintf("/sys/fs/cgroup/freezer/mayfly-test-%d-%d", os.Getpid(), time.Now().UnixNano())
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Skipf("nothing here makes a process that does not die: %v", err)
	}
	t.Cleanup(func() {
		_ = os.WriteFile(filepath.Join(dir, "freezer.state"), []byte("THAWED"), 0)
		var err error
		for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) { // the killed ones go one by one
			if err = os.Remove(dir); err == nil {
				return
			}
		}
		t.Errorf("the freezer is left: %v", err)
	})
	return dir
}

// TestStuck has a program leave a process that cannot be killed. Its end is told, with that, and the program is held, with its user
// and its group, until the process is gone; a client that comes anew learns of it.
func TestStuck(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	cold := freezer(t)
	freed := make(chan string, 1)
	config := b.config
	config.Freed = func(id string) { freed <- id }
	b.Close()
	b.Client = New(config)
	s := b.spec("stuck", "sh -c 'echo $$ >$DIR/pid; sleep 600' & while ! test -e $DIR/go; do sleep 0.01; done; exit 3")
	exits := make(chan isolation.Exit)
	go func() {
		e, err := b.Run(context.Background(), s, nil)
		if err != nil {
			t.Error(err)
		}
		exits <- e
	}()
	b.until("the child is there", func() bool { return strings.HasSuffix(b.read("pid"), "\n") })
	write := func(file, text string) {
		if err := os.WriteFile(filepath.Join(cold, file), []byte(text), 0); err != nil {
			t.Fatal(err)
		}
	}
	write("cgroup.procs", strings.TrimSpace(b.read("pid")))
	write("freezer.state", "FROZEN")
	if err := os.WriteFile(filepath.Join(b.dir, "go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	e := <-exits
	if e.Code != 3 || !strings.Contains(e.Left, "do not die") || !strings.Contains(e.Left, strings.TrimSpace(b.read("pid"))) {
		t.Fatalf("%+v", e)
	}
	b.Release(s.ID)
	isHeld := func() bool {
		held, err := b.Held(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		return slices.ContainsFunc(held, func(h isolation.Held) bool { return h.ID == s.ID && h.Released && h.Exit.Left != "" })
	}
	if !isHeld() {
		t.Error("what is left is not held")
	}
	b.Close()
	b.Client = New(config)
	if !isHeld() {
		t.Error("a new client does not learn what is left")
	}
	write("freezer.state", "THAWED")
	if id := <-freed; id != s.ID {
		t.Errorf("freed %s", id)
	}
	if isHeld() {
		t.Error("it is held still")
	}
}
