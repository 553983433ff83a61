package manager

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/mayfly/mayfly/queue"
)

// A question that many hosts of a pool could answer goes to few of them: to a part of the pool (see [queue.PartOf]), which the broker's routing
// draws. Where that gives no offer, the next one goes to eight times as many, until all were asked. What waits for room is asked of a part at
// most: each host keeps the questions of about as many others, so that one that has room finds a task that wants it, and what a fleet says does
// not grow with the square of its hosts.
const (
	// offersLeast is how many offers a question should get, at least; up to eight times as many come where the next smaller part gives fewer.
	offersLeast = 3
	// sharedAmong is how many hosts are told of a task that waits for room, at least, and eight times as many at most.
	sharedAmong = 16
	// countedFor is how long the number of hosts is relied upon.
	countedFor = time.Minute
)

// crowd is what the manager knows of how many hosts there are in a pool besides it. Both are guesses.
type crowd struct {
	// hosts is how many there are: from what they said when they came and left, and from how many of a part answered.
	hosts   float64
	counted time.Time // when it was last found right
	// offering is how many would offer to take a task, by what it is asked for.
	offering map[queue.Purpose]float64
}

// crowd returns what is known of a pool. The lock is held.
func (m *Manager) crowd(pool string) *crowd {
	c := m.others.crowds[pool]
	if c == nil {
		c = &crowd{offering: map[queue.Purpose]float64{}}
		m.others.crowds[pool] = c
	}
	return c
}

// count takes hosts of some pools for come, or gone. The lock is held.
func (m *Manager) count(pools []string, by float64) {
	for _, pool := range pools {
		if slices.Contains(m.config.Pools, pool) {
			c := m.crowd(pool)
			c.hosts = min(max(0, c.hosts+by), knownMost)
		}
	}
}

// told takes over what another host knows, which has been there for longer: there are as many besides this one. The lock is held.
func (m *Manager) told(hosts map[string]int) {
	for _, pool := range m.config.Pools {
		if n, ok := hosts[pool]; ok {
			c := m.crowd(pool)
			c.hosts = max(c.hosts, float64(min(n, knownMost)))
		}
	}
}

// tellable is what a newcomer is told of how many hosts there are besides it: those that this one knows of without it, and this one. The lock is held.
func (m *Manager) tellable(pools []string) map[string]int {
	hosts := map[string]int{}
	for _, pool := range pools {
		if slices.Contains(m.config.Pools, pool) {
			hosts[pool] = int(m.crowd(pool).hosts)
		}
	}
	return hosts
}

// digits returns how many digits the smallest part has that holds at least so many of n hosts.
func digits(n, least float64) (d int) {
	for d < queue.PartDigits && n >= 8*least {
		n /= 8
		d++
	}
	return d
}

// widest returns how many digits the largest part has that a question may go to. The lock is held.
func (m *Manager) widest(q *queue.Question) int {
	if q.Purpose == queue.ToShare {
		return digits(m.crowd(q.Pool).hosts, sharedAmong)
	}
	return 0
}

// aim draws the part that a question goes to first. The lock is held.
func (m *Manager) aim(q *queue.Question) {
	c := m.crowd(q.Pool)
	offering, known := c.offering[q.Purpose]
	if !known {
		offering = c.hosts
	}
	m.draw(q, max(digits(min(offering, c.hosts), offersLeast), m.widest(q)))
}

// widen has a question go to eight times as many hosts as gave no offer; false where it has gone to as many as it may. Where fewer were there than was
// thought, it goes to another part. The lock is held.
func (m *Manager) widen(q *inquiry) bool {
	if q.question.Part == "" {
		return false // all were asked
	}
	fewer := m.measure(q)
	widest := m.widest(&q.question)
	if !fewer && len(q.question.Part) <= widest {
		return false
	}
	c := m.crowd(q.question.Pool)
	if offering, ok := c.offering[q.question.Purpose]; ok {
		c.offering[q.question.Purpose] = offering / 2
	} else {
		c.offering[q.question.Purpose] = c.hosts / 2
	}
	m.draw(&q.question, max(len(q.question.Part)-1, widest))
	q.lack = nil
	return true
}

// draw chooses a part at random. From time to time those in it are to answer in any case: how many there are is learned from it. The lock is held.
func (m *Manager) draw(q *queue.Question, digits int) {
	var part strings.Builder
	for range digits {
		part.WriteByte('0' + byte(rand.IntN(8)))
	}
	q.Part = part.String()
	c := m.crowd(q.Pool)
	q.Surely = digits > 0 && time.Since(c.counted) > countedFor && c.hosts*shareOf(q.Part) <= 8*sharedAmong
}

// shareOf is the share of a pool's hosts that are in a part.
func shareOf(part string) float64 { return math.Pow(8, -float64(len(part))) }

// measure corrects the number of hosts by how many of a part have answered: hosts die without a word, and fleets grow while one is away. It does
// so by a factor of four, and where it is wrong by that: parts differ, and some answers come late. It reports whether there are fewer. The lock is held.
func (m *Manager) measure(q *inquiry) (fewer bool) {
	if !q.question.Surely {
		return false
	}
	c := m.crowd(q.question.Pool)
	n := float64(len(q.offers)+len(q.lack)) / shareOf(q.question.Part)
	switch {
	case n <= c.hosts/4:
		c.hosts /= 4
		return true
	case n >= c.hosts*4:
		c.hosts = min(4*c.hosts, knownMost)
	default:
		c.counted = time.Now()
	}
	return false
}

// learn takes note of how many offers a question got. The lock is held.
func (m *Manager) learn(q *inquiry) {
	if q.question.Message == nil {
		return // it was not about who takes a task
	}
	c := m.crowd(q.question.Pool)
	c.offering[q.question.Purpose] = max(c.offering[q.question.Purpose], float64(len(q.offers))/shareOf(q.question.Part))
	if q.question.Part == "" {
		c.hosts = max(c.hosts, float64(len(q.offers)))
	}
}

// patience is how long the answers to a question are waited for. The lock is held.
func (m *Manager) patience(q *queue.Question) time.Duration {
	if len(q.Part) > m.widest(q) {
		return sampleTime // more can be asked
	}
	return answerTime
}
