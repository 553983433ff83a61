package queuetest

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/mayfly/mayfly/queue"
)

func lost(s *suite) {
	src := s.open(3)
	for _, id := range []string{"a", "b", "c"} {
		s.publishID(id)
	}
	old := []queue.Delivery{s.receive(src), s.receive(src), s.receive(src)}
	s.Break()
	for _, d := range old {
		select {
		case <-d.Lost():
		case <-time.After(patience):
			s.Fatal("not lost")
		}
		confirmed := false
		if err := d.Settle(s.ctx, result(queue.Done, d), func() error { confirmed = true; return nil }); !errors.Is(err, queue.ErrLost) || confirmed {
			s.Errorf("settling a lost delivery: %v, confirmed %t", err, confirmed)
		}
	}
	var ids []string
	for range 3 {
		d := s.receive(src)
		if !d.Message().Redelivered {
			s.Errorf("%s is not marked as redelivered", d.Message().MessageID)
		}
		ids = append(ids, d.Message().MessageID)
		s.settle(d, result(queue.Done, d))
	}
	if slices.Sort(ids); !slices.Equal(ids, []string{"a", "b", "c"}) {
		s.Errorf("came again: %v", ids)
	}
	s.empty(src)
}

// notKept has it fail to keep what was confirmed: the delivery is settled again.
func notKept(s *suite) {
	src := s.open(1)
	s.publishID("a")
	d := s.receive(src)
	full := errors.New("cannot keep it: the disk is full")
	if err := d.Settle(s.ctx, result(queue.Done, d), func() error { return full }); !errors.Is(err, full) {
		s.Errorf("Settle = %v, want that it cannot be kept", err)
	}
	select {
	case <-d.Lost():
		s.Error("the delivery is lost")
	default:
	}
	s.settle(d, result(queue.Done, d))
	s.empty(src)
}

// lostWhileSettling loses the delivery between the confirm and the giving up: the message is still there.
func lostWhileSettling(s *suite) {
	src := s.open(1)
	s.publishID("a")
	d := s.receive(src)
	err := d.Settle(s.ctx, result(queue.Done, d), func() error {
		s.Break()
		<-d.Lost()
		return nil
	})
	if !errors.Is(err, queue.ErrLost) {
		s.Errorf("Settle = %v", err)
	}
	again := s.receive(src)
	if m := again.Message(); m.MessageID != "a" || !m.Redelivered {
		s.Errorf("message = %+v", m)
	}
	s.settle(again, queue.Verdict{Action: queue.Done})
	s.empty(src)
	if ids := s.resultIDs(); !slices.Equal(ids, []string{"a"}) {
		s.Errorf("results = %v", ids)
	}
}

func settleAgain(s *suite) {
	src := s.open(1)
	s.publishID("a")
	d := s.receive(src)
	ended, cancel := context.WithCancel(s.ctx)
	cancel()
	if err := d.Settle(ended, result(queue.Done, d), nil); !errors.Is(err, context.Canceled) {
		s.Errorf("Settle with an ended context = %v", err)
	}
	s.settle(d, result(queue.Done, d))
	s.empty(src)
}

func closeSource(s *suite) {
	src := s.open(2)
	s.publishID("a")
	s.publishID("b")
	a := s.receive(src)
	s.settle(a, result(queue.Done, a))
	b := s.receive(src)
	if err := src.Close(); err != nil {
		s.Fatal(err)
	}
	select {
	case <-b.Lost():
	case <-time.After(patience):
		s.Error("not lost by Close")
	}
	if _, err := src.Receive(s.ctx); !errors.Is(err, queue.ErrClosed) {
		s.Errorf("Receive of a closed source = %v", err)
	}
	src = s.open(2)
	d := s.receive(src)
	if m := d.Message(); m.MessageID != "b" || !m.Redelivered {
		s.Errorf("message = %+v", m)
	}
	s.settle(d, result(queue.Done, d))
	s.empty(src)
}
