package rabbit

import (
	"fmt"
	"testing"
	"time"

	"github.com/mayfly/mayfly/integration/broker"
	"github.com/mayfly/mayfly/queue"
)

// The regulator's decisions, without a broker.
func TestPlan(t *testing.T) {
	t.Parallel()
	now := time.Now()
	// ln is a line with the given prefetch and deliveries, the last waiting of which were not handed out.
	type ln struct {
		prefetch, held, waiting int
		age                     time.Duration
	}
	type want struct {
		target, retire, surplus int
		narrowed                bool
	}
	const long = time.Hour
	for _, c := range []struct {
		name   string
		demand int
		room   time.Duration // for how long there has been some
		over   time.Duration // for how long there has been too much
		lanes  [][]ln        // of the normal band, one for each pool
		low    []ln          // of the low band
		held   bool          // the first lane was narrowed before
		want   []want
	}{
		{name: "starts with all of the demand", demand: 4, room: long, lanes: [][]ln{nil}, want: []want{{target: 4}}},
		{name: "each lane may have all of it", demand: 4, room: long, lanes: [][]ln{nil, nil}, want: []want{{target: 4}, {target: 4}}},
		{name: "leaves a full line alone", demand: 4, lanes: [][]ln{{{prefetch: 4, held: 4}}}, want: []want{{target: 4}}},
		{name: "leaves a line alone that has room", demand: 6, room: long, lanes: [][]ln{{{prefetch: 4, held: 3}}}, want: []want{{target: 4}}},
		{name: "adds what is missing", demand: 6, room: long, lanes: [][]ln{{{prefetch: 4, held: 4}}}, want: []want{{target: 6}}},
		{name: "counts what a retired line holds", demand: 6, room: long, lanes: [][]ln{{{prefetch: 0, held: 3}, {prefetch: 2, held: 2}}},
			want: []want{{target: 6}}},
		{name: "opens none beside a retired line that fills the demand", demand: 3, lanes: [][]ln{{{prefetch: 0, held: 3}}}, want: []want{{target: 3}}},
		{name: "fills up when a retired line's deliveries are settled", demand: 3, room: long, lanes: [][]ln{{{prefetch: 0, held: 2}}},
			want: []want{{target: 3}}},
		{name: "waits whether the room stays", demand: 6, room: 1, lanes: [][]ln{{{prefetch: 4, held: 4}}}, want: []want{{target: 4}}},
		{name: "many lines become one", demand: 10, room: long,
			lanes: [][]ln{{{1, 1, 0, 0}, {1, 1, 0, 0}, {1, 1, 0, 0}, {1, 1, 0, 0}, {1, 1, 0, 0}, {1, 1, 0, 0}, {1, 1, 0, 0}, {1, 1, 0, 0}}},
			want:  []want{{target: 10, retire: 8}}},
		{name: "one line is enough for an empty lane", demand: 4, room: long, lanes: [][]ln{{{prefetch: 2}, {prefetch: 2}}},
			want: []want{{target: 4, retire: 2}}},
		{name: "shrinks", demand: 4, room: long, lanes: [][]ln{{{prefetch: 10, held: 1}}}, want: []want{{target: 4, retire: 1}}},
		{name: "does not shrink for a little", demand: 4, room: long, lanes: [][]ln{{{prefetch: 8, held: 1}}}, want: []want{{target: 8}}},
		{name: "gives up all", demand: 0, lanes: [][]ln{{{prefetch: 4, held: 3, waiting: 2}}}, want: []want{{retire: 1, surplus: 2}}},
		{name: "keeps a surplus for a moment", demand: 4, over: 1, lanes: [][]ln{{{prefetch: 5, held: 5, waiting: 2}}}, want: []want{{target: 5}}},
		{name: "gives a surplus back", demand: 4, over: long, lanes: [][]ln{{{prefetch: 5, held: 5, waiting: 2}}},
			want: []want{{retire: 1, surplus: 1, narrowed: true}}},
		{name: "of the lower band", demand: 4, over: long, lanes: [][]ln{{{prefetch: 4, held: 4, waiting: 2}}}, low: []ln{{prefetch: 4, held: 4, waiting: 4}},
			want: []want{{target: 4}, {retire: 1, surplus: 4, narrowed: true}}},
		{name: "and pools share", demand: 4, over: long, lanes: [][]ln{{{prefetch: 4, held: 4, waiting: 0}}, {{prefetch: 4, held: 4, waiting: 4}}},
			want: []want{{retire: 1, narrowed: true}, {retire: 1, surplus: 4, narrowed: true}}},
		{name: "room goes to the pool that has least", demand: 4, room: long, lanes: [][]ln{{{prefetch: 0, held: 2}}, {{prefetch: 0, held: 1}}}, held: true,
			want: []want{{target: 2, narrowed: true}, {target: 2}}},
		{name: "a narrowed lane goes on when there is room", demand: 4, room: long, lanes: [][]ln{{{prefetch: 0, held: 2}}}, held: true,
			want: []want{{target: 4}}},
		{name: "before lower ones do", demand: 4, lanes: [][]ln{{{prefetch: 0, held: 4}}}, low: []ln{{prefetch: 4}}, held: true,
			want: []want{{target: 4, narrowed: true}, {retire: 1, narrowed: true}}},
		{name: "a line of long tasks is replaced", demand: 4, room: long, lanes: [][]ln{{{prefetch: 4, held: 1, age: lineAge}}},
			want: []want{{target: 4, retire: 1}}},
		{name: "but not one that is idle", demand: 4, room: long, lanes: [][]ln{{{prefetch: 4, age: long}}}, want: []want{{target: 4}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &source{demand: c.demand, wake: make(chan struct{}, 1), kick: make(chan struct{}, 1)}
			add := func(lines []ln) *lane {
				l := &lane{}
				for _, spec := range lines {
					made := &line{prefetch: spec.prefetch, since: now.Add(-spec.age), unsettled: map[*delivery]struct{}{}}
					for i := range spec.held {
						d := &delivery{source: s, lane: l, line: made, received: i >= spec.waiting}
						made.unsettled[d] = struct{}{}
						s.held++
						if d.received {
							s.received++
							l.received++
						} else {
							l.buffer = append(l.buffer, d)
							s.buffered++
						}
					}
					l.lines = append(l.lines, made)
				}
				s.lanes = append(s.lanes, l)
				return l
			}
			var normal []*lane
			for _, lines := range c.lanes {
				normal = append(normal, add(lines))
			}
			normal[0].narrowed = c.held
			s.bands = [][]*lane{normal}
			if c.low != nil {
				s.bands = append(s.bands, []*lane{add(c.low)})
			}
			s.reg = regulator{room: c.room > 0, roomSince: now.Add(-c.room), over: c.over > 0, overSince: now.Add(-c.over)}
			changes, _ := s.plan(now)
			got := make([]want, len(s.lanes))
			for i, l := range s.lanes {
				got[i] = want{target: l.limit(), narrowed: l.narrowed}
				for _, ch := range changes {
					if ch.lane == l {
						got[i].target, got[i].retire, got[i].surplus = ch.target, len(ch.retire), len(ch.surplus)
					}
				}
			}
			if len(got) != len(c.want) {
				t.Fatalf("%d lanes, %d expectations", len(got), len(c.want))
			}
			for i := range got {
				if got[i] != c.want[i] {
					t.Errorf("lane %d: %+v, want %+v", i, got[i], c.want[i])
				}
			}
		})
	}
}

