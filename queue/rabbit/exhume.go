package rabbit

import (
	"slices"
	"time"

	"github.com/mayfly/mayfly/queue"
)

// oldest keeps the oldest of the dead letters that it is shown, without their bodies.
type oldest struct {
	limit int
	// most bounds what those say, in bytes; one is kept all the same.
	most int
	kept []queue.DeadLetter
	size int
	keys map[string]bool
	// end is when the oldest was buried that was let go for its size, if any: of newer ones none is wanted, or a list would have others behind one that is missing.
	end time.Time
}

// oldestSlack is how many more than wanted are gathered before they are sorted and the newest let go.
const oldestSlack = 1000

// add takes note of a letter, unless it is known: one may be buried twice because a confirm was lost.
func (o *oldest) add(d queue.DeadLetter) {
	if o.keys[d.Key] || !o.end.IsZero() && !d.BuriedAt.Before(o.end) {
		return
	}
	d.Body = nil
	o.keys[d.Key] = true
	o.kept = append(o.kept, d)
	o.size += d.Size()
	if len(o.kept)-oldestSlack >= o.limit || o.size > 2*o.most {
		o.trim()
	}
}

// trim lets go of the newest.
func (o *oldest) trim() {
	slices.SortStableFunc(o.kept, func(a, b queue.DeadLetter) int { return a.BuriedAt.Compare(b.BuriedAt) })
	stay := 0
	o.size = 0
	for stay < min(o.limit, len(o.kept)) {
		size := o.kept[stay].Size()
		if o.size+size > o.most && stay > 0 {
			o.end = o.kept[stay].BuriedAt
			break
		}
		o.size += size
		stay++
	}
	for i := range o.kept[stay:] {
		delete(o.keys, o.kept[stay+i].Key)
	}
	clear(o.kept[stay:])
	o.kept = o.kept[:stay]
}

// list returns the letters, oldest first.
func (o *oldest) list() []queue.DeadLetter {
	o.trim()
	return o.kept
}

// search looks for the dead letter of a key among those that it is shown: the one that has it, else that of the task with this id.
type search struct {
	key           string
	byKey, byTask matches
}

// matches are letters that are meant. Of all but the oldest, no more is kept than it takes to name them and to remove them.
type matches struct {
	first *buried
	tags  []uint64
	names []name
}

// name is the key of a letter, and when it was buried.
type name struct {
	key string
	at  time.Time
}

// look takes note of a letter that is meant.
func (s *search) look(b *buried) {
	switch s.key {
	case b.Key:
		s.byKey.add(b)
	case b.TaskID:
		s.byTask.add(b)
	}
}

func (m *matches) add(b *buried) {
	if m.first == nil || b.BuriedAt.Before(m.first.BuriedAt) {
		m.first = b
	}
	m.tags = append(m.tags, b.raw.DeliveryTag)
	m.names = append(m.names, name{b.Key, b.BuriedAt})
}

// found returns the letter that is meant, with its duplicates.
func (s *search) found() (*matches, error) {
	if s.byKey.first != nil {
		return &s.byKey, nil
	}
	if s.byTask.first == nil {
		return nil, queue.ErrNoDeadLetter
	}
	slices.SortStableFunc(s.byTask.names, func(a, b name) int { return a.at.Compare(b.at) })
	var keys []string
	known := map[string]bool{}
	for _, n := range s.byTask.names {
		if !known[n.key] { // else it was buried twice because a confirm was lost
			known[n.key] = true
			keys = append(keys, n.key)
		}
	}
	if len(keys) > 1 {
		return nil, &queue.AmbiguousError{TaskID: s.key, Keys: keys}
	}
	return &s.byTask, nil
}
