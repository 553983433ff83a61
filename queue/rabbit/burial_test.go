package rabbit

import (
	"testing"
	"time"

	"github.com/mayfly/mayfly/queue"
)

// A message that is buried again, because nobody knows whether it was, gets the key that it had; another end of it, and another message, have one of their own.
func TestBuriedAgain(t *testing.T) {
	t.Parallel()
	now := time.Now()
	key := func(body string, r queue.Result) string {
		d := &delivery{source: &source{client: &Client{host: "h"}}, line: &line{}, msg: queue.Message{Body: []byte(body), QueuedAt: now}}
		r.ID, r.Host = "t", "h"
		key, _ := d.burial(queue.Verdict{Action: queue.Bury, Reason: "r", Result: &r}).Headers[headerDeadKey].(string)
		return key
	}
	later, end, after := now.Add(time.Nanosecond), now.Add(time.Second), now.Add(time.Minute)
	seen := map[string]int{}
	for i, r := range []queue.Result{{Attempt: 2, StartedAt: &now, FinishedAt: &end}, {Attempt: 3, StartedAt: &now}, {Attempt: 2, StartedAt: &later}, {FinishedAt: &end}, {FinishedAt: &after}} {
		for j, body := range []string{"one", "two"} {
			k := key(body, r)
			if other, ok := seen[k]; ok || len(k) != 26 {
				t.Errorf("the letter %d/%d has the key %q of %d", i, j, k, other)
			}
			if seen[k] = i; key(body, r) != k {
				t.Errorf("the letter %d/%d has another key when it is buried again", i, j)
			}
		}
	}
	a, b := queue.Result{Attempt: 2, StartedAt: &now, FinishedAt: &end}, queue.Result{Attempt: 2, StartedAt: &now, FinishedAt: &after}
	if key("one", a) != key("one", b) {
		t.Error("the next manager, which heard of the end later, makes another letter of it")
	}
}
