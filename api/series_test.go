package api

import (
	"testing"
	"time"
)

// TestSamples holds that samples stay few however long the manager runs, and that those that matter are kept.
func TestSamples(t *testing.T) {
	t.Parallel()
	var l samples
	begin := time.Now()
	at := begin
	for i := range 200_000 { // more than two days
		at = at.Add(samplePause)
		l.add(Sample{at, i % 7, i})
		if len(l.list) > 5000 {
			t.Fatalf("%d samples after %s", len(l.list), at.Sub(begin))
		}
	}
	list := l.since(begin)
	if age := at.Sub(list[0].At); age < sampleAge || age > 2*sampleAge {
		t.Errorf("the oldest sample is of %s ago", age)
	}
	if n := len(l.since(at.Add(-8 * time.Minute))); n != 481 { // with the one that held at the beginning
		t.Errorf("%d samples of the last 8 minutes", n)
	}
	for i := 1; i < len(list); i++ {
		if gap := list[i].At.Sub(list[i-1].At); gap <= 0 || gap > 4*time.Minute {
			t.Fatalf("%s between two samples", gap)
		}
	}
	// What does not change is not sampled, and holds.
	n := len(l.list)
	l.add(Sample{at.Add(time.Hour), list[len(list)-1].Waiting, list[len(list)-1].Running})
	if len(l.list) != n {
		t.Error("the same was sampled twice")
	}
	if s := l.since(at.Add(2 * time.Hour)); len(s) != 1 || !s[0].At.Equal(at) {
		t.Errorf("what holds = %v", s)
	}
}
