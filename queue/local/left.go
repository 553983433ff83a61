package local

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// Left counts what lies in the queue of a file that nobody serves: tasks, and dead letters. Nothing is changed; there may be no such file.
func Left(path string) (tasks, dead int, err error) {
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return 0, 0, nil
	}
	defer func() {
		if p := recover(); p != nil { // bbolt panics on some kinds of spoilt pages
			err = fmt.Errorf("cannot look into the embedded queue %s: its pages are spoilt: %v", path, p)
		}
	}()
	db, err := bolt.Open(path, 0o600, &bolt.Options{Timeout: time.Second, ReadOnly: true})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return 0, 0, nil // it is served
	}
	if err != nil {
		return 0, 0, fmt.Errorf("cannot look into the embedded queue %s: %w", path, err)
	}
	defer db.Close()
	err = db.View(func(tx *bolt.Tx) error {
		for name, n := range map[string]*int{string(messagesBucket): &tasks, string(deadBucket): &dead} {
			b := tx.Bucket([]byte(name))
			if b == nil {
				continue
			}
			c := b.Cursor()
			for k, _ := c.First(); k != nil; k, _ = c.Next() {
				*n++
			}
		}
		return nil
	})
	return tasks, dead, err
}
