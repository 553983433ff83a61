package history

import (
	"bytes"
	"encoding/binary"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/mayfly/mayfly/internal/logkey"
	"github.com/mayfly/mayfly/manager"
)

// pruneMost bounds how many records one commit drops.
const pruneMost = 16

// prune deletes the oldest records while there are too many, or they are too old or too large, but never the newest, which somebody may be waiting
// for: held says how many there are and how large they are, changed is told what went. Of one that cannot be read only the attempt's id is told, if that.
func (s *Store) prune(tx *bolt.Tx, held totals, changed *totals, now time.Time) ([]manager.Record, error) {
	var dropped []manager.Record
	c, index := tx.Bucket(recordsBucket).Cursor(), tx.Bucket(indexBucket)
	newest, _ := c.Last()
	newest = bytes.Clone(newest)
	n := 0
	for k, v := c.First(); !bytes.Equal(k, newest) && n < pruneMost; k, v = c.First() {
		e := entry(index.Get(k))
		old := s.options.MaxAge > 0 && e.whole() && now.Sub(e.settled()) > s.options.MaxAge
		large := s.options.MaxBytes > 0 && held.bytes > s.options.MaxBytes
		if !old && !large && held.count <= s.options.MaxTasks {
			break
		}
		k := bytes.Clone(k) // bbolt's memory changes with what is deleted
		if e.whole() {
			held.bytes -= e.size()
		}
		held.count--
		r, ok := s.read(k, v)
		if !ok {
			r = named(tx, k)
		}
		for bucket, id := range map[*bolt.Bucket]string{tx.Bucket(attemptsBucket): r.ID, tx.Bucket(tasksBucket): r.Result.ID} {
			if bytes.Equal(bucket.Get([]byte(id)), k) {
				if err := bucket.Delete([]byte(id)); err != nil {
					return nil, err
				}
			}
		}
		if err := remove(tx, k, changed); err != nil {
			return nil, err
		}
		if n++; r.ID != "" {
			dropped = append(dropped, r)
		}
	}
	return dropped, nil
}

// read decodes a record. One that cannot be read is passed over, for the others are of use without it; the first one is told.
func (s *Store) read(key, value []byte) (manager.Record, bool) {
	r, err := decode(value)
	if err != nil {
		s.complained.Do(func() {
			s.options.Log.Error("record of the history cannot be read and is passed over, as all such are", "record", binary.BigEndian.Uint64(key), logkey.Err, err)
		})
	}
	return r, err == nil
}

// named is what the indexes say of a record that cannot be read: its attempt and its task, as far as they know it. It looks at all they have, for there is next to never such a record.
func named(tx *bolt.Tx, key []byte) (r manager.Record) {
	for bucket, id := range map[*bolt.Bucket]*string{tx.Bucket(attemptsBucket): &r.ID, tx.Bucket(tasksBucket): &r.Result.ID} {
		c := bucket.Cursor()
		for k, v := c.First(); k != nil; k, v = c.Next() {
			if bytes.Equal(v, key) {
				*id = string(k)
			}
		}
	}
	return r
}

// drop tells of dropped records.
func (s *Store) drop(records []manager.Record) {
	if len(records) == 0 || s.options.OnDrop == nil {
		return
	}
	s.drops.Go(func() {
		for _, r := range records {
			s.options.OnDrop(r)
		}
	})
}
