package queuetest

import (
	"fmt"
	"slices"

	"github.com/mayfly/mayfly/queue"
)

func order(s *suite) {
	for i := range 3 {
		for _, band := range []queue.Band{queue.Low, queue.High, queue.Normal} {
			id := fmt.Sprint(band, i)
			s.publish(queue.Message{MessageID: id, Band: band, Body: []byte(id)})
		}
	}
	s.until("all are there", func() bool { return s.Depth() == 9 })
	src := s.open(9)
	s.until("all were fetched or lie ready", func() bool { return true })
	var got []string
	for range 9 {
		d := s.receive(src)
		got = append(got, d.Message().MessageID)
		s.settle(d, result(queue.Done, d))
	}
	// Bands may mix where a higher one's first message was still on its way; within a band the order holds.
	for _, band := range queue.Bands {
		var own []string
		for _, id := range got {
			if id[:len(id)-1] == string(band) {
				own = append(own, id)
			}
		}
		if want := []string{string(band) + "0", string(band) + "1", string(band) + "2"}; !slices.Equal(own, want) {
			s.Errorf("%s came as %v", band, own)
		}
	}
	s.empty(src)
}

// starving has a lower band come to its turn while a higher one has more work than the host can take.
func starving(s *suite) {
	const urgent = 30 * queue.PassMax
	s.publish(queue.Message{MessageID: "low", Band: queue.Low, Body: []byte("{}")})
	s.publish(queue.Message{MessageID: "normal", Band: queue.Normal, Body: []byte("{}")})
	for i := range urgent {
		s.publish(queue.Message{MessageID: fmt.Sprint(i), Band: queue.High, Body: []byte("{}")})
	}
	src := s.open(4)
	// What was fetched before the urgent ones does not count.
	first := []queue.Delivery{s.receive(src)}
	for range 3 {
		first = append(first, s.receive(src))
	}
	s.until("what is fetched is sorted", func() bool { return s.Depth() >= urgent+2-8 })
	for _, d := range first {
		s.settle(d, result(queue.Return, d))
	}
	seen := map[string]int{}
	for i := 0; len(seen) < 2; i++ {
		d := s.receive(src)
		if id := d.Message().MessageID; id == "low" || id == "normal" {
			seen[id] = i
		}
		s.settle(d, result(queue.Done, d))
		if i > urgent/2 {
			s.Fatalf("of the lower bands only %v had their turn among %d", seen, i)
		}
	}
}

func demand(s *suite) {
	for i := range 10 {
		s.publishID(fmt.Sprint("m", i))
	}
	src := s.Open()
	s.nothing(src) // the demand is 0 before the first call
	src.Demand(2)
	a, b := s.receive(src), s.receive(src)
	s.nothing(src)
	s.settle(a, result(queue.Done, a))
	c := s.receive(src)
	s.nothing(src)
	src.Demand(5)
	for range 3 {
		d := s.receive(src)
		defer s.settle(d, result(queue.Done, d))
	}
	s.nothing(src)
	src.Demand(0)
	s.settle(b, result(queue.Done, b))
	s.settle(c, result(queue.Done, c))
	s.nothing(src)
	src.Demand(100)
	for range 4 {
		d := s.receive(src)
		s.settle(d, result(queue.Done, d))
	}
}
