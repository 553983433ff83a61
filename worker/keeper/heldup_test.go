package keeper

import (
	"context"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mayfly/mayfly/isolation"
)

// hold makes a script that nobody can open: whoever tries waits until the lease on it is given back, as for a file system that does not answer. tried tells of a try.
func hold(t *testing.T, dir string) (path string, tried <-chan os.Signal) {
	t.Helper()
	path = filepath.Join(dir, "held")
	if err := os.WriteFile(path, []byte("#!/bin/sh\nexit 5\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGIO)
	t.Cleanup(func() {
		unix.Close(fd)
		signal.Stop(signals)
	})
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_WRLCK); err != nil {
		t.Fatal(err)
	}
	return path, signals
}

// TestHeldUp has a program that cannot be begun for now, nor refused: others are, even on one processor, and it can be cancelled, or is given up.
func TestHeldUp(t *testing.T) { //nolint:paralleltest // of a lease that is broken the process is told, not the test
	for name, mode := range modes {
		for _, given := range []struct {
			name  string
			limit string
		}{{"cancelled", "1h"}, {"given up", "200ms"}} {
			t.Run(name+", "+given.name, func(t *testing.T) {
				b := newBench(t, append([]string{"GOMAXPROCS=1", birthLimitOf + "=" + given.limit}, mode...)...)
				path, tried := hold(t, b.dir)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				ended := make(chan isolation.Exit, 1)
				run := func(ctx context.Context, s isolation.Spec, ended chan<- isolation.Exit) {
					e, err := b.Run(ctx, s, func(isolation.Started) {
						if s.ID == "held" {
							t.Error("it is said to have begun")
						}
					})
					if err != nil {
						t.Errorf("%s: %v", s.ID, err)
					}
					ended <- e
				}
				held := b.spec("held", "")
				held.Args = []string{path}
				go run(ctx, held, ended)
				await := func(what string, c <-chan isolation.Exit) (e isolation.Exit) {
					t.Helper()
					select {
					case e = <-c:
					case <-time.After(20 * time.Second): // less than a lease holds out
						t.Fatalf("%s does not end", what)
					}
					return e
				}
				<-tried
				beside := make(chan isolation.Exit, 1)
				go run(t.Context(), b.spec("beside", "exit 3"), beside)
				if e := await("another program", beside); e.Code != 3 {
					t.Errorf("another program: %+v", e)
				}
				b.Release("beside")
				if given.name == "cancelled" {
					cancel()
					if e := await("the program", ended); e.Stopped != isolation.Asked || !e.Killed || e.StartError != "" {
						t.Errorf("%+v", e)
					}
				} else if e := await("the program", ended); !strings.Contains(e.StartError, "it had not begun after 200ms") {
					t.Errorf("%+v", e)
				}
				b.Release("held")
			})
		}
	}
}
