package slots

import "testing"

func TestSlots(t *testing.T) {
	t.Parallel()
	var s Slots
	s.Take(1)
	s.Take(-1)
	s.Take(Max)
	for _, want := range []int{0, 2, 3} {
		if got := s.Lend(); got != want {
			t.Errorf("lent %d, want %d", got, want)
		}
	}
	s.Return(1)
	s.Return(2)
	s.Return(99)
	for _, want := range []int{1, 2, 4} {
		if got := s.Lend(); got != want {
			t.Errorf("lent %d, want %d", got, want)
		}
	}
}
