package rabbit

import (
	"maps"
	"testing"

	"github.com/mayfly/mayfly/integration/broker"
	"github.com/mayfly/mayfly/queue"
)

// TestDepth asks for the depth of several queues, one of which is not there.
func TestDepth(t *testing.T) {
	onAll(t, func(t *testing.T, _ *broker.Broker, url string) {
		cl, _ := dial(t, Config{URLs: []string{url}, Host: "h", Pools: []string{"p", "q"}})
		publish(t, cl, task(1))
		publish(t, cl, task(2))
		if _, err := channel(t, url).QueueDelete(poolQueue("p", queue.High), false, false, false); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			depth, err := cl.Depth(within(t))
			if want := map[string]int{"p.normal": 2, "p.low": 0, "q.high": 0, "q.normal": 0, "q.low": 0}; err != nil || !maps.Equal(depth, want) {
				t.Errorf("depth = %v, %v; want %v", depth, err, want)
			}
		}
	})
}
