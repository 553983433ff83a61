package container

import (
	"slices"
	"strconv"
)

// lendPlace lends the smallest free number, which chooses a container's user.
func (e *Engine) lendPlace() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := slices.Index(e.places, false)
	if n < 0 {
		n = len(e.places)
		e.places = append(e.places, false)
	}
	e.places[n] = true
	return n
}

// takePlace takes the number that a container of an earlier life has.
func (e *Engine) takePlace(label string) {
	e.mark(label, true)
}

// vacate gives it back.
func (e *Engine) vacate(label string) { e.mark(label, false) }

// maxPlaces bounds what a label may claim.
const maxPlaces = 1 << 16

func (e *Engine) mark(label string, taken bool) {
	n, err := strconv.Atoi(label)
	if err != nil || n < 0 || n >= maxPlaces {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for len(e.places) <= n {
		e.places = append(e.places, false)
	}
	e.places[n] = taken
}
