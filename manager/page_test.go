package manager

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/mayfly/mayfly/queue"
	"github.com/mayfly/mayfly/worker"
)

// archive has ended tasks with the numbers 1 to n.
type archive struct{ n uint64 }

func (a archive) Page(_ Filter, before uint64, limit int) (page []Record, next uint64, err error) {
	if before == 0 {
		before = a.n + 1
	}
	for before > 1 && len(page) < limit {
		before--
		page = append(page, Record{Result: queue.Result{ID: fmt.Sprint("e", before), State: queue.Succeeded}})
	}
	if before > 1 {
		next = before
	}
	return page, next, nil
}
func (a archive) Ended() map[queue.State]int { return map[queue.State]int{queue.Succeeded: int(a.n)} }
func (archive) Rate(time.Time, time.Duration, int) ([]map[queue.State]int, bool) {
	return nil, true
}

// TestPages goes through all parts of the list, by pages of every size.
func TestPages(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.Archive = archive{5}
	b.Backlog.Peek = peekAt([]queue.Message{{Body: []byte(`{"id": "q1", "command": ["true"], "labels": {"zone": "a"}}`)},
		{Body: []byte(`{"id": "q2", "command": ["false"]}`), History: []queue.Past{{Attempt: 1, Message: "it failed"}}}}, nil)
	for i := range 4 { // the first one runs, the others wait
		m := queue.Message{MessageID: fmt.Sprint("t", i), Body: []byte(`{"command": ["true"], "name": "Some Name", "labels": {"zone": "a"}}`)}
		if i == 3 {
			m.Body = []byte(`{"command": ["true"], "priority": 6}`) // before those that came before it
		}
		b.source.deliveries <- newDelivery(m)
		b.until("it is taken", func() bool { list, _ := b.List(t.Context(), 0); return len(list) == i+3 })
	}
	b.until("its worker has begun", func() bool {
		x, err := b.Explain(t.Context(), "t0")
		return err == nil && x.Sentence == "it runs here as attempt 1"
	})
	b.mu.Lock()
	for i := range 2 { // put back into the broker, for no host can run them
		id := fmt.Sprint("p", i)
		b.others.parked[id] = parked{view: View{ID: id, Status: Parked, QueuedAt: time.Now()}, until: time.Now().Add(time.Hour)}
	}
	b.mu.Unlock()
	all := func(f Filter, limit int) (ids []string, pages int) {
		t.Helper()
		for cursor := ""; ; {
			p, err := b.Page(t.Context(), f, cursor, limit)
			if err != nil || len(p.Tasks) > limit {
				t.Fatalf("%d tasks: %v", len(p.Tasks), err)
			}
			for _, v := range p.Tasks {
				ids = append(ids, v.ID)
			}
			if pages++; p.Next == "" {
				return ids, pages
			}
			cursor = p.Next
		}
	}
	for limit := 1; limit < 15; limit++ {
		if ids, pages := all(Filter{}, limit); fmt.Sprint(ids) != "[t0 t3 t1 t2 p0 p1 q1 q2 e5 e4 e3 e2 e1]" || pages > 13/limit+2 {
			t.Errorf("by %d: %v in %d pages", limit, ids, pages)
		}
	}
	for want, f := range map[string]Filter{
		"[t0]": {Statuses: []Status{Running}}, "[t3 t1 t2 q1]": {Statuses: []Status{Waiting, Queued}}, "[q2]": {Statuses: []Status{BackingOff}}, "[p0 p1]": {Statuses: []Status{Parked}},
		"[e5 e4 e3 e2 e1]": {States: []queue.State{queue.Succeeded}}, "[t0 t1 t2 q1 e5 e4 e3 e2 e1]": {Label: "zone", Value: "a", WithValue: true},
		"[t0 t1 t2]": {Text: "SOME", Statuses: []Status{Running, Waiting}}, "[]": {Pool: "other", Statuses: []Status{Running, Waiting, Queued}},
	} {
		if ids, _ := all(f, 2); fmt.Sprint(ids) != want {
			t.Errorf("%+v: %v, want %s", f, ids, want)
		}
	}
	for _, cursor := range []string{"h", "x1", "h-1", "e1x", "é1"} {
		if _, err := b.Page(t.Context(), Filter{}, cursor, 1); !errors.Is(err, ErrCursor) {
			t.Errorf("cursor %q: %v", cursor, err)
		}
	}
	for value, want := range map[string]string{"a": "[q1]", "b": "[]", "": "[]"} {
		if ids, err := b.labelled(t.Context(), "zone", value); err != nil || fmt.Sprint(ids) != want {
			t.Errorf("in the queue, zone=%s have %v, %v", value, ids, err)
		}
	}
	if c := b.Counts(t.Context()); c.Running != 1 || c.Waiting != 3 || c.Ended[queue.Succeeded] != 5 {
		t.Errorf("counts: %+v", c)
	}
	for id, want := range map[string]string{"t0": "it runs here as attempt 1", "t3": "it waits for 1 core: 0 of 1 CPU cores are free"} {
		if x, err := b.Explain(t.Context(), id); err != nil || x.Sentence != want || x.Since == nil {
			t.Errorf("%s: %+v, %v", id, x, err)
		}
	}
	if _, err := b.Explain(t.Context(), "nobody"); !errors.Is(err, ErrUnknownTask) {
		t.Errorf("explain nobody: %v", err)
	}
	d, err := b.Demand(t.Context())
	if err != nil || d.Waiting.Tasks != 3 || d.Waiting.CPU != 3 || d.Running.Tasks != 1 || d.Free.CPU != 0 || d.IdleSince != nil || d.OldestAt == nil || !d.Serving {
		t.Errorf("demand: %+v, %v", d, err)
	}
	for range 4 {
		b.runner.ended <- worker.Outcome{Cause: queue.CauseNone}
	}
	b.until("all is settled", func() bool { c := b.Counts(t.Context()); return c.Running+c.Waiting+c.Settling == 0 })
	b.until("it is idle", func() bool { d, err := b.Demand(t.Context()); return err == nil && d.IdleSince != nil })
}

