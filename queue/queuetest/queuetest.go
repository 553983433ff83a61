// Package queuetest is the conformance suite of queues: what holds for every queue.Source with its queue.Publisher and
// queue.Cemetery, run on the real thing.
package queuetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/mayfly/mayfly/queue"
)

// Pool is the pool that a harness's source serves.
const Pool = "test"

// patience bounds every wait. It is no expectation of speed.
const patience = 30 * time.Second

// quiet is how long the suite watches for something that must not come.
const quiet = 300 * time.Millisecond

// Harness is one fresh, empty queue for one test. Everything that it opens it closes at the test's end.
type Harness interface {
	queue.Publisher
	queue.Cemetery
	// Open opens the source; it is called again only after the one before was closed.
	Open() queue.Source
	// Break makes all outstanding deliveries lost, as a broken connection does; the source recovers by itself.
	Break()
	// Results returns the results published so far, in any order.
	Results() []queue.Result
	// Depth counts the messages that wait in the pool and were not handed out.
	Depth() int
}

// Run runs the suite. open makes a harness per test.
func Run(t *testing.T, open func(t *testing.T) Harness) {
	for name, test := range map[string]func(*suite){
		"done":                 done,
		"done without result":  doneWithoutResult,
		"everything travels":   travels,
		"order and bands":      order,
		"no band starves":      starving,
		"demand":               demand,
		"return":               giveBack,
		"retry":                retry,
		"retry with delay":     retryLater,
		"bury":                 bury,
		"requeue and drop":     requeueAndDrop,
		"listing loses none":   listing,
		"lost":                 lost,
		"lost while settling":  lostWhileSettling,
		"not kept":             notKept,
		"settle again":         settleAgain,
		"close":                closeSource,
		"bodies":               bodies,
		"many at once":         many,
		"receive ends":         receiveEnds,
		"requeued dead letter": requeuedRuns,
		"several dead letters": severalDead,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := open(t)
			ctx, cancel := context.WithTimeout(context.Background(), 4*patience)
			t.Cleanup(cancel)
			test(&suite{t, h, ctx})
		})
	}
}

type suite struct {
	*testing.T
	Harness
	ctx context.Context
}

func (s *suite) publish(m queue.Message) {
	s.Helper()
	m.Pool = Pool
	if m.Band == "" {
		m.Band = queue.Normal
	}
	if err := s.Publish(s.ctx, m); err != nil {
		s.Fatalf("Publish: %v", err)
	}
}

func (s *suite) publishID(id string) {
	s.Helper()
	s.publish(queue.Message{MessageID: id, Body: []byte(id)})
}

func (s *suite) open(demand int) queue.Source {
	src := s.Open()
	src.Demand(demand)
	return src
}

func (s *suite) receive(src queue.Source) queue.Delivery {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	d, err := src.Receive(ctx)
	if err != nil {
		s.Fatalf("Receive: %v", err)
	}
	return d
}

// nothing checks that no delivery comes.
func (s *suite) nothing(src queue.Source) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, quiet)
	defer cancel()
	if d, err := src.Receive(ctx); err == nil {
		s.Fatalf("received %s where nothing was to come", d.Message().MessageID)
	} else if !errors.Is(err, context.DeadlineExceeded) {
		s.Fatalf("Receive: %v", err)
	}
}

func (s *suite) settle(d queue.Delivery, v queue.Verdict) {
	s.Helper()
	called := 0
	if err := d.Settle(s.ctx, v, func() error { called++; return nil }); err != nil {
		s.Fatalf("Settle %s: %v", v.Action, err)
	}
	if v.Action != queue.Return && called != 1 {
		s.Errorf("Settle %s called confirmed %d times", v.Action, called)
	}
}

func (s *suite) until(what string, ok func() bool) {
	s.Helper()
	for limit := time.Now().Add(patience); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(limit) {
			s.Fatalf("waited in vain until %s", what)
		}
	}
}

// result makes a verdict for a delivery.
func result(a queue.Action, d queue.Delivery) queue.Verdict {
	id := d.Message().MessageID
	v := queue.Verdict{Action: a, TaskID: id, History: history(1), Reason: "it failed: " + id,
		Result: &queue.Result{ID: id, Pool: Pool, State: queue.Succeeded, Cause: queue.CauseNone, Attempts: history(1)}}
	if a == queue.Bury {
		v.Result.State, v.Result.Cause, v.Result.Host = queue.Failed, queue.CauseExit, "host"
	}
	return v
}

func history(n int) []queue.Past {
	at := time.Date(2026, 11, 20, 1, 2, 3, 456000000, time.UTC)
	code := 3
	var list []queue.Past
	for i := range n {
		list = append(list, queue.Past{Attempt: i + 1, Host: "h", Cause: queue.CauseExit, ExitCode: &code, Message: "no", StartedAt: at, FinishedAt: at.Add(time.Second)})
	}
	return list
}

