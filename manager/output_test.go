package manager

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/mayfly/mayfly/queue"
	"github.com/mayfly/mayfly/worker"
)

// TestNoOutput holds that of a task that is known it is said why it has no output, and that only others are unknown.
func TestNoOutput(t *testing.T) {
	t.Parallel()
	queued := queue.Message{MessageID: "queued", Pool: "default", Body: message.Body}
	backing := queue.Message{MessageID: "backing", Pool: "default", Body: message.Body, History: []queue.Past{{Attempt: 1, Host: "h"}, {Attempt: 2, Host: "far"}}}
	b := newBench(t, func(s *Services) {
		s.Output = func(id string) (string, string) { return id + ".out", id + ".err" }
		s.Backlog.Find = func(_ context.Context, id string) (queue.Message, bool) {
			m, ok := map[string]queue.Message{"queued": queued, "backing": backing}[id]
			return m, ok
		}
	})
	_ = b.history.Put(Record{ID: "over.0", Result: queue.Result{ID: "over", State: queue.Cancelled}})
	_ = b.history.Put(Record{ID: "done.2", Result: queue.Result{ID: "done", State: queue.Succeeded, Attempt: 2,
		Attempts: []queue.Past{{Attempt: 1, Host: "far"}, {Attempt: 2, Host: "h"}}}})
	for _, id := range []string{"runs", "waits"} {
		b.source.deliveries <- newDelivery(queue.Message{MessageID: id, Body: message.Body})
	}
	b.until("one runs, one waits", func() bool {
		list, _ := b.List(t.Context(), 0)
		return len(list) == 2 && list[0].PID != 0
	})
	type want struct {
		id      string
		attempt int
	}
	for w, says := range map[want]string{
		{"waits", 0}: "it has not begun: it waits", {"waits", 1}: "it has not begun: it waits", {"waits", 2}: "there was no attempt 2",
		{"queued", 0}: "it has not begun: it waits", {"queued", 2}: "there was no attempt 2",
		{"backing", 3}: "it has not begun: it waits", {"backing", 4}: "there was no attempt 4", {"backing", 1}: "the output of attempt 1 is not kept any more",
		{"runs", 2}: "there was no attempt 2", {"over", 0}: "it never began", {"done", 3}: "there was no attempt 3",
	} {
		_, err := b.Output(t.Context(), w.id, w.attempt)
		var none *NoOutput
		if !errors.As(err, &none) || none.Why != says || none.Waits != (says == "it has not begun: it waits") {
			t.Errorf("%v: %v, want %s", w, err, says)
		}
	}
	for w, right := range map[want]error{{"backing", 2}: ErrElsewhere, {"done", 1}: ErrElsewhere, {"nobody", 0}: ErrUnknownTask, {"nobody", 2}: ErrUnknownTask, {"done", 2}: nil,
		{"done", 0}: nil, {"runs", 0}: nil, {"runs", 1}: nil} {
		o, err := b.Output(t.Context(), w.id, w.attempt)
		if !errors.Is(err, right) || err == nil && o.Stdout != fmt.Sprintf("%s.%d.out", w.id, o.Attempt) {
			t.Errorf("%v: %+v, %v", w, o, err)
		}
	}
	for range 2 {
		b.runner.ended <- worker.Outcome{Cause: queue.CauseNone}
	}
}

// TestForgot has the history drop the records of attempts, one of which is of a task that was submitted again with its id, and runs: its files are those of the worker now.
func TestForgot(t *testing.T) {
	t.Parallel()
	discarded := make(chan string, 4)
	b := newBench(t, func(s *Services) { s.Discard = func(id string) { discarded <- id } })
	b.source.deliveries <- newDelivery(message)
	b.until("it runs", func() bool { return b.ran("t.1") == 1 })
	for _, id := range []string{"t.1", "t.0", "t.1.1", "", "x"} {
		b.Forgot(id)
	}
	close(discarded)
	var ids []string
	for id := range discarded {
		ids = append(ids, id)
	}
	if want := []string{"t.1.1", "", "x"}; !slices.Equal(ids, want) {
		t.Errorf("removed: %q, want %q", ids, want)
	}
}
