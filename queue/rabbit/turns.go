package rabbit

import (
	"math/rand/v2"

	amqp "github.com/rabbitmq/amqp091-go"
)

// A message that comes again may have been begun by who had it before. Each host knows of which deliveries it has begun nothing; so deliveries have numbers. The broker
// counts those of each message, and to it every copy is another one: so a copy says with which number its own begin, lest they be taken for those of the copy before.

const (
	// turnsMax is how many deliveries a message carries on; one that was delivered more often says that it is not known who had it.
	turnsMax = 64
	// turnBits is the size of the numbers: so large that two copies do not begin near each other, and exact in any JSON.
	turnBits = 52
)

// firstTurn draws the number of a copy's first delivery.
func firstTurn() int64 { return rand.Int64N(1 << turnBits) }

// turns lists the numbers of a message's deliveries, this one last; nil where they are not known.
func turns(h amqp.Table) (all []int) {
	count, first := max(number(h, deliveryCount), number(h, acquiredCount)), number(h, headerTurn)
	before, _ := h[headerTurns].([]any)
	if count < 0 || count > turnsMax-int64(len(before)) || first < 0 || first > 1<<turnBits {
		return nil
	}
	for _, turn := range before {
		n, ok := turn.(int64)
		if !ok || n < 0 || n > 1<<turnBits+turnsMax {
			return nil
		}
		all = append(all, int(n))
	}
	for i := range count + 1 {
		all = append(all, int(first+i))
	}
	return all
}

// carried are the numbers as a header.
func carried(turns []int) []any {
	list := make([]any, len(turns))
	for i, turn := range turns {
		list[i] = int64(turn)
	}
	return list
}
