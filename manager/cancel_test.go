package manager

import (
	"testing"
	"time"

	"github.com/mayfly/mayfly/queue"
)

// TestCancelMarks has cancellations that came before their tasks.
func TestCancelMarks(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for _, tt := range []struct {
		name string
		c    queue.Cancellation
		m    queue.Message
		want bool
	}{
		{"older", queue.Cancellation{ID: "t", At: now}, queue.Message{QueuedAt: now.Add(-time.Second)}, true},
		{"newer", queue.Cancellation{ID: "t", At: now}, queue.Message{QueuedAt: now.Add(time.Second)}, false},
		{"undated", queue.Cancellation{ID: "t", At: now}, queue.Message{QueuedAt: now.Add(time.Second), Undated: true}, true},
		{"another", queue.Cancellation{ID: "u", At: now}, queue.Message{QueuedAt: now.Add(-time.Second)}, false},
		{"label", queue.Cancellation{Label: "a", Value: "b", At: now}, queue.Message{QueuedAt: now.Add(-time.Second)}, true},
		{"other value", queue.Cancellation{Label: "a", Value: "c", At: now}, queue.Message{QueuedAt: now.Add(-time.Second)}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b, _ := newFleet(t)
			b.Cancelled(tt.c)
			task := queue.Task{ID: "t", Labels: map[string]string{"a": "b"}}
			if got := b.markedCancelled(&task, &tt.m); got != tt.want {
				t.Errorf("cancelled: %v, want %v", got, tt.want)
			}
			older := tt.c
			older.At = now.Add(-time.Hour)
			b.Cancelled(older) // heard again: the latest counts
			if got := b.markedCancelled(&task, &tt.m); got != tt.want {
				t.Errorf("cancelled after all: %v, want %v", got, tt.want)
			}
		})
	}
}
