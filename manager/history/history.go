// Package history keeps manager.History in a bbolt file.
//
// # Theory of operation
//
// Records are stored under a growing number, with three indexes: a task's latest record, an attempt's record, and the words of
// each record that people search by. Commits are
// shared (groupcommit). Without Options.Sync a commit is written but not flushed to the disk: it survives the death of
// the process, which is what the record is for, and not that of the machine, with which all workers die too. A file
// that a power cut has spoilt is moved aside: history is never the only source of what is owed to a producer.
//
// Old records go when new ones come: by number, by age and by size, never on a timer, so that an idle host has nothing to do.
package history

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/mayfly/mayfly/internal/groupcommit"
	"github.com/mayfly/mayfly/internal/logkey"
	"github.com/mayfly/mayfly/manager"
)

var (
	recordsBucket  = []byte("records")  // number -> time of acknowledgement, record as JSON
	tasksBucket    = []byte("tasks")    // task id -> number of its latest record
	attemptsBucket = []byte("attempts") // attempt id -> number
	cancelsBucket  = []byte("cancels")  // task id -> time of the mark
)

// cancelAge is how long a cancellation waits for its task to turn up.
const cancelAge = 24 * time.Hour

// cancelSweep is how often those that are too old are forgotten: there may be many, and many may come at once.
const cancelSweep = 10 * time.Minute

// commitPace is the least time between two commits that are not flushed: a busy host shares them, and nothing waits for one but an acknowledgement.
const commitPace = 10 * time.Millisecond

// Options of a store.
type Options struct {
	// MaxTasks is the number of records kept.
	MaxTasks int
	// MaxAge is how long they are kept; 0 means for ever.
	MaxAge time.Duration
	// MaxBytes is how much they may take, with what Kept says is kept of the attempt beside its record; 0 means no bound.
	MaxBytes int64
	Kept     func(attemptID string) int64
	// Sync flushes each commit to the disk: needed where no broker keeps the results.
	Sync bool
	// OnDrop is called for each record that is dropped, on a goroutine of its own.
	OnDrop func(manager.Record)
	Log    *slog.Logger
}

// Store is a manager.History.
type Store struct {
	db      *bolt.DB
	commits *groupcommit.Group
	options Options

	// lookMost bounds a look through the index.
	lookMost int

	mu      sync.Mutex
	held    totals
	cancels map[string]time.Time // what the bucket holds: read for every task
	// cancelsSwept is when those that are too old were looked for.
	cancelsSwept time.Time
	drops        sync.WaitGroup

	complained sync.Once // of a record that cannot be read
}

var _ manager.History = (*Store)(nil)

// Open opens or makes the store. A file that cannot be read is moved aside, loudly.
func Open(path string, o Options) (*Store, error) {
	db, err := open(path, o)
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, fmt.Errorf("cannot open the history %s: another manager uses it", path)
	}
	if err != nil {
		aside := fmt.Sprintf("%s.spoilt-%d", path, time.Now().Unix())
		if renameErr := os.Rename(path, aside); renameErr != nil {
			return nil, fmt.Errorf("cannot open the history %s: %w", path, err)
		}
		o.Log.Error("history was spoilt and is begun anew", logkey.Path, aside, logkey.Err, err)
		if db, err = open(path, o); err != nil {
			return nil, fmt.Errorf("cannot open the history %s: %w", path, err)
		}
	}
	pace := commitPace
	if o.Sync { // the disk's own is enough
		pace = 0
	}
	s := &Store{db: db, commits: groupcommit.New(db, pace), options: o, lookMost: lookMost, cancels: map[string]time.Time{}}
	if err := s.load(); err != nil {
		db.Close()
		return nil, fmt.Errorf("cannot read the history %s: %w", path, err)
	}
	s.release()
	return s, nil
}

