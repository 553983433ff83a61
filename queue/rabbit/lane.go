package rabbit

import (
	"slices"
	"time"

	"github.com/mayfly/mayfly/queue"
)

// lane fetches from the queue of one pool's band, by one or more lines. Only the regulator's goroutine opens and retires
// lines; the fields below are guarded by source.mu.
type lane struct {
	pool  string
	band  queue.Band
	queue string
	make  func(*session) error // makes the queue where it is missing

	lines     []*line     // oldest first
	buffer    []*delivery // fetched and not handed out, oldest first
	received  int         // handed out and not settled
	passed    int         // how many of higher bands were handed out since one of this was
	narrowed  bool        // fetches nothing because the demand was exceeded: there is more in the queue
	retryAt   time.Time   // no line is to be opened before
	wait      backoff
	complaint string // the last error that was logged, so that it is logged once; the regulator's own, as wait is
}

// due reports that higher bands have gone first for long enough. It is called with source.mu held.
func (l *lane) due() bool { return l.passed >= queue.PassMax }

// held is how many unsettled deliveries the lane has. It is called with source.mu held.
func (l *lane) held() (n int) {
	for _, ln := range l.lines {
		n += len(ln.unsettled)
	}
	return n
}

// limit is how many unsettled deliveries the lane may come to have with the lines that it has. It is called with source.mu
// held.
func (l *lane) limit() (n int) {
	for _, ln := range l.lines {
		n += max(ln.prefetch, len(ln.unsettled))
	}
	return n
}

// fetching lists the lines that have a consumer. It is called with source.mu held.
func (l *lane) fetching() (lines []*line) {
	for _, ln := range l.lines {
		if ln.prefetch > 0 {
			lines = append(lines, ln)
		}
	}
	return lines
}

// finished takes out the lines that neither fetch nor hold anything. It is called with source.mu held.
func (l *lane) finished() (lines []*line) {
	l.lines = slices.DeleteFunc(l.lines, func(ln *line) bool {
		if ln.prefetch > 0 || len(ln.unsettled) > 0 {
			return false
		}
		ln.gone = true
		lines = append(lines, ln)
		return true
	})
	return lines
}
