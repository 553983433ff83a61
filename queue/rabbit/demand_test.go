package rabbit

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/mayfly/mayfly/integration/broker"
	"github.com/mayfly/mayfly/queue"
)

// Several lanes full of work never hand out more than the demand, and what is fetched beyond it goes back, so that
// another host gets it; higher bands go first; nothing is starved.
func TestDemand(t *testing.T) {
	onAll(t, func(t *testing.T, _ *broker.Broker, url string) {
		a, _ := dial(t, Config{URLs: []string{url}, Host: "a", Pools: []string{"p", "q"}})
		const each = 10
		for _, pool := range []string{"p", "q"} {
			for _, band := range queue.Bands {
				for i := range each {
					publish(t, a, queue.Message{Pool: pool, Band: band, MessageID: fmt.Sprint(pool, band, i), Body: []byte("{}")})
				}
			}
		}
		s := a.Source()
		s.Demand(4)
		var held []queue.Delivery
		for range 4 {
			held = append(held, receive(t, s))
		}
		short, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		defer cancel()
		if _, err := s.Receive(short); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("a fifth delivery at a demand of 4: %v", err)
		}
		// Another host can have all the rest, while the first holds its four.
		b, _ := dial(t, Config{URLs: []string{url}, Host: "b", Pools: []string{"p", "q"}})
		b.Source().Demand(100)
		var rest []queue.Delivery
		for range 6*each - 4 {
			rest = append(rest, receive(t, b.Source()))
		}
		for _, d := range append(rest, held...) {
			settle(t, d, queue.Verdict{Action: queue.Return})
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		// Alone again, the first host works all off, more at a time when the demand grows.
		s.Demand(2)
		seen := map[string]bool{}
		for len(seen) < 6*each {
			if len(seen) == 10 {
				s.Demand(5)
			}
			d := receive(t, s)
			seen[d.Message().MessageID] = true
			settle(t, d, done(d.Message().MessageID))
		}
		s.Demand(0)
		depth, err := a.Depth(within(t))
		if err != nil || len(depth) != 6 {
			t.Fatalf("Depth() = %v, %v", depth, err)
		}
	})
}

// Bands are served from the highest down.
func TestBands(t *testing.T) {
	onAll(t, func(t *testing.T, _ *broker.Broker, url string) {
		cl, _ := dial(t, Config{URLs: []string{url}, Host: "a", Pools: []string{"p"}})
		for i, band := range []queue.Band{queue.Low, queue.Normal, queue.High} {
			for j := range 3 {
				m := task(10*i + j)
				m.Band = band
				publish(t, cl, m)
			}
		}
		s := cl.Source()
		s.Demand(1)
		first := receive(t, s) // of any band: the lanes open one after the other
		fetched := func() int {
			cl.source.mu.Lock()
			defer cl.source.mu.Unlock()
			n := 0
			for _, l := range cl.source.lanes {
				if len(l.buffer) > 0 {
					n++
				}
			}
			return n
		}
		for deadline := time.Now().Add(patience); fetched() < 2; {
			if time.Now().After(deadline) {
				t.Fatal("the other lanes fetch nothing")
			}
			time.Sleep(time.Millisecond)
		}
		settle(t, first, done(first.Message().MessageID))
		for range 8 {
			d := receive(t, s)
			settle(t, d, done(d.Message().MessageID))
		}
	})
}

// A lower band that was narrowed for a higher one comes to its turn, though the higher one leaves no room.
func TestLowerBandsTurn(t *testing.T) {
	onAll(t, func(t *testing.T, _ *broker.Broker, url string) {
		cl, _ := dial(t, Config{URLs: []string{url}, Host: "a", Pools: []string{"p"}})
		low := task(1000)
		low.Band = queue.Low
		const urgent = 20 * queue.PassMax
		for i := range urgent {
			m := task(i)
			m.Band = queue.High
			publish(t, cl, m)
		}
		s := cl.Source()
		const demand = 4
		s.Demand(demand)
		var held []queue.Delivery
		for range demand {
			held = append(held, receive(t, s))
		}
		publish(t, cl, low)
		for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) { // until it was fetched and given back
			cl.source.mu.Lock()
			l := cl.source.lanes[2]
			narrowed := l.band == queue.Low && l.narrowed
			cl.source.mu.Unlock()
			if narrowed {
				break
			}
			if time.Now().After(deadline) {
				t.Fatal("the low band is not narrowed")
			}
		}
		for i := 0; ; i++ { // there is never room for more than one
			settle(t, held[0], done(held[0].Message().MessageID))
			d := receive(t, s)
			if held = append(held[1:], d); d.Message().MessageID == low.MessageID {
				break
			}
			if i > urgent/2 {
				t.Fatalf("the low band had no turn among %d", i)
			}
		}
	})
}

// Close gives back what was not settled.
func TestClose(t *testing.T) {
	onAll(t, func(t *testing.T, _ *broker.Broker, url string) {
		a, _ := dial(t, Config{URLs: []string{url}, Host: "a", Pools: []string{"p"}})
		publish(t, a, task(1))
		a.Source().Demand(1)
		d := receive(t, a.Source())
		if err := a.Source().Close(); err != nil {
			t.Fatal(err)
		}
		awaitLost(t, d)
		if _, err := a.Source().Receive(within(t)); !errors.Is(err, queue.ErrClosed) {
			t.Fatalf("Receive after Close: %v", err)
		}
		publish(t, a, task(2)) // only the source is closed
		b, _ := dial(t, Config{URLs: []string{url}, Host: "b", Pools: []string{"p"}})
		b.Source().Demand(2)
		for range 2 {
			d := receive(t, b.Source())
			settle(t, d, done(d.Message().MessageID))
		}
	})
}

// BenchmarkLoop is receive, confirm a result, acknowledge, four at a time: the queue's part of a task.
func BenchmarkLoop(b *testing.B) {
	for _, v := range broker.Versions {
		b.Run(string(v), func(b *testing.B) {
			br := broker.Shared(b, v)
			_, log := newJournal()
			cl, err := Dial(context.Background(), Config{URLs: []string{br.Vhost(b)}, Host: "h", Pools: []string{"p"}, Log: log})
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = cl.Close() }()
			var wg sync.WaitGroup
			for w := range 16 {
				wg.Go(func() {
					for i := w; i < b.N; i += 16 {
						if err := cl.Publish(context.Background(), task(i)); err != nil {
							b.Error(err)
						}
					}
				})
			}
			wg.Wait()
			b.ResetTimer()
			s := cl.Source()
			s.Demand(8)
			for w := range 4 {
				wg.Go(func() {
					for i := w; i < b.N; i += 4 {
						d, err := s.Receive(context.Background())
						if err == nil {
							err = d.Settle(context.Background(), done("t"), nil)
						}
						if err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "tasks/s")
		})
	}
}
