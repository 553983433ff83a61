package container_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mayfly/mayfly/integration/docker"
	"github.com/mayfly/mayfly/isolation"
)

// anotherLife has containers found by a new life: one that runs, one that has ended, and one that nobody knows.
func (b *bench) anotherLife(t *testing.T) {
	specs := []isolation.Spec{b.spec("runs", "echo a; while ! test -e $OWN/scratch/go; do sleep 0.05; done; echo b; exit 6"), b.spec("ends", "echo c; exit 7")}
	var all sync.WaitGroup
	for _, s := range specs {
		began := make(chan isolation.Started, 1)
		all.Go(func() {
			if _, err := b.Run(context.Background(), s, func(st isolation.Started) { began <- st }); err != isolation.ErrDetached && s.ID == "runs" {
				t.Errorf("%s: %v", s.ID, err)
			}
		})
		<-began
	}
	for !strings.Contains(strings.Join(b.docker.Containers(), "\n"), "Exited") {
		time.Sleep(10 * time.Millisecond)
	}
	b.Detach()
	all.Wait()
	b.again()
	held, err := b.Held(t.Context())
	if err != nil || len(held) != 2 {
		t.Fatalf("held: %+v, %v", held, err)
	}
	for _, h := range held {
		if string(h.Note) != "note of "+h.ID || (h.ID == "ends") != (h.Exit != nil) || h.Started.At.IsZero() {
			t.Errorf("%+v", h)
		}
	}
	if e := b.run(isolation.Spec{ID: "ends", Image: docker.Image}); e.Code != 7 || b.read("ends", "out") != "c\n" {
		t.Errorf("the one that had ended: %+v, %q", e, b.read("ends", "out"))
	}
	if err := os.WriteFile(filepath.Join(b.dir, "runs/work/scratch/go"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if e := b.run(isolation.Spec{ID: "runs", Image: docker.Image}); e.Code != 6 || b.read("runs", "out") != "a\nb\n" {
		t.Errorf("the one that ran on: %+v, %q", e, b.read("runs", "out"))
	}
	b.nothingLeft()
}

// cutOff has a manager end before it has said all of a program's input: the next one does not take the half of it for the whole. Of one
// that has all of it, nothing is lost.
func (b *bench) cutOff(t *testing.T) {
	for id, size := range map[string]int{"half": 8 << 20, "whole": 1000} {
		s := b.spec(id, "while ! test -e $OWN/scratch/go; do sleep 0.05; done; wc -c")
		s.Stdin = filepath.Join(b.dir, id+".in")
		if err := os.WriteFile(s.Stdin, make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
		began, done := make(chan struct{}), make(chan error, 1)
		go func() {
			_, err := b.Run(context.Background(), s, func(isolation.Started) { close(began) })
			done <- err
		}()
		<-began
		for end := time.Now().Add(10 * time.Second); id == "whole" && time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
			if _, err := os.Lstat(s.Private + ".fed"); err == nil {
				break
			}
		}
		b.Detach()
		if err := <-done; err != isolation.ErrDetached {
			t.Errorf("%s: %v", id, err)
		}
		b.again()
		if held, err := b.Held(t.Context()); err != nil || len(held) != 1 {
			t.Errorf("%s: held %+v, %v", id, held, err)
		}
		if err := os.WriteFile(filepath.Join(s.Private, "scratch/go"), nil, 0o644); err != nil {
			t.Error(err)
		}
		e := b.run(isolation.Spec{ID: id, Image: docker.Image, Joins: true})
		if said := b.read(id, "out"); e.Lost != (id == "half") || id == "whole" && said != "1000\n" {
			t.Errorf("%s: it read %q, %+v", id, said, e)
		}
	}
	if e := b.run(isolation.Spec{ID: "whole", Image: docker.Image, Joins: true}); !e.Lost {
		t.Errorf("one that is not there any more: %+v", e)
	}
	b.nothingLeft()
}
