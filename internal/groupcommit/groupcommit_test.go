package groupcommit

import (
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
)

func TestUpdateFromMany(t *testing.T) {
	t.Parallel()
	db, err := bolt.Open(filepath.Join(t.TempDir(), "db"), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	g := New(db, 0)
	bucket := []byte("b")
	wrong := errors.New("this one is wrong")
	var wg sync.WaitGroup
	for i := range 500 {
		wg.Go(func() {
			err := g.Update(func(tx *bolt.Tx) error {
				b, err := tx.CreateBucketIfNotExists(bucket)
				if err != nil {
					return err
				}
				if i%50 == 7 {
					return wrong
				}
				return b.Put(fmt.Append(nil, i), []byte{1})
			})
			if (i%50 == 7) != errors.Is(err, wrong) {
				t.Errorf("change %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	err = db.View(func(tx *bolt.Tx) error {
		for i := range 500 {
			if got := tx.Bucket(bucket).Get(fmt.Append(nil, i)); (got == nil) != (i%50 == 7) {
				t.Errorf("change %d: stored %v", i, got)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestLaterAndFlush(t *testing.T) {
	t.Parallel()
	db, err := bolt.Open(filepath.Join(t.TempDir(), "db"), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	g := New(db, 0)
	g.Later(func(tx *bolt.Tx) error { _, err := tx.CreateBucket([]byte("b")); return err })
	g.Flush()
	if err := db.View(func(tx *bolt.Tx) error {
		if tx.Bucket([]byte("b")) == nil {
			t.Error("not committed after Flush")
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// TestPace makes changes right after another: they share one commit.
func TestPace(t *testing.T) {
	t.Parallel()
	db, err := bolt.Open(filepath.Join(t.TempDir(), "db"), 0o600, &bolt.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	g := New(db, 300*time.Millisecond)
	commits := map[int]int{}
	note := func(tx *bolt.Tx) error { commits[tx.ID()]++; return nil }
	if err := g.Update(note); err != nil || len(commits) != 1 {
		t.Fatalf("%v, %v", commits, err)
	}
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			if err := g.Update(note); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if len(commits) > 3 { // two, unless somebody was late
		t.Errorf("commits and their changes: %v", commits)
	}
}
