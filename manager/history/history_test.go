package history

import (
	"bufio"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
	"go.uber.org/goleak"

	"github.com/mayfly/mayfly/manager"
	"github.com/mayfly/mayfly/queue"
)

// TestMain runs the test binary as a writer that is killed, where it is told to.
func TestMain(m *testing.M) {
	if path := os.Getenv("HISTORY_TEST_WRITER"); path != "" {
		writer(path)
		return
	}
	goleak.VerifyTestMain(m)
}

func record(task string, attempt int, state queue.State) manager.Record {
	return manager.Record{ID: queue.AttemptID(task, attempt), Command: "true", SettledAt: time.Now(), Fingerprint: [16]byte{1, 2, 3},
		Result: queue.Result{ID: task, Attempt: attempt, State: state, Host: "h"}}
}

func openTest(t *testing.T, path string, o Options) *Store {
	t.Helper()
	o.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	s, err := Open(path, o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestRecords(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "db")
	s := openTest(t, path, Options{MaxTasks: 100})
	put := func(r manager.Record) {
		t.Helper()
		if err := s.Put(r); err != nil {
			t.Fatal(err)
		}
	}
	put(record("a", 1, ""))
	put(record("b", 1, queue.Succeeded))
	put(record("a", 2, queue.Failed))
	if r, ok := s.Get("a"); !ok || r.Result.Attempt != 2 || r.Result.State != queue.Failed {
		t.Errorf("Get(a) = %+v, %t", r, ok)
	}
	if r, ok := s.Settled("a.1"); !ok || r.Result.State != "" || !r.AckedAt.IsZero() || r.Fingerprint != [16]byte{1, 2, 3} {
		t.Errorf("Settled(a.1) = %+v, %t", r, ok)
	}
	if _, ok := s.Settled("a.3"); ok {
		t.Error("an attempt that was never recorded is settled")
	}
	before := time.Now().Add(-time.Millisecond)
	s.Acked("a.1")
	s.Acked("nobody.1")
	list := s.Recent(10)
	if len(list) != 2 || list[0].Result.ID != "a" || list[1].Result.ID != "b" {
		t.Errorf("Recent = %+v, want a, b", list)
	}
	if list := s.Recent(1); len(list) != 1 {
		t.Errorf("Recent(1) has %d", len(list))
	}
	if err := s.MarkCancel("c", time.Now())(); err != nil {
		t.Fatal(err)
	}
	if err := s.MarkCancel("old", time.Now().Add(-2*cancelAge))(); err != nil {
		t.Fatal(err)
	}
	if err := s.MarkCancel("over", time.Now())(); err != nil {
		t.Fatal(err)
	}
	s.Unmark("over")
	if _, ok := s.CancelMark("over"); ok {
		t.Error("cancellation is not forgotten")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	s = openTest(t, path, Options{MaxTasks: 100})
	defer s.Close()
	if _, ok := s.CancelMark("over"); ok {
		t.Error("cancellation is not forgotten for good")
	}
	if r, ok := s.Settled("a.1"); !ok || r.AckedAt.Before(before) {
		t.Errorf("Settled(a.1) after opening again = %+v, %t, want it acknowledged", r, ok)
	}
	if _, ok := s.CancelMark("c"); !ok {
		t.Error("cancellation is forgotten")
	}
	if _, ok := s.CancelMark("old"); ok {
		t.Error("cancellation did not expire")
	}
	err := s.db.View(func(tx *bolt.Tx) error {
		if tx.Bucket(cancelsBucket).Get([]byte("old")) != nil {
			t.Error("the file keeps a cancellation that has expired")
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestRetention(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "db")
	var mu sync.Mutex
	var dropped []string
	onDrop := func(r manager.Record) {
		mu.Lock()
		defer mu.Unlock()
		dropped = append(dropped, r.ID)
	}
	s := openTest(t, path, Options{MaxTasks: 10, OnDrop: onDrop})
	for i := range 25 {
		if err := s.Put(record(fmt.Sprint("t", i), 1, queue.Succeeded)); err != nil {
			t.Fatal(err)
		}
	}
	// The same attempt again replaces its record and drops nothing: the files are the same.
	if err := s.Put(record("t24", 1, queue.Failed)); err != nil {
		t.Fatal(err)
	}
	if n := len(s.Recent(100)); n != 10 {
		t.Errorf("%d records are kept, want 10", n)
	}
	s.Close()
	var oldest []string
	for i := range 15 {
		oldest = append(oldest, fmt.Sprintf("t%d.1", i))
	}
	slices.Sort(oldest)
	slices.Sort(dropped) // they are told side by side
	if !slices.Equal(dropped, oldest) {
		t.Errorf("dropped %v, want the 15 oldest", dropped)
	}

	dropped = nil
	s = openTest(t, path, Options{MaxTasks: 10, MaxAge: time.Nanosecond, OnDrop: onDrop})
	if _, ok := s.Get("t24"); !ok || len(s.Recent(100)) != 1 {
		t.Errorf("%d records are kept although all are too old, want the newest", len(s.Recent(100)))
	}
	s.Close()
	if len(dropped) != 9 {
		t.Errorf("dropped %v, want all but one", dropped)
	}
}

// TestNewestStays holds that whoever waits for a task finds its record, whatever the bounds.
func TestNewestStays(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]Options{"number": {}, "age": {MaxTasks: 10, MaxAge: 1}, "size": {MaxTasks: 10, MaxBytes: 1}} {
		s := openTest(t, filepath.Join(t.TempDir(), "db"), o)
		for i := range 3 {
			task := fmt.Sprint("t", i)
			if err := s.Put(record(task, 1, queue.Succeeded)); err != nil {
				t.Fatal(err)
			}
			if _, ok := s.Get(task); !ok || len(s.Recent(10)) != 1 {
				t.Errorf("%s: after %s there are %d records", name, task, len(s.Recent(10)))
			}
		}
		s.Close()
	}
}

func TestSpoiltFile(t *testing.T) {
	t.Parallel()
	for name, content := range map[string]string{"nonsense": strings.Repeat("nonsense", 4096), "short": "x"} {
		dir := t.TempDir()
		path := filepath.Join(dir, "db")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		s := openTest(t, path, Options{MaxTasks: 10})
		if err := s.Put(record("a", 1, queue.Succeeded)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		s.Close()
		if aside, _ := filepath.Glob(path + ".spoilt-*"); len(aside) != 1 {
			t.Errorf("%s: the spoilt file was not kept: %v", name, aside)
		}
	}
}

// writer puts records and says each number once it is stored.
func writer(path string) {
	s, err := Open(path, Options{MaxTasks: 1 << 30, Log: slog.Default()})
	if err != nil {
		panic(err)
	}
	for i := 0; ; i++ {
		if err := s.Put(record(fmt.Sprint("t", i), 1, queue.Succeeded)); err != nil {
			panic(err)
		}
		fmt.Println(i)
	}
}

// TestKilled holds that what Put has stored is there after a SIGKILL.
func TestKilled(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "db")
	for round := range 5 {
		c := exec.CommandContext(t.Context(), os.Args[0])
		c.Env = append(os.Environ(), "HISTORY_TEST_WRITER="+path)
		out, err := c.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		last, said := "", bufio.NewScanner(out)
		for n := 0; said.Scan(); n++ {
			last = said.Text()
			if n == 50*(round+1) {
				if err := c.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		c.Wait()
		s := openTest(t, path, Options{MaxTasks: 1 << 30})
		if _, ok := s.Settled("t" + last + ".1"); !ok {
			t.Errorf("round %d: record %s was stored and is gone", round, last)
		}
		if aside, _ := filepath.Glob(path + ".spoilt-*"); len(aside) != 0 {
			t.Errorf("round %d: SIGKILL spoilt the file", round)
		}
		s.Close()
	}
}
