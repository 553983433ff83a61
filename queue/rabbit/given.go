package rabbit

import (
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/mayfly/mayfly/queue"
)

// givenTime is how long is remembered what was given back: as long as others wonder who has it, and a margin.
const givenTime = time.Minute

// given remembers the messages that this host had, and gave back or lost without having begun them.
type given struct {
	mu   sync.Mutex
	when map[[16]byte]gift
}

// gift is when that was last, and the numbers of those deliveries.
type gift struct {
	at    time.Time
	turns []int
}

// giftsMax is how many deliveries of one message are remembered: more than one carries on.
const giftsMax = 2 * turnsMax

// add remembers a message.
func (g *given) add(m *queue.Message) {
	if len(m.Turns) == 0 {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	maps.DeleteFunc(g.when, func(_ [16]byte, old gift) bool { return now.Sub(old.at) > givenTime })
	key := m.Fingerprint()
	turns := append(slices.Clone(g.when[key].turns), m.Turns[len(m.Turns)-1])
	g.when[key] = gift{now, turns[max(0, len(turns)-giftsMax):]}
}

// turns lists the deliveries of a message that ended here without its having been begun.
func (g *given) turns(fingerprint [16]byte) []int {
	g.mu.Lock()
	defer g.mu.Unlock()
	old := g.when[fingerprint]
	if time.Since(old.at) > givenTime {
		return nil
	}
	return old.turns
}
