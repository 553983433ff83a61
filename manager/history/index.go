package history

import (
	"bytes"
	"encoding/binary"
	"strings"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/mayfly/mayfly/manager"
	"github.com/mayfly/mayfly/queue"
)

// indexBucket has an entry for each record, under the same number: what a look through the history needs of it, so that a hundred
// thousand can be looked through without decoding one.
var indexBucket = []byte("index")

// entry is what the index holds of a record: flags, time of settling, size, then the words.
//
//	flags    1 byte
//	settled  8 bytes, nanoseconds
//	size     8 bytes: of the record and the output that is kept with it
//	state, cause, pool, text: each ended by a zero byte but the last
type entry []byte

const (
	// listed marks the latest record of a task that has ended: only such are shown.
	listed = 1 << iota
	// shortened marks a text that does not hold all of the labels.
	shortened
)

const (
	entryHead = 1 + 8 + 8
	// textCommand and textMost bound how much of a command, and of all words, can be searched for.
	textCommand = 512
	textMost    = 2048
)

// newEntry makes the entry of a record of so many bytes.
func newEntry(r *manager.Record, size int64) entry {
	var text strings.Builder
	add := func(s string) bool {
		if text.Len()+len(s)+1 > textMost {
			return false
		}
		// Each word stands between two zero bytes, and none holds one.
		text.WriteString(strings.ReplaceAll(s, "\x00", " "))
		text.WriteByte(0)
		return true
	}
	text.WriteByte(0)
	flags := byte(0)
	if r.Result.State != "" {
		flags |= listed
	}
	add(r.Result.ID)
	add(shorten(r.Result.Name, textCommand))
	add(shorten(r.Command, textCommand))
	for k, v := range r.Labels {
		if !add(k + "=" + v) {
			flags |= shortened
		}
	}
	e := make(entry, entryHead, entryHead+128)
	e[0] = flags
	binary.BigEndian.PutUint64(e[1:], uint64(r.SettledAt.UnixNano()))
	binary.BigEndian.PutUint64(e[9:], uint64(size))
	for _, word := range []string{string(r.Result.State), string(r.Result.Cause), r.Result.Pool} {
		e = append(append(e, strings.ReplaceAll(word, "\x00", " ")...), 0)
	}
	return append(e, strings.ToLower(text.String())...)
}

func shorten(s string, most int) string { return s[:min(len(s), most)] }

func (e entry) whole() bool        { return len(e) >= entryHead }
func (e entry) listed() bool       { return e[0]&listed != 0 }
func (e entry) shortened() bool    { return e[0]&shortened != 0 }
func (e entry) settled() time.Time { return time.Unix(0, int64(binary.BigEndian.Uint64(e[1:]))) }
func (e entry) size() int64        { return int64(binary.BigEndian.Uint64(e[9:])) }

// words splits what can be asked for.
func (e entry) words() (state, cause, pool, text []byte) {
	rest := e[entryHead:]
	state, rest, _ = bytes.Cut(rest, []byte{0})
	cause, rest, _ = bytes.Cut(rest, []byte{0})
	pool, text, _ = bytes.Cut(rest, []byte{0})
	return state, cause, pool, text
}

// size is what a record takes, with what is kept beside it.
func (s *Store) size(r *manager.Record, value []byte) int64 {
	n := int64(len(value))
	if s.options.Kept != nil && !r.Remote {
		n += s.options.Kept(r.ID)
	}
	return n
}

// totals are what the store holds in all.
type totals struct {
	count int
	bytes int64
	// ended counts the listed records by state.
	ended map[queue.State]int
}

// add adds an entry, or takes it away with -1.
func (t *totals) add(e entry, n int) {
	t.count += n
	t.bytes += int64(n) * e.size()
	t.list(e, n)
}

// list counts an entry among those that are shown, if it is.
func (t *totals) list(e entry, n int) {
	if !e.listed() {
		return
	}
	if t.ended == nil {
		t.ended = map[queue.State]int{}
	}
	state, _, _, _ := e.words()
	t.ended[queue.State(state)] += n
}

// change applies a change.
func (t *totals) change(by *totals) {
	t.count += by.count
	t.bytes += by.bytes
	if t.ended == nil {
		t.ended = map[queue.State]int{}
	}
	for state, n := range by.ended {
		t.ended[state] += n
	}
}

// remove takes a record and its entry out of the store.
func remove(tx *bolt.Tx, key []byte, by *totals) error {
	index := tx.Bucket(indexBucket)
	if e := entry(index.Get(key)); e.whole() {
		by.add(e, -1)
	}
	if err := index.Delete(key); err != nil {
		return err
	}
	return tx.Bucket(recordsBucket).Delete(key)
}

// unlist hides a record that is no longer the latest of its task.
func unlist(tx *bolt.Tx, key []byte, by *totals) error {
	index := tx.Bucket(indexBucket)
	e := entry(bytes.Clone(index.Get(key))) // bbolt's memory must not be written to
	if !e.whole() || !e.listed() {
		return nil
	}
	by.list(e, -1)
	e[0] &^= listed
	return index.Put(key, e)
}

// loadIndex counts what there is, and makes the index anew where it does not fit the records: it was kept by a version without one.
func (s *Store) loadIndex(tx *bolt.Tx) (t totals, err error) {
	records, index := tx.Bucket(recordsBucket), tx.Bucket(indexBucket)
	fits := true
	c := index.Cursor()
	for k, v := c.First(); k != nil && fits; k, v = c.Next() {
		if fits = entry(v).whole() && records.Get(k) != nil; fits {
			t.add(v, 1)
		}
	}
	if fits && t.count == records.Stats().KeyN {
		return t, nil
	}
	t = totals{}
	if err := tx.DeleteBucket(indexBucket); err != nil {
		return t, err
	}
	if index, err = tx.CreateBucket(indexBucket); err != nil {
		return t, err
	}
	tasks := tx.Bucket(tasksBucket)
	err = records.ForEach(func(k, v []byte) error {
		r, ok := s.read(k, v)
		if !ok { // it counts, though nobody sees it, and is old: it goes as soon as it is the oldest
			r = manager.Record{SettledAt: time.Unix(0, 0)}
		}
		e := newEntry(&r, s.size(&r, v))
		if !bytes.Equal(tasks.Get([]byte(r.Result.ID)), k) {
			e[0] &^= listed
		}
		t.add(e, 1)
		return index.Put(k, e)
	})
	return t, err
}
