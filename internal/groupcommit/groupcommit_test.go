package groupcommit

import (
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"

	bolt "go.etcd.io/bbolt"
)

func TestUpdateFromMany(t *testing.T) {
	t.Parallel()
	db, err := bolt.Open(filepath.Join(t.TempDir(), "db"), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	g := New(db)
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
	g := New(db)
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