func (s *suite) resultIDs() []string {
	ids := []string{}
	for _, r := range s.Results() {
		ids = append(ids, r.ID)
	}
	slices.Sort(ids)
	return ids
}

// empty checks that no message is left anywhere but among the dead.
func (s *suite) empty(src queue.Source) {
	s.Helper()
	s.until("the queue is empty", func() bool { return s.Depth() == 0 })
	s.nothing(src)
}

func done(s *suite) {
	src := s.open(1)
	s.publishID("a")
	d := s.receive(src)
	select {
	case <-d.Lost():
		s.Error("lost at once")
	default:
	}
	s.settle(d, result(queue.Done, d))
	s.until("the result is there", func() bool { return len(s.Results()) == 1 })
	if r := s.Results()[0]; r.ID != "a" || r.State != queue.Succeeded || !reflect.DeepEqual(r.Attempts, history(1)) {
		s.Errorf("result = %+v", r)
	}
	s.empty(src)
	select {
	case <-d.Lost():
		s.Error("a settled delivery is lost")
	default:
	}
}

func doneWithoutResult(s *suite) {
	src := s.open(1)
	s.publishID("a")
	s.settle(s.receive(src), queue.Verdict{Action: queue.Done})
	s.empty(src)
	if n := len(s.Results()); n != 0 {
		s.Errorf("%d results were published", n)
	}
}

// full is a message that has everything.
func full() queue.Message {
	return queue.Message{MessageID: "full", CorrelationID: "corr", ReplyTo: "no.such.queue", Band: queue.High,
		QueuedAt: time.Date(2026, 11, 20, 1, 2, 3, 0, time.UTC), Body: []byte("\xff\x00body"), Headers: map[string]any{"trace": "00-abc"}}
}

func (s *suite) same(got, want queue.Message) {
	s.Helper()
	if got.MessageID != want.MessageID || got.CorrelationID != want.CorrelationID || got.ReplyTo != want.ReplyTo || got.Band != want.Band ||
		got.Pool != Pool || !got.QueuedAt.Equal(want.QueuedAt) || !bytes.Equal(got.Body, want.Body) || got.Headers["trace"] != want.Headers["trace"] {
		s.Errorf("message = %+v, want %+v", got, want)
	}
}

func travels(s *suite) {
	src := s.open(1)
	s.publish(full())
	d := s.receive(src)
	s.same(d.Message(), full())
	if d.Message().Redelivered || len(d.Message().History) != 0 {
		s.Errorf("message = %+v, want it fresh", d.Message())
	}
	s.settle(d, result(queue.Done, d))
}

func bodies(s *suite) {
	src := s.open(1)
	for i, body := range [][]byte{{}, []byte("\xff\xfe\x00"), bytes.Repeat([]byte("0123456789abcdef"), 1<<16)} {
		s.publish(queue.Message{MessageID: fmt.Sprint("b", i), Body: body})
		d := s.receive(src)
		if !bytes.Equal(d.Message().Body, body) {
			s.Errorf("a body of %d bytes came as one of %d", len(body), len(d.Message().Body))
		}
		s.settle(d, result(queue.Bury, d))
	}
	s.until("all are buried", func() bool { return len(s.letters()) == 3 })
	if d, err := s.DeadLetter(s.ctx, "b2"); err != nil || len(d.Body) != 1<<20 {
		s.Errorf("the buried body has %d bytes (%v)", len(d.Body), err)
	}
}

func many(s *suite) {
	const n = 1000
	src := s.open(50)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			s.publish(queue.Message{MessageID: fmt.Sprintf("m%04d", i), Band: queue.Bands[i%3], Body: []byte("x")})
		})
	}
	for range n + n/10 {
		d := s.receive(src)
		wg.Go(func() {
			a := queue.Done
			if m := d.Message(); m.MessageID[len(m.MessageID)-1] == '7' && len(m.History) == 0 {
				a = queue.Retry
			}
			s.settle(d, result(a, d))
		})
	}
	wg.Wait()
	s.until("all results are there", func() bool { return len(s.Results()) >= n })
	ids := s.resultIDs()
	if n != len(ids) || n != len(slices.Compact(ids)) {
		s.Errorf("%d results of %d tasks", len(ids), n)
	}
	s.empty(src)
}

func receiveEnds(s *suite) {
	src := s.open(1)
	ctx, cancel := context.WithCancel(s.ctx)
	ended := make(chan error)
	go func() { _, err := src.Receive(ctx); ended <- err }()
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		s.Errorf("Receive = %v", err)
	}
	go func() { _, err := src.Receive(s.ctx); ended <- err }()
	if err := src.Close(); err != nil {
		s.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, queue.ErrClosed) {
		s.Errorf("Receive of a closed source = %v", err)
	}
}
