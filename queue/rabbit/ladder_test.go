package rabbit

import (
	"slices"
	"testing"
	"time"
)

func TestLadder(t *testing.T) {
	t.Parallel()
	if !slices.IsSorted(ladder) {
		t.Fatal("the ladder is not sorted")
	}
	for _, c := range []struct {
		want time.Duration
		name string
	}{
		{1, "mayfly.wait.100ms"},
		{100 * time.Millisecond, "mayfly.wait.100ms"},
		{101 * time.Millisecond, "mayfly.wait.200ms"},
		{time.Second, "mayfly.wait.1s"},
		{10 * time.Second, "mayfly.wait.10s"},
		{61 * time.Second, "mayfly.wait.90s"},
		{100 * time.Second, "mayfly.wait.2m"},
		{46 * time.Minute, "mayfly.wait.1h"},
		{24 * time.Hour, "mayfly.wait.1h"},
	} {
		if got := waitName(rung(c.want)); got != c.name {
			t.Errorf("a delay of %s waits in %s, want %s", c.want, got, c.name)
		}
	}
	seen := map[string]bool{}
	for _, d := range ladder {
		if seen[waitName(d)] {
			t.Errorf("two rungs share the name %s", waitName(d))
		}
		seen[waitName(d)] = true
	}
}
