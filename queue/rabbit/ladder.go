package rabbit

import (
	"sort"
	"time"
)

// ladder holds the delays of the wait queues. A queue has one delay: with several, a message with a long one would block
// those behind it.
var ladder = []time.Duration{
	100 * time.Millisecond, 200 * time.Millisecond, 500 * time.Millisecond,
	1 * time.Second, 2 * time.Second, 3 * time.Second, 5 * time.Second, 7 * time.Second, 10 * time.Second,
	15 * time.Second, 20 * time.Second, 30 * time.Second, 45 * time.Second,
	1 * time.Minute, 90 * time.Second, 2 * time.Minute, 3 * time.Minute, 5 * time.Minute, 7 * time.Minute,
	10 * time.Minute, 15 * time.Minute, 20 * time.Minute, 30 * time.Minute, 45 * time.Minute, 1 * time.Hour,
}

// rung returns the smallest delay of the ladder that is at least d, or the largest one.
func rung(d time.Duration) time.Duration {
	i := sort.Search(len(ladder), func(i int) bool { return ladder[i] >= d })
	return ladder[min(i, len(ladder)-1)]
}

// waitName names the exchange and the queue of a rung: "mayfly.wait.500ms", "mayfly.wait.90s", "mayfly.wait.2m".
func waitName(d time.Duration) string {
	switch {
	case d%time.Hour == 0:
		return waitPrefix + itoa(d/time.Hour) + "h"
	case d%time.Minute == 0:
		return waitPrefix + itoa(d/time.Minute) + "m"
	case d%time.Second == 0:
		return waitPrefix + itoa(d/time.Second) + "s"
	default:
		return waitPrefix + itoa(d/time.Millisecond) + "ms"
	}
}