// open opens the file and walks through it: bbolt panics on some kinds of spoilt pages, which is no way to start.
func open(path string, o Options) (db *bolt.DB, err error) {
	defer func() {
		if p := recover(); p != nil {
			if db != nil {
				db.Close()
			}
			db, err = nil, fmt.Errorf("its pages are spoilt: %v", p)
		}
	}()
	db, err = bolt.Open(path, 0o600, &bolt.Options{Timeout: time.Second, NoSync: !o.Sync, NoFreelistSync: true, FreelistType: bolt.FreelistMapType})
	if err != nil {
		return nil, err
	}
	err = db.Update(func(tx *bolt.Tx) error {
		for _, name := range [][]byte{recordsBucket, tasksBucket, attemptsBucket, cancelsBucket, indexBucket} {
			b, err := tx.CreateBucketIfNotExists(name)
			if err != nil {
				return err
			}
			if err := b.ForEach(func(k, v []byte) error { return nil }); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		db.Close()
		return nil, err
	}
	return db, nil
}

// load reads what is held in memory, and drops what is too old.
func (s *Store) load() error {
	now := time.Now()
	var dropped []manager.Record
	err := s.db.Update(func(tx *bolt.Tx) error {
		var err error
		if s.held, err = s.loadIndex(tx); err != nil {
			return err
		}
		cancels := tx.Bucket(cancelsBucket)
		var expired [][]byte
		err = cancels.ForEach(func(k, v []byte) error {
			if at := decodeTime(v); now.Sub(at) < cancelAge {
				s.cancels[string(k)] = at
			} else {
				expired = append(expired, bytes.Clone(k))
			}
			return nil
		})
		if err != nil {
			return err
		}
		for _, k := range expired {
			if err := cancels.Delete(k); err != nil {
				return err
			}
		}
		dropped, err = s.prune(tx, s.held, &s.held, now)
		return err
	})
	s.drop(dropped)
	return err
}

// Put implements manager.History.
func (s *Store) Put(r manager.Record) error {
	value, err := encode(r)
	if err != nil {
		return fmt.Errorf("cannot encode the record of %s: %w", r.ID, err)
	}
	e := newEntry(&r, s.size(&r, value))
	var changed totals
	var dropped []manager.Record
	err = s.commits.Update(func(tx *bolt.Tx) error {
		changed, dropped = totals{}, nil
		records, attempts, tasks := tx.Bucket(recordsBucket), tx.Bucket(attemptsBucket), tx.Bucket(tasksBucket)
		if old := tasks.Get([]byte(r.Result.ID)); old != nil {
			if err := unlist(tx, old, &changed); err != nil {
				return err
			}
		}
		if old := attempts.Get([]byte(r.ID)); old != nil { // a task id that was used before: its files are overwritten
			if err := remove(tx, old, &changed); err != nil {
				return err
			}
		}
		n, err := records.NextSequence()
		if err != nil {
			return err
		}
		key := binary.BigEndian.AppendUint64(nil, n)
		if err := records.Put(key, value); err != nil {
			return err
		}
		if err := tx.Bucket(indexBucket).Put(key, e); err != nil {
			return err
		}
		changed.add(e, 1)
		if err := attempts.Put([]byte(r.ID), key); err != nil {
			return err
		}
		if err := tasks.Put([]byte(r.Result.ID), key); err != nil {
			return err
		}
		s.mu.Lock()
		held := totals{count: s.held.count + changed.count, bytes: s.held.bytes + changed.bytes}
		s.mu.Unlock()
		dropped, err = s.prune(tx, held, &changed, time.Now())
		return err
	})
	if err != nil {
		return fmt.Errorf("cannot store the record of %s: %w", r.ID, err)
	}
	s.mu.Lock()
	s.held.change(&changed)
	s.mu.Unlock()
	s.drop(dropped)
	return nil
}

// get reads the record that an index names.
func (s *Store) get(index []byte, id string) (r manager.Record, ok bool) {
	err := s.db.View(func(tx *bolt.Tx) error {
		key := tx.Bucket(index).Get([]byte(id))
		if key == nil {
			return nil
		}
		value := tx.Bucket(recordsBucket).Get(key)
		if value == nil {
			return nil
		}
		r, ok = s.read(key, value)
		return nil
	})
	if err != nil {
		s.options.Log.Error("history not read", logkey.Err, err)
	}
	return r, ok
}

// Get implements manager.History.
func (s *Store) Get(taskID string) (manager.Record, bool) { return s.get(tasksBucket, taskID) }

// Settled implements manager.History.
func (s *Store) Settled(attemptID string) (manager.Record, bool) {
	return s.get(attemptsBucket, attemptID)
}

// Recent implements manager.History.
func (s *Store) Recent(n int) []manager.Record {
	var list []manager.Record
	err := s.db.View(func(tx *bolt.Tx) error {
		tasks := tx.Bucket(tasksBucket)
		c := tx.Bucket(recordsBucket).Cursor()
		decoded := 0
		for k, v := c.Last(); k != nil && len(list) < n && decoded < recentMost; k, v = c.Prev() {
			decoded += len(v)
			r, ok := s.read(k, v)
			// Earlier attempts of a task are part of its latest record.
			if ok && r.Result.State != "" && string(tasks.Get([]byte(r.Result.ID))) == string(k) {
				list = append(list, r)
			}
		}
		return nil
	})
	if err != nil {
		s.options.Log.Error("history not read", logkey.Err, err)
	}
	return list
}

// Acked implements manager.History.
func (s *Store) Acked(attemptID string) {
	now := time.Now()
	s.commits.Later(func(tx *bolt.Tx) error {
		key := tx.Bucket(attemptsBucket).Get([]byte(attemptID))
		records := tx.Bucket(recordsBucket)
		value := records.Get(key)
		if key == nil || value == nil {
			return nil
		}
		// bbolt's memory must not be written to.
		value = append(encodeTime(now), value[timeSize:]...)
		return records.Put(key, value)
	})
}

// MarkCancel implements manager.History.
func (s *Store) MarkCancel(taskID string, at time.Time) (kept func() error) {
	s.mu.Lock()
	defer s.mu.Unlock() // so that the file has one after the other as the memory has
	var expired []string
	if now := time.Now(); now.Sub(s.cancelsSwept) > cancelSweep {
		s.cancelsSwept = now
		for id, marked := range s.cancels {
			if now.Sub(marked) > cancelAge {
				expired = append(expired, id)
				delete(s.cancels, id)
			}
		}
	}
	s.cancels[taskID] = at
	committed := s.commits.Begin(func(tx *bolt.Tx) error {
		b := tx.Bucket(cancelsBucket)
		for _, id := range expired {
			if err := b.Delete([]byte(id)); err != nil {
				return err
			}
		}
		return b.Put([]byte(taskID), encodeTime(at))
	})
	return func() error {
		if err := committed(); err != nil {
			return fmt.Errorf("cannot store the cancellation of %s: %w", taskID, err)
		}
		return nil
	}
}

// CancelMark implements manager.History.
func (s *Store) CancelMark(taskID string) (time.Time, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at, ok := s.cancels[taskID]
	if !ok || time.Since(at) > cancelAge {
		return time.Time{}, false
	}
	return at, true
}

// Unmark implements manager.History. Where the process dies before it is kept, the mark is as old as it was.
func (s *Store) Unmark(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.cancels[name]; !ok {
		return
	}
	delete(s.cancels, name)
	s.commits.Later(func(tx *bolt.Tx) error { return tx.Bucket(cancelsBucket).Delete([]byte(name)) })
}

// Close waits for what is under way and closes the file.
func (s *Store) Close() error {
	s.commits.Flush()
	s.drops.Wait()
	return s.db.Close()
}

const timeSize = 8
