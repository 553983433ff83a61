package queuetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"reflect"
	"time"

	"github.com/mayfly/mayfly/queue"
)

func (s *suite) letters() []queue.DeadLetter {
	s.Helper()
	list, err := s.Dead(s.ctx, math.MaxInt)
	if err != nil {
		s.Fatalf("Dead: %v", err)
	}
	for _, d := range list {
		if d.Body != nil {
			s.Errorf("%s is listed with its body", d.Key)
		}
	}
	return list
}

// show looks at a dead letter and nothing else.
func (s *suite) show(ctx context.Context, key string) error {
	_, err := s.DeadLetter(ctx, key)
	return err
}

func (s *suite) buryAll(src queue.Source, n int) {
	s.Helper()
	for range n {
		d := s.receive(src)
		s.settle(d, result(queue.Bury, d))
	}
	s.until("all are buried", func() bool { return len(s.letters()) == n })
}

func bury(s *suite) {
	src := s.open(1)
	s.publish(full())
	s.buryAll(src, 1)
	d, err := s.DeadLetter(s.ctx, s.letters()[0].Key)
	if err != nil {
		s.Fatal(err)
	}
	if d.Key == "" || d.TaskID != "full" || d.Pool != Pool || d.Band != queue.High || d.Reason != "it failed: full" || d.Cause != queue.CauseExit ||
		!bytes.Equal(d.Body, full().Body) || !reflect.DeepEqual(d.Attempts, history(1)) || time.Since(d.BuriedAt) > time.Hour || d.Host == "" {
		s.Errorf("dead letter = %+v", d)
	}
	s.until("the result is there", func() bool { return len(s.Results()) == 1 })
	s.empty(src)
}

func requeueAndDrop(s *suite) {
	src := s.open(1)
	for _, id := range []string{"a", "b", "c"} {
		s.publishID(id)
	}
	s.buryAll(src, 3)
	if err := s.Drop(s.ctx, "b"); err != nil {
		s.Fatal(err)
	}
	if err := s.Requeue(s.ctx, "a"); err != nil {
		s.Fatal(err)
	}
	for _, act := range []func(context.Context, string) error{s.Drop, s.Requeue, s.show} {
		if err := act(s.ctx, "b"); !errors.Is(err, queue.ErrNoDeadLetter) {
			s.Errorf("of a dead letter that is gone: %v", err)
		}
	}
	if l := s.letters(); len(l) != 1 || l[0].TaskID != "c" {
		s.Errorf("dead letters = %+v", l)
	}
	d := s.receive(src)
	if m := d.Message(); m.MessageID != "a" || len(m.History) != 0 {
		s.Errorf("message = %+v", m)
	}
	s.settle(d, result(queue.Done, d))
	s.empty(src)
}

// severalDead has two tasks of one id among the dead: their id names neither.
func severalDead(s *suite) {
	src := s.open(2)
	for range 2 {
		s.publishID("a")
	}
	s.buryAll(src, 2)
	letters := s.letters()
	if len(letters) != 2 {
		s.Fatalf("dead letters = %+v", letters)
	}
	for _, act := range []func(context.Context, string) error{s.Drop, s.Requeue, s.show} {
		var several *queue.AmbiguousError
		if err := act(s.ctx, "a"); !errors.As(err, &several) || several.TaskID != "a" || len(several.Keys) != 2 || several.Keys[0] != letters[0].Key || several.Keys[1] != letters[1].Key {
			s.Errorf("by their id: %v, want that it is one of %s and %s", err, letters[0].Key, letters[1].Key)
		}
	}
	if err := s.Drop(s.ctx, letters[1].Key); err != nil {
		s.Error(err)
	}
	if err := s.Requeue(s.ctx, "a"); err != nil {
		s.Errorf("the one that is left: %v", err)
	}
}

func requeuedRuns(s *suite) {
	src := s.open(1)
	s.publish(full())
	s.buryAll(src, 1)
	if err := s.Requeue(s.ctx, s.letters()[0].Key); err != nil {
		s.Fatal(err)
	}
	d := s.receive(src)
	m := d.Message()
	if time.Since(m.QueuedAt) > patience {
		s.Errorf("queued at %s, want now", m.QueuedAt)
	}
	m.QueuedAt = full().QueuedAt
	s.same(m, full())
	s.settle(d, result(queue.Bury, d))
	s.until("it is buried again", func() bool { return len(s.letters()) == 1 })
}

func listing(s *suite) {
	src := s.open(1)
	s.publishID("a")
	s.publishID("b")
	s.buryAll(src, 2)
	for i := range 30 {
		if n := len(s.letters()); n != 2 {
			s.Fatalf("listing %d shows %d dead letters", i, n)
		}
	}
	for _, id := range []string{"a", "b"} {
		if d, err := s.DeadLetter(s.ctx, id); err != nil || d.TaskID != id || len(d.Body) == 0 {
			s.Errorf("%s is shown as %+v, %v", id, d, err)
		}
	}
	for limit, want := range map[int]string{0: "[]", 1: "[a]", 2: "[a b]"} {
		ids := []string{}
		list, err := s.Dead(s.ctx, limit)
		for _, d := range list {
			ids = append(ids, d.TaskID)
		}
		if err != nil || fmt.Sprint(ids) != want {
			s.Errorf("the oldest %d are %v, want %s (%v)", limit, ids, want, err)
		}
	}
}
