// Package slots lends small numbers: always the smallest one that is free.
package slots

import (
	"slices"
	"sync"
)

// Max bounds the numbers.
const Max = 1 << 16

// Slots is a set of numbers from 0 on. Its zero value is ready; it may be used by many goroutines at once.
type Slots struct {
	mu    sync.Mutex
	taken []bool
}

// Lend lends the smallest free number.
func (s *Slots) Lend() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := slices.Index(s.taken, false)
	if n < 0 {
		n = len(s.taken)
		s.taken = append(s.taken, false)
	}
	s.taken[n] = true
	return n
}

// Take takes a certain number, lent or not. One that is below 0 or not below Max is ignored.
func (s *Slots) Take(n int) { s.mark(n, true) }

// Return makes a number free again.
func (s *Slots) Return(n int) { s.mark(n, false) }

func (s *Slots) mark(n int, taken bool) {
	if n < 0 || n >= Max {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.taken) <= n {
		s.taken = append(s.taken, false)
	}
	s.taken[n] = taken
}
