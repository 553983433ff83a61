package rabbit

import (
	"testing"
	"time"
)

// TestCancellationsRead holds from when cancellations are read again: after the last that was read in its turn, however long ago that is, and whatever its clock said.
func TestCancellationsRead(t *testing.T) {
	t.Parallel()
	var h hearing
	hourAgo := time.Now().Add(-time.Hour)
	for _, c := range []struct{ heard, want time.Time }{{time.Time{}, time.Time{}}, {hourAgo, hourAgo}, {hourAgo.Add(-time.Minute), hourAgo}} {
		if h.heard(c.heard); !h.read.Equal(c.want) {
			t.Errorf("after %s: read until %s, want %s", c.heard, h.read, c.want)
		}
	}
	if h.heard(time.Now().Add(time.Hour)); h.read.After(time.Now()) {
		t.Errorf("read until %s, which is to come", h.read)
	}
}
