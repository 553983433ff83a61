package manager

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/mayfly/mayfly/queue"
)

// news is what other hosts say: results, and questions.
type news struct {
	results   chan queue.Result
	questions chan queue.Question
	cancels   chan queue.Cancellation
}

func newNews() news {
	return news{make(chan queue.Result), make(chan queue.Question), make(chan queue.Cancellation)}
}

func (n news) Cancels() <-chan queue.Cancellation { return n.cancels }
func (n news) Replies() <-chan queue.Result       { return n.results }
func (n news) Questions() <-chan queue.Question   { return n.questions }
func (news) Offers() <-chan queue.Offer           { return nil }
func (news) Hellos() <-chan queue.Hello           { return nil }
func (news) Joined() <-chan struct{}              { return nil }

// slow is a history that keeps what it is given when it has got so much, as one commit.
type slow struct {
	*memory
	all sync.WaitGroup
}

func (h *slow) Put(r Record) error {
	h.all.Done()
	h.all.Wait()
	return h.memory.Put(r)
}

func (h *slow) MarkCancel(name string, at time.Time) (kept func() error) {
	h.memory.MarkCancel(name, at)
	return func() error {
		h.all.Done()
		h.all.Wait()
		return nil
	}
}

// listensSlowly makes a host that listens, and whose history keeps nothing until it has learnMost to keep.
func listensSlowly(t *testing.T) (*bench, *slow, *hosts, news) {
	t.Helper()
	h := &slow{}
	h.all.Add(learnMost)
	f := newHosts()
	b := newBenchWith(t, func(_ *Config, s *Services) { h.memory, s.History, s.Fleet = s.History.(*memory), h, f })
	n := newNews()
	ctx, stop := context.WithCancel(t.Context())
	var listening sync.WaitGroup
	listening.Go(func() { b.Listen(ctx, n) })
	t.Cleanup(func() {
		stop()
		listening.Wait()
	})
	b.Joined()
	next(t, f.hellos)
	return b, h, f, n
}

// TestLearnMany has the results of many tasks come that were submitted here: they are kept together, and others are answered meanwhile.
func TestLearnMany(t *testing.T) {
	t.Parallel()
	b, h, f, n := listensSlowly(t)
	result := func(id string) queue.Result {
		return queue.Result{ID: id, Host: "o", State: queue.Succeeded, Attempt: 1}
	}
	for i := range learnMost - 1 {
		select {
		case n.results <- result("t"):
		case <-time.After(10 * time.Second):
			h.all.Add(i - learnMost)
			t.Fatal("one is kept after the other")
		}
	}
	n.questions <- queue.Question{ID: "q", From: "o", Pool: "default", Purpose: queue.ToAdopt, Surely: true, Fingerprint: make([]byte, 16)}
	if o := next(t, f.offered); !o.Lacks {
		t.Errorf("%+v", o)
	}
	n.results <- result("last")
	if _, err := b.Wait(t.Context(), "last"); err != nil {
		t.Error(err)
	}
}

// TestCancelledMany has many tasks be cancelled on other hosts: each is known here at once, they are kept together, and others are answered meanwhile.
func TestCancelledMany(t *testing.T) {
	t.Parallel()
	_, h, f, n := listensSlowly(t)
	for i := range learnMost - 1 {
		select {
		case n.cancels <- queue.Cancellation{ID: fmt.Sprint("t", i), At: time.Now()}:
		case <-time.After(10 * time.Second):
			h.all.Add(i - learnMost)
			t.Fatal("one is kept after the other")
		}
	}
	n.questions <- queue.Question{ID: "q", From: "o", Pool: "default", Purpose: queue.ToAdopt, Surely: true, Fingerprint: make([]byte, 16)}
	if o := next(t, f.offered); !o.Lacks {
		t.Errorf("%+v", o)
	}
	for i := range learnMost - 1 {
		if _, ok := h.CancelMark(fmt.Sprint("t", i)); !ok {
			t.Errorf("t%d is not known to be cancelled", i)
		}
	}
	n.cancels <- queue.Cancellation{ID: "last", At: time.Now()}
}

// unable is a queue that takes nothing.
type unable struct{}

func (unable) Publish(context.Context, queue.Message) error { return errors.New("out of reach") }

// TestSubmittedInVain submits a task again, which does not get into the queue: the result of the first is shown.
func TestSubmittedInVain(t *testing.T) {
	t.Parallel()
	b := newBench(t, func(s *Services) { s.Publisher = unable{} })
	if err := b.history.Put(settledRecord(time.Now(), queue.Succeeded)); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Submit(t.Context(), []byte(`{"id": "t", "command": ["true"]}`), ""); err == nil {
		t.Fatal("it was submitted")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if v, err := b.Wait(ctx, "t"); err != nil || v.Result == nil {
		t.Errorf("%+v, %v", v, err)
	}
}
