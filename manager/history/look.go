package history

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"
	"time"

	bolt "go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"github.com/mayfly/mayfly/internal/logkey"
	"github.com/mayfly/mayfly/manager"
	"github.com/mayfly/mayfly/queue"
)

var _ manager.Archive = (*Store)(nil)

// What one look through the history may cost, so that nobody's search holds up a host: some tens of milliseconds.
const (
	// lookMost is how many entries of the index it looks at.
	lookMost = 100_000
	// decodeMost is how many bytes of records it decodes.
	decodeMost = 4 << 20
	// recentMost is the same for the latest records, which have no pages that go on.
	recentMost = 16 << 20
)

// Page implements manager.Archive.
func (s *Store) Page(f manager.Filter, before uint64, limit int) (page []manager.Record, next uint64, err error) {
	wanted := newSearch(f)
	looked := 0
	defer func() {
		if looked >= releaseFrom {
			s.release()
		}
	}()
	err = s.db.View(func(tx *bolt.Tx) error {
		records, c := tx.Bucket(recordsBucket), tx.Bucket(indexBucket).Cursor()
		decoded := 0
		k, v := newest(c, before)
		for ; k != nil; k, v = c.Prev() {
			if len(page) >= limit || looked >= s.lookMost || decoded >= decodeMost {
				return nil
			}
			looked++
			next = binary.BigEndian.Uint64(k)
			if !wanted.matches(v) {
				continue
			}
			value := records.Get(k)
			decoded += len(value)
			if r, ok := s.read(k, value); ok && f.HasLabel(r.Labels) {
				page = append(page, r)
			}
		}
		next = 0
		return nil
	})
	return page, next, err
}

// newest moves a cursor to the newest entry, or the newest before a number.
func newest(c *bolt.Cursor, before uint64) (k, v []byte) {
	if before == 0 {
		return c.Last()
	}
	if k, _ = c.Seek(binary.BigEndian.AppendUint64(nil, before)); k == nil {
		return c.Last()
	}
	return c.Prev()
}

// releaseFrom is how many entries a look may have touched before their memory is given back.
const releaseFrom = 2000

// release gives back the memory in which the file is seen. It stays in the system's cache as long as there is room, but a manager that
// somebody has searched should be as small as it was before.
func (s *Store) release() {
	err := s.db.View(func(tx *bolt.Tx) error { // the file is not mapped elsewhere while somebody reads
		_, _, errno := unix.Syscall(unix.SYS_MADVISE, s.db.Info().Data, uintptr(tx.Size()), unix.MADV_DONTNEED)
		if errno != 0 {
			return errno
		}
		return nil
	})
	if err != nil {
		s.options.Log.Warn("history's memory not given back", logkey.Err, err)
	}
}

// search is a filter as the index can answer it.
type search struct {
	states, causes []string
	pool           string
	// text is searched for in all words, label must begin one of the last.
	text, label []byte
}

func newSearch(f manager.Filter) search {
	w := search{pool: f.Pool, text: []byte(strings.ToLower(f.Text))}
	for _, state := range f.States {
		w.states = append(w.states, string(state))
	}
	for _, cause := range f.Causes {
		w.causes = append(w.causes, string(cause))
	}
	if f.Label != "" {
		w.label = []byte(strings.ToLower("\x00" + f.Label + "=" + f.Value))
		if f.WithValue {
			w.label = append(w.label, 0)
		}
	}
	return w
}

// matches reports whether an entry is of a record that may be wanted; labels are to be looked at again.
func (w *search) matches(e entry) bool {
	if !e.whole() || !e.listed() {
		return false
	}
	state, cause, pool, text := e.words()
	is := func(word []byte) func(string) bool { return func(s string) bool { return s == string(word) } }
	return (len(w.states) == 0 || slices.ContainsFunc(w.states, is(state))) &&
		(len(w.causes) == 0 || slices.ContainsFunc(w.causes, is(cause))) &&
		(w.pool == "" || w.pool == string(pool)) &&
		(len(w.text) == 0 || bytes.Contains(text, w.text)) &&
		(len(w.label) == 0 || e.shortened() || bytes.Contains(text, w.label))
}

// Ended implements manager.Archive.
func (s *Store) Ended() map[queue.State]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	ended := map[queue.State]int{} // never nil, though nothing was ever put: it is shown as it is
	for state, n := range s.held.ended {
		if n > 0 {
			ended[state] = n
		}
	}
	return ended
}

// orderSlack is by how much records may be stored in another order than they were settled in.
const orderSlack = time.Minute

// Rate implements manager.Archive.
func (s *Store) Rate(since time.Time, step time.Duration, steps int) (counts []map[queue.State]int, whole bool) {
	counts = make([]map[queue.State]int, steps)
	whole = true
	looked := 0
	defer func() {
		if looked >= releaseFrom {
			s.release()
		}
	}()
	_ = s.db.View(func(tx *bolt.Tx) error {
		c := tx.Bucket(indexBucket).Cursor()
		for k, v := c.Last(); k != nil; k, v = c.Prev() {
			e := entry(v)
			if looked++; looked > s.lookMost {
				whole = false
				return nil
			}
			if !e.whole() || !e.listed() {
				continue
			}
			at := e.settled().Sub(since)
			if at < -orderSlack {
				return nil
			}
			if i := int(at / step); at >= 0 && i < steps {
				if counts[i] == nil {
					counts[i] = map[queue.State]int{}
				}
				state, _, _, _ := e.words()
				counts[i][queue.State(state)]++
			}
		}
		return nil
	})
	return counts, whole
}
