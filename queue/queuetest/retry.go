package queuetest

import (
	"fmt"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/mayfly/mayfly/queue"
)

func giveBack(s *suite) {
	src := s.open(1)
	s.publish(full())
	for range 3 {
		d := s.receive(src)
		s.same(d.Message(), full())
		s.settle(d, queue.Verdict{Action: queue.Return})
	}
	d := s.receive(src)
	if len(d.Message().History) != 0 {
		s.Errorf("history = %+v", d.Message().History)
	}
	s.settle(d, result(queue.Done, d))
	s.empty(src)
}

func retry(s *suite) {
	src := s.open(1)
	s.publish(full())
	for n := range 3 {
		d := s.receive(src)
		s.same(d.Message(), full())
		if !reflect.DeepEqual(d.Message().History, history(n)) {
			s.Errorf("history = %+v, want %d attempts", d.Message().History, n)
		}
		v := result(queue.Retry, d)
		v.History = history(n + 1)
		s.settle(d, v)
	}
	d := s.receive(src)
	s.settle(d, result(queue.Done, d))
	s.empty(src)
	if ids := s.resultIDs(); !slices.Equal(ids, []string{"full"}) {
		s.Errorf("results = %v", ids)
	}
	// A task that was given its id by the host keeps it.
	s.publish(queue.Message{Body: []byte("nameless")})
	d = s.receive(src)
	v := result(queue.Retry, d)
	v.TaskID = "given"
	s.settle(d, v)
	d = s.receive(src)
	if id := d.Message().MessageID; id != "given" {
		s.Errorf("message id of the copy = %q", id)
	}
	s.settle(d, result(queue.Done, d))
}

func retryLater(s *suite) {
	src := s.open(5)
	var settling sync.WaitGroup // it may take a part of the delay
	for i, delay := range []time.Duration{700 * time.Millisecond, 100 * time.Millisecond} {
		s.publish(queue.Message{MessageID: fmt.Sprint("d", i), Body: []byte("x"), Band: queue.Low})
		d := s.receive(src)
		v := result(queue.Retry, d)
		v.Delay = delay
		begun := time.Now()
		settling.Go(func() {
			if err := d.Settle(s.ctx, v, nil); err != nil {
				s.Error(err)
			}
		})
		defer func() {
			if waited := time.Since(begun); waited < delay {
				s.Errorf("%s came back after %s, before its delay of %s", d.Message().MessageID, waited, delay)
			}
		}()
	}
	// The shorter wait is not blocked by the longer one before it.
	for _, want := range []string{"d1", "d0"} {
		d := s.receive(src)
		if m := d.Message(); m.MessageID != want || m.Band != queue.Low || len(m.History) != 1 {
			s.Errorf("message = %+v, want %s", m, want)
		}
		s.settle(d, result(queue.Done, d))
	}
	settling.Wait()
	s.empty(src)
}
