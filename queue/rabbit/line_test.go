package rabbit

import (
	"testing"

	"github.com/mayfly/mayfly/integration/broker"
	"github.com/mayfly/mayfly/queue"
)

// TestDroppedWhileRetired has a line's consumer be ended from both sides at once, as where an acknowledgement comes too late when the line has become old: neither waits for ever.
func TestDroppedWhileRetired(t *testing.T) {
	onAll(t, func(t *testing.T, _ *broker.Broker, url string) {
		cl, _ := dial(t, Config{URLs: []string{url}, Host: "a", Pools: []string{"p"}})
		sess, err := cl.receive.session(within(t))
		if err != nil {
			t.Fatal(err)
		}
		s, l := cl.source, &lane{pool: "p", band: queue.Normal, queue: poolQueue("p", queue.Normal)}
		for range 100 {
			if err := s.open(l, sess, 1); err != nil {
				t.Fatal(err)
			}
			ln := l.lines[0]
			ended := make(chan bool, 2)
			for _, end := range []func(*lane, *line){s.drop, s.retire} {
				go func() {
					end(l, ln)
					ended <- true
				}()
			}
			for range 2 {
				select {
				case <-ended:
				case <-within(t).Done():
					t.Fatal("the end of a line is waited for in vain")
				}
			}
		}
	})
}