// However the demand goes up and down while tasks run long, the host comes to hold just as much as it asks for.
func TestDemandMoves(t *testing.T) {
	onAll(t, func(t *testing.T, _ *broker.Broker, url string) {
		cl, _ := dial(t, Config{URLs: []string{url}, Host: "a", Pools: []string{"p"}})
		const all = 60
		for i := range all {
			publish(t, cl, task(i))
		}
		s := cl.Source()
		ch := channel(t, url)
		var held []queue.Delivery
		settled := 0
		// within checks that no more than n can come, not even for a moment.
		within := func(n int) {
			t.Helper()
			cl.source.mu.Lock()
			defer cl.source.mu.Unlock()
			for _, l := range cl.source.lanes {
				if l.band == queue.Normal && l.limit() > n {
					t.Fatalf("the lane may come to hold %d, the demand is %d", l.limit(), n)
				}
			}
		}
		// fetched waits until the broker has no more and no less left than the demand leaves it.
		fetched := func(n, most int) {
			t.Helper()
			left := -1
			for deadline := time.Now().Add(patience); left != all-settled-n; time.Sleep(time.Millisecond) {
				q, err := ch.QueueDeclarePassive(poolQueue("p", queue.Normal), true, false, false, false, nil)
				if err != nil {
					t.Fatal(err)
				}
				left = q.Messages
				within(most)
				if time.Now().After(deadline) {
					t.Fatalf("the broker has %d left of %d, %d are settled, and the host demands %d", left, all, settled, n)
				}
			}
		}
		demand := 0
		to := func(n int) {
			t.Helper()
			s.Demand(n)
			for range n - demand {
				held = append(held, receive(t, s))
			}
			demand = n
			fetched(n, n)
		}
		for n := 1; n <= 20; n++ { // one after the other, as running tasks add to it
			to(n)
		}
		for ; demand > 3; demand-- {
			settle(t, held[0], done(fmt.Sprint("t", settled)))
			held, settled = held[1:], settled+1
			s.Demand(demand - 1)
		}
		fetched(3, 20)
		to(10)
		for range 5 { // the same demand, one settled and one taken
			settle(t, held[0], done(fmt.Sprint("t", settled)))
			held, settled = append(held[1:], receive(t, s)), settled+1
			fetched(10, 10)
		}
	})
}
