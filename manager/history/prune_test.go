package history

import (
	"encoding/binary"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	bolt "go.etcd.io/bbolt"

	"github.com/mayfly/mayfly/manager"
	"github.com/mayfly/mayfly/queue"
)

// unread makes a record unreadable, as a result that is nested deeper than encoding/json reads makes it.
func unread(t *testing.T, s *Store, n uint64) {
	t.Helper()
	err := s.db.Update(func(tx *bolt.Tx) error {
		value := string(make([]byte, timeSize)) + `{"result":{"result":` + strings.Repeat("[", 9999) + strings.Repeat("]", 9999) + `}}`
		return tx.Bucket(recordsBucket).Put(binary.BigEndian.AppendUint64(nil, n), []byte(value))
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestUnreadableRecord holds that a record that cannot be read is passed over, told once, and goes in its turn.
func TestUnreadableRecord(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "db")
	var mu sync.Mutex
	var dropped []string
	var log strings.Builder
	options := Options{MaxTasks: 3, Log: slog.New(slog.NewTextHandler(&log, nil)), OnDrop: func(r manager.Record) {
		mu.Lock()
		defer mu.Unlock()
		dropped = append(dropped, r.ID)
	}}
	open := func(o Options) *Store {
		t.Helper()
		s, err := Open(path, o)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	s := open(options)
	put := func(task string) {
		t.Helper()
		if err := s.Put(record(task, 1, queue.Succeeded)); err != nil {
			t.Fatal(err)
		}
	}
	shown := func(want ...string) {
		t.Helper()
		var recent []string
		for _, r := range s.Recent(10) {
			recent = append(recent, r.Result.ID)
		}
		if ids, _ := all(t, s, manager.Filter{}, 2); !slices.Equal(recent, want) || !slices.Equal(ids, want) {
			t.Errorf("shown: recent %v, paged %v, want %v", recent, ids, want)
		}
	}
	for _, task := range []string{"a", "b", "c"} {
		put(task)
	}
	unread(t, s, 2)
	shown("c", "a")
	if r, ok := s.Get("b"); ok {
		t.Errorf("Get(b) = %+v", r)
	}
	if n := strings.Count(log.String(), "level=ERROR"); n != 1 {
		t.Errorf("told %d times: %s", n, log.String())
	}
	// As a version without an index has left it.
	if err := s.db.Update(func(tx *bolt.Tx) error { return tx.DeleteBucket(indexBucket) }); err != nil {
		t.Fatal(err)
	}
	s.Close()
	s = open(options)
	shown("c", "a")
	if s.held.count != 3 {
		t.Errorf("held: %+v", s.held)
	}
	put("d")
	shown("d", "c")
	put("e")
	put("f")
	shown("f", "e", "d")
	unread(t, s, 4) // d, now the oldest
	s.Close()
	options.MaxTasks = 2 // and the oldest goes at the start
	s = open(options)
	shown("f", "e")
	for _, id := range []string{"b", "d"} {
		_ = s.db.View(func(tx *bolt.Tx) error {
			if tx.Bucket(tasksBucket).Get([]byte(id)) != nil || tx.Bucket(attemptsBucket).Get([]byte(id+".1")) != nil {
				t.Errorf("the indexes still have %s", id)
			}
			return nil
		})
	}
	if s.held.count != 2 {
		t.Errorf("held: %+v", s.held)
	}
	s.Close()
	if want := []string{"a.1", "b.1", "c.1", "d.1"}; !slices.Equal(slices.Sorted(slices.Values(dropped)), want) {
		t.Errorf("dropped %v, want %v", dropped, want)
	}
}
