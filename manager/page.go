package manager

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mayfly/mayfly/queue"
)

// Archive is a history that people look through. Each look does a bounded amount of work, however long the history is.
type Archive interface {
	// Page returns at most limit latest records of ended tasks that match, newest first, of those before a number (0: of all), and the
	// number before which the next page begins, 0 where there is none. A page may be short, or empty, and have a next one all the same:
	// then so much was looked through.
	Page(f Filter, before uint64, limit int) (page []Record, next uint64, err error)
	// Ended counts the ended tasks by state.
	Ended() map[queue.State]int
	// Rate counts the tasks that ended in each of so many steps of time, by state. It is whole unless there were too many to count.
	Rate(since time.Time, step time.Duration, steps int) (counts []map[queue.State]int, whole bool)
}

// Filter says which tasks are wanted; what is empty filters nothing.
type Filter struct {
	Statuses []Status
	// States and Causes are those of a result: with them, only ended tasks are wanted.
	States []queue.State
	Causes []queue.Cause
	Pool   string
	// Label is the name of a label that the task has, WithValue says that it must have the Value.
	Label, Value string
	WithValue    bool
	// Text is looked for in id, name, command and labels, whatever its case. Of a long command only the beginning is searched.
	Text string
}

// HasLabel reports whether the labels have the one that is wanted.
func (f *Filter) HasLabel(labels map[string]string) bool {
	value, ok := labels[f.Label]
	return f.Label == "" || ok && (!f.WithValue || value == f.Value)
}

// status reports whether tasks of a status are wanted at all.
func (f *Filter) status(s Status) bool {
	if s != Ended && len(f.States)+len(f.Causes) > 0 {
		return false
	}
	return len(f.Statuses) == 0 || slices.Contains(f.Statuses, s)
}

// Matches reports whether a task is wanted.
func (f *Filter) Matches(v *View) bool {
	if r := v.Result; len(f.States)+len(f.Causes) > 0 && (r == nil || len(f.States) > 0 && !slices.Contains(f.States, r.State) ||
		len(f.Causes) > 0 && !slices.Contains(f.Causes, r.Cause)) {
		return false
	}
	if !f.status(v.Status) || f.Pool != "" && v.Pool != f.Pool || !f.HasLabel(v.Labels) {
		return false
	}
	if f.Text == "" {
		return true
	}
	text := strings.ToLower(f.Text)
	for k, value := range v.Labels {
		if strings.Contains(strings.ToLower(k+"="+value), text) {
			return true
		}
	}
	return slices.ContainsFunc([]string{v.ID, v.Name, v.Command}, func(s string) bool { return strings.Contains(strings.ToLower(s), text) })
}

// Page is a part of a list of tasks.
type Page struct {
	Tasks []View
	// Next is the cursor of the page that follows, empty at the end of the list.
	Next string
}

// ErrCursor says that a cursor is none that a page came with.
var ErrCursor = errors.New("this is no cursor of a page")

// The parts of a list, in their order: what this host holds, what lies in the embedded queue, what has ended. A cursor is the part's
// letter and a number.
const (
	heldPart   = "h" // the number of those to be passed over
	queuedPart = "q" // the same
	endedPart  = "e" // the number in the archive
)

// Page implements Backend.
func (m *Manager) Page(ctx context.Context, f Filter, cursor string, limit int) (Page, error) {
	part, at := heldPart, uint64(0)
	if cursor != "" {
		var err error
		part = cursor[:1]
		if at, err = strconv.ParseUint(cursor[1:], 10, 64); err != nil {
			return Page{}, ErrCursor
		}
	}
	var p Page
	switch part { // and then those that follow, from their beginnings
	case heldPart:
		if m.held(&p, f, at, limit); p.Next != "" {
			return p, nil
		}
		at = 0
		fallthrough
	case queuedPart:
		if err := m.queued(ctx, &p, f, at, limit); err != nil || p.Next != "" {
			return p, err
		}
		at = 0
		fallthrough
	case endedPart:
		return p, m.endedPage(&p, f, at, limit)
	}
	return Page{}, ErrCursor
}

