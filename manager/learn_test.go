package manager

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/mayfly/mayfly/queue"
)

// TestLearnDeepResult has another host report a value that could be read in its message, but not in our record of it.
func TestLearnDeepResult(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	nested := func(depth int) json.RawMessage {
		return json.RawMessage(strings.Repeat("[", depth) + strings.Repeat("]", depth))
	}
	for message, want := range map[string]string{"": "its result was ignored: ", "x": "x; its result was ignored: "} {
		b.Learn(queue.Result{ID: "deep", Attempt: 1, Host: "other", State: queue.Succeeded, Message: message, Result: nested(9999)})
		if r, ok := b.history.Get("deep"); !ok || r.Result.Result != nil || r.Result.State != queue.Succeeded || !strings.HasPrefix(r.Result.Message, want) {
			t.Errorf("remembered: %.200v, %t", r.Result.Message, ok)
		}
	}
	b.Learn(queue.Result{ID: "fine", Attempt: 1, Host: "other", State: queue.Succeeded, Result: nested(queue.MaxDepth)})
	if r, ok := b.history.Get("fine"); !ok || len(r.Result.Result) == 0 || r.Result.Message != "" {
		t.Errorf("remembered: %v, %t", r.Result, ok)
	}
}