// peekAt looks at a backlog that holds these, and tells told of each.
func peekAt(list []queue.Message, told func()) func(context.Context, int, int, func(queue.Message) bool) error {
	return func(_ context.Context, from, to int, visit func(queue.Message) bool) error {
		for _, m := range list[min(from, len(list)):min(to, len(list))] {
			if told != nil {
				told()
			}
			if !visit(m) {
				break
			}
		}
		return nil
	}
}

// TestBacklogIsReadInPieces holds that a list reads no more of an embedded queue than it shows, and never much of large documents at once.
func TestBacklogIsReadInPieces(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	var list []queue.Message
	for i := range listQueued + 100 {
		list = append(list, queue.Message{Body: fmt.Appendf(nil, `{"id": "q%d", "command": ["true"]}`, i)})
	}
	read := 0
	b.Backlog.Peek = peekAt(list, func() { read++ })
	page, err := b.Page(t.Context(), Filter{}, "", 8)
	if err != nil || len(page.Tasks) != 8 || page.Tasks[7].ID != "q7" || read > 9 {
		t.Errorf("%d tasks, %v: %d were read", len(page.Tasks), err, read)
	}
	read = 0
	page, err = b.Page(t.Context(), Filter{}, page.Next, 8)
	if err != nil || len(page.Tasks) != 8 || page.Tasks[0].ID != "q8" || read > 9 {
		t.Errorf("and then %d tasks, %v: %d were read", len(page.Tasks), err, read)
	}
	if page, err = b.Page(t.Context(), Filter{}, fmt.Sprint("q", uint64(1)<<63), 8); err != nil || len(page.Tasks) != 0 {
		t.Errorf("behind its end: %d tasks, %v", len(page.Tasks), err)
	}
	if views, err := b.List(t.Context(), 0); err != nil || len(views) != listQueued {
		t.Errorf("all: %d tasks, %v", len(views), err)
	}

	body := fmt.Appendf(nil, `{"command": ["true"], "stdin": %q}`, strings.Repeat("x", listBytes/4))
	list = list[:0]
	for i := range 10 {
		list = append(list, queue.Message{MessageID: fmt.Sprint("large", i), Body: body})
	}
	b.Backlog.Peek = peekAt(list, func() { read++ })
	var ids []string
	pages := 0
	for cursor := ""; ; pages++ {
		read = 0
		page, err := b.Page(t.Context(), Filter{}, cursor, 100)
		if err != nil || read > 5 {
			t.Fatalf("%d large ones were read, %v", read, err)
		}
		for _, v := range page.Tasks {
			ids = append(ids, v.ID)
		}
		if cursor = page.Next; cursor == "" {
			break
		}
	}
	if len(ids) != 10 || ids[9] != "large9" || pages != 2 {
		t.Errorf("%v in %d more pages", ids, pages)
	}
	read = 0
	if views, err := b.List(t.Context(), 0); err != nil || len(views) != 4 || read > 5 {
		t.Errorf("all: %d tasks, %v: %d were read", len(views), err, read)
	}
}