// held adds what the host holds: what has a worker, oldest first, then what waits, in the order in which it starts, and what it has put back for no host
// can run it.
func (m *Manager) held(p *Page, f Filter, pass uint64, limit int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	list := make([]*entry, 0, len(m.active)+len(m.waiting)+len(m.closing))
	for _, e := range m.active {
		list = append(list, e)
	}
	for e := range m.closing {
		list = append(list, e)
	}
	slices.SortFunc(list, func(a, b *entry) int {
		return cmp.Or(a.attempt.QueuedAt.Compare(b.attempt.QueuedAt), cmp.Compare(a.attempt.Task.ID, b.attempt.Task.ID))
	})
	list = append(list, m.waiting...)
	parked := m.parkedViews()
	for i := pass; i < uint64(len(list)+len(parked)); i++ {
		if len(p.Tasks) >= limit {
			p.Next = heldPart + strconv.FormatUint(i, 10)
			return
		}
		var v View
		if i < uint64(len(list)) {
			if list[i].recorded { // it has ended for all who ask
				continue
			}
			v = list[i].view()
		} else {
			v = parked[i-uint64(len(list))]
		}
		if f.Matches(&v) {
			p.Tasks = append(p.Tasks, v)
		}
	}
}

// queued adds what lies in the embedded queue.
func (m *Manager) queued(ctx context.Context, p *Page, f Filter, pass uint64, limit int) error {
	if m.Backlog.Peek == nil || !f.status(Queued) && !f.status(BackingOff) {
		return nil
	}
	at, read := int(min(pass, listQueued)), 0
	return m.Backlog.Peek(ctx, at, listQueued, func(msg queue.Message) bool {
		if len(p.Tasks) >= limit || read >= listBytes { // the page may be short then, and another one follow
			p.Next = queuedPart + strconv.Itoa(at)
			return false
		}
		at++
		read += len(msg.Body)
		if v := queuedView(msg); f.Matches(&v) {
			p.Tasks = append(p.Tasks, v)
		}
		return true
	})
}

// endedPage adds what has ended.
func (m *Manager) endedPage(p *Page, f Filter, before uint64, limit int) error {
	if m.Archive == nil || !f.status(Ended) {
		return nil
	}
	if len(p.Tasks) >= limit {
		p.Next = endedPart + strconv.FormatUint(before, 10)
		return nil
	}
	records, next, err := m.Archive.Page(f, before, limit-len(p.Tasks))
	if err != nil {
		return err
	}
	for i := range records {
		p.Tasks = append(p.Tasks, recordView(&records[i]))
	}
	if next != 0 {
		p.Next = endedPart + strconv.FormatUint(next, 10)
	}
	return nil
}

// Counts says how many tasks there are of each kind. Those that back off lie in the queue and are not counted.
type Counts struct {
	Queued   int `json:"queued"`
	Waiting  int `json:"waiting"`
	Running  int `json:"running"`
	Stopping int `json:"stopping"`
	Settling int `json:"settling"`
	// Ended counts those that are remembered, by state.
	Ended map[queue.State]int `json:"ended"`
}

// Counts implements Backend.
func (m *Manager) Counts(ctx context.Context) Counts {
	c := Counts{Ended: map[queue.State]int{}}
	if m.Archive != nil {
		c.Ended = m.Archive.Ended()
	}
	depth, _ := m.Backlog.Depth(ctx) // a queue that is out of reach says so in the host's own line
	for _, n := range depth {
		c.Queued += n
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	c.Waiting = len(m.waiting)
	for e := range m.closing {
		if !e.recorded {
			c.Settling++
		}
	}
	for _, e := range m.active {
		switch {
		case e.recorded:
		case e.status == Running:
			c.Running++
		case e.status == Stopping:
			c.Stopping++
		default:
			c.Settling++
		}
	}
	return c
}

// Load implements Backend.
func (m *Manager) Load(ctx context.Context) (waiting, running int) {
	if m.Backlog.Peek != nil { // the queue is our own
		depth, _ := m.Backlog.Depth(ctx)
		for _, n := range depth {
			waiting += n
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range m.active {
		if e.status != Settling {
			running++
		}
	}
	return waiting + len(m.waiting), running
}

// Rate implements Backend.
func (m *Manager) Rate(since time.Time, step time.Duration, steps int) ([]map[queue.State]int, bool) {
	if m.Archive == nil {
		return make([]map[queue.State]int, steps), true
	}
	return m.Archive.Rate(since, step, steps)
}
