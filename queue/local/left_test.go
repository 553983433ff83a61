package local

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/mayfly/mayfly/queue"
)

// TestHolds tells what is to be run here, now or later, from what is not.
func TestHolds(t *testing.T) {
	t.Parallel()
	q, err := Open(filepath.Join(t.TempDir(), "queue.db"), Options{Pools: []string{"default"}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	holds := func(want bool, what string) {
		t.Helper()
		if got := q.Holds(); got != want {
			t.Errorf("%s: %t", what, got)
		}
	}
	put := func(pool string, ready time.Time) {
		t.Helper()
		if err := q.commits.Update(func(tx *bolt.Tx) error {
			_, err := store(tx, queue.Message{Pool: pool, Band: queue.Low, Body: []byte("{}")}, ready)
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	holds(false, "an empty queue")
	put("other", time.Time{})
	put("other", time.Now().Add(time.Hour))
	holds(false, "a pool that is not served")
	put("default", time.Now().Add(2*time.Hour))
	holds(true, "one for later")
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	holds(false, "a closed queue")
}

// TestLeft counts what a queue that nobody serves holds, and leaves it as it is.
func TestLeft(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "queue.db")
	expect := func(tasks, dead int) {
		t.Helper()
		if a, b, err := Left(path); a != tasks || b != dead || err != nil {
			t.Errorf("%d tasks, %d dead letters, %v; want %d and %d", a, b, err, tasks, dead)
		}
	}
	expect(0, 0)
	if _, err := os.Stat(path); err == nil {
		t.Error("looking made the file")
	}
	q, err := Open(path, Options{Pools: []string{"default"}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := q.Publish(t.Context(), queue.Message{Pool: "other", Band: queue.Normal, Body: []byte("{}")}); err != nil {
			t.Fatal(err)
		}
	}
	expect(0, 0) // it is served
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	expect(3, 0)
	if err := os.WriteFile(path, []byte("no database"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Left(path); err == nil {
		t.Error("no error for what is no database")
	}
}
