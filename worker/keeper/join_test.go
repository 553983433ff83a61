package keeper

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mayfly/mayfly/isolation"
)

// TestJoinLost has the keeper die after a new client has heard of a program, and before it joins that: the program is lost. It is not begun
// anew, for what it was begun with, as its standard input, is not known any more.
func TestJoinLost(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	began := make(chan struct{})
	go func() {
		_, _ = b.Run(t.Context(), b.spec("p", "echo begun >>$DIR/ledger; sleep 600"), func(isolation.Started) { close(began) })
	}()
	<-began
	b.until("it has begun", func() bool { return b.read("ledger") != "" })
	b.Close()
	b.Client = b.client()
	held, err := b.Held(t.Context())
	if err != nil || len(held) != 1 {
		t.Fatalf("held %+v, %v", held, err)
	}
	for _, p := range b.processes() {
		if strings.Contains(p, "mayfly") {
			pid, _ := strconv.Atoi(strings.Fields(p)[0])
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	b.until("the keeper is gone", func() bool { up, _ := b.Health(); return !up })
	s := b.spec("p", "echo begun >>$DIR/ledger")
	s.Joins = true
	if e, err := b.Run(t.Context(), s, nil); err != nil || !e.Lost {
		t.Errorf("%+v, %v", e, err)
	}
	if text := b.read("ledger"); text != "begun\n" {
		t.Errorf("it has begun %d times", strings.Count(text, "\n"))
	}
	if _, err := os.Lstat(filepath.Join(b.dir, socketName)); err == nil {
		t.Error("a keeper was started for nothing")
	}
}

// TestJoinFailed has a keeper say that a program cannot be begun, to a client that was told of it but has not joined it yet.
func TestJoinFailed(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	near, far := net.Pipe()
	defer far.Close()
	l := &link{peer: newPeer(near), gone: make(chan struct{})}
	defer l.peer.close()
	c := b.client()
	c.link = l
	c.held["p"] = held{ID: "p"}
	c.handle(l, &frame{Op: opFailed, ID: "p", Error: "cannot make a disk"})
	ended := make(chan error, 1)
	go func() {
		_, err := c.Run(t.Context(), &isolation.Spec{ID: "p", Joins: true}, nil)
		ended <- err
	}()
	select {
	case err := <-ended:
		if err == nil || err.Error() != "cannot make a disk" || errors.Is(err, isolation.ErrDetached) {
			t.Errorf("it ended with %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("who joins it waits for ever")
	}
	c.Detach()
}

// TestManyNotes has a keeper hold programs whose notes are too much for one frame.
func TestManyNotes(t *testing.T) {
	t.Parallel()
	var list []held
	for i := range 10 {
		list = append(list, held{ID: strconv.Itoa(i), Note: make([]byte, 10*(i%3))})
	}
	frames := hellos(list, 25)
	near, far := net.Pipe()
	go func() {
		for i, f := range frames {
			size := 0
			for _, h := range f.Held {
				size += len(h.Note)
			}
			if size > 25 || f.More != (i < len(frames)-1) {
				t.Errorf("frame %d of %d has %d bytes, more %t", i, len(frames), size, f.More)
			}
			_ = writeFrame(far, f)
		}
	}()
	b := newBench(t)
	c := b.client()
	l, err := c.welcome(t.Context(), near)
	if err != nil || len(frames) < 4 || len(c.held) != len(list) {
		t.Errorf("%d of %d are held, told in %d frames: %v", len(c.held), len(list), len(frames), err)
	}
	c.Detach()
	far.Close()
	<-l.gone
	if one := hellos(nil, 1); len(one) != 1 || one[0].More {
		t.Errorf("of nothing: %+v", one)
	}
}

// TestSilentKeeper has a keeper that stands still, as one that was stopped: who waits for it can be told to leave.
func TestSilentKeeper(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	var listener net.Listener
	if err := throughDir(b.dir, socketName, func(path string) (err error) {
		listener, err = net.Listen("unix", path)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(filepath.Join(b.dir, socketName))
	defer listener.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		_, err := b.Held(ctx)
		ended <- err
	}()
	select {
	case err := <-ended:
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("it left with %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("it waits for ever")
	}
}

// TestSocketGone has a keeper's socket removed: the next client does not take it for dead, and its workers run on.
func TestSocketGone(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	began := make(chan struct{})
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	ended := make(chan isolation.Exit, 1)
	go func() {
		e, err := b.Run(ctx, b.spec("p", "while ! test -e $DIR/go; do sleep 0.01; done; exit 4"), func(isolation.Started) { close(began) })
		if err != nil {
			t.Error(err)
		}
		ended <- e
	}()
	<-began
	if err := os.Remove(filepath.Join(b.dir, socketName)); err != nil {
		t.Fatal(err)
	}
	if held, err := b.client().Held(t.Context()); err == nil {
		t.Errorf("held: %+v", held)
	}
	if err := os.WriteFile(filepath.Join(b.dir, "go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if e := <-ended; e.Code != 4 {
		t.Errorf("%+v", e)
	}
	b.Release("p")
}
