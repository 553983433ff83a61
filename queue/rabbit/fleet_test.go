package rabbit

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mayfly/mayfly/integration/broker"
	"github.com/mayfly/mayfly/queue"
)

// A question goes to the part of a pool that it names, a greeting to all hosts of all pools that one is in, once.
func TestHeardBy(t *testing.T) {
	onAll(t, func(t *testing.T, _ *broker.Broker, url string) {
		pools := map[string][]string{"a": {"p", "q"}, "b": {"p"}, "c": {"p", "q"}, "d": {"q"}, "e": {"r"}}
		hosts := map[string]*Client{}
		for name := range pools {
			hosts[name], _ = dial(t, Config{URLs: []string{url}, Host: name, Pools: pools[name]})
			<-hosts[name].Joined()
		}
		hear := func(want map[string]bool, what string, heard func(*Client) bool) {
			t.Helper()
			for name, c := range hosts {
				for n := 0; ; n++ {
					if ok := heard(c); n == 0 && ok != want[name] || n > 0 && ok {
						t.Errorf("%s: %s has heard it: %v (%d before)", what, name, ok, n)
					} else if !ok {
						break
					}
				}
			}
		}
		for n := range queue.PartDigits + 1 {
			part := queue.PartOf("b")[:n]
			want := map[string]bool{}
			for name, list := range pools {
				want[name] = name != "a" && slices.Contains(list, "p") && strings.HasPrefix(queue.PartOf(name), part)
			}
			if err := hosts["a"].Ask(t.Context(), queue.Question{ID: "1", Pool: "p", Part: part}, ""); err != nil {
				t.Fatal(err)
			}
			end(t, hosts)
			hear(want, "a question to part "+part, func(c *Client) bool { return taken(c.Questions()) })
		}
		if err := hosts["a"].Hello(t.Context(), queue.Hello{}, ""); err != nil {
			t.Fatal(err)
		}
		end(t, hosts)
		hear(map[string]bool{"b": true, "c": true, "d": true}, "a greeting", func(c *Client) bool { return taken(c.Hellos()) })
	})
}

// A question to the owner of a message comes to that host alone, also after its connection was lost; and nowhere, where there is none.
func TestOwner(t *testing.T) {
	onAll(t, func(t *testing.T, _ *broker.Broker, url string) {
		hosts := map[string]*Client{}
		for _, name := range []string{"a", "b", "c"} {
			hosts[name], _ = dial(t, Config{URLs: []string{url}, Host: name, Pools: []string{"p"}})
			<-hosts[name].Joined()
		}
		message := [16]byte{1, 2, 3}
		ask := func() error {
			return hosts["a"].Ask(t.Context(), queue.Question{ID: "1", Pool: "p", Purpose: queue.ToAdopt, Fingerprint: message[:], Owner: true}, "")
		}
		until := func(owned bool) {
			t.Helper()
			for deadline := time.Now().Add(30 * time.Second); ; {
				switch err := ask(); {
				case err == nil && owned:
					next(t, hosts["b"].Questions())
					return
				case errors.Is(err, queue.ErrNoHost) && !owned:
					return
				case err != nil && !errors.Is(err, queue.ErrNoHost):
					t.Fatal(err)
				case err == nil:
					next(t, hosts["b"].Questions())
				}
				if time.Now().After(deadline) {
					t.Fatalf("owned: %v", !owned)
				}
				time.Sleep(10 * time.Millisecond)
			}
		}
		if err := ask(); !errors.Is(err, queue.ErrNoHost) {
			t.Fatalf("nobody owns it: %v", err)
		}
		hosts["b"].Own([16]byte{9}, true)
		hosts["b"].Own(message, true)
		until(true)
		s, err := hosts["b"].receive.session(within(t))
		if err != nil {
			t.Fatal(err)
		}
		_ = s.conn.Close()
		<-hosts["b"].Joined()
		until(true)
		hosts["b"].Own(message, false)
		until(false)
		end(t, hosts)
		for _, c := range hosts {
			if taken(c.Questions()) {
				t.Error("another one has heard it, too")
			}
		}
	})
}

// end waits until each host has heard all that was said before: an offer comes after it.
func end(t *testing.T, hosts map[string]*Client) {
	t.Helper()
	for name, c := range hosts {
		// What was said before is confirmed, so that it is in the queue before this; and whoever reads the offer has handed on what came before.
		if err := c.Answer(t.Context(), queue.Question{ID: "end", From: name}, queue.Offer{Lacks: true}); err != nil {
			t.Fatal(err)
		}
		next(t, c.Offers())
	}
}

// taken reports whether something was to be had at once.
func taken[T any](c <-chan T) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// A host asks, another one offers and is handed the task whole; when it dies, the task goes back to its pool.
func TestForward(t *testing.T) {
	onAll(t, func(t *testing.T, _ *broker.Broker, url string) {
		a, _ := dial(t, Config{URLs: []string{url}, Host: "a", Pools: []string{"p", "q"}})
		b, _ := dial(t, Config{URLs: []string{url}, Host: "b", Pools: []string{"p"}})
		publish(t, a, queue.Message{Pool: "p", Band: queue.High, MessageID: "m", CorrelationID: "c", ReplyTo: "r", Body: []byte(`{"x":1}`),
			History: []queue.Past{{Attempt: 1, Host: "c", Cause: queue.CauseExit}}, Headers: map[string]any{"traceparent": "t"}})
		a.Source().Demand(1)
		d := receive(t, a.Source())
		if err := d.Settle(t.Context(), queue.Verdict{Action: queue.Forward, Host: "b"}, nil); !errors.Is(err, queue.ErrNoHost) {
			t.Fatalf("forwarded to a host that never offered: %v", err)
		}
		held := d.Message()
		ask := queue.Question{ID: "1", Pool: "p", Purpose: queue.ToRun, Message: &held, Open: time.Second, Rank: 7}
		var q queue.Question
		for heard := false; !heard; { // the others may not listen yet
			if err := a.Ask(t.Context(), ask, ""); err != nil {
				t.Fatal(err)
			}
			select {
			case q = <-b.Questions():
				heard = true
			case <-time.After(100 * time.Millisecond):
			}
		}
		if q.From != "a" || q.Pool != "p" || q.Open != time.Second || q.Rank != 7 || string(q.Message.Body) != `{"x":1}` || len(q.Message.History) != 1 || q.Message.Band != queue.High {
			t.Errorf("%+v", q)
		}
		if err := b.Answer(t.Context(), q, queue.Offer{Room: 3}); err != nil {
			t.Fatal(err)
		}
		if o := next(t, a.Offers()); o.Question != "1" || o.Host != "b" || o.Room != 3 {
			t.Errorf("%+v", o)
		}
		settle(t, d, queue.Verdict{Action: queue.Forward, Host: "b"})
		b.Source().Demand(1)
		m := receive(t, b.Source()).Message()
		if m.HandedBy != "a" || m.Pool != "p" || m.Band != queue.High || m.MessageID != "m" || m.CorrelationID != "c" || m.ReplyTo != "r" || string(m.Body) != `{"x":1}` ||
			len(m.History) != 1 || m.Headers["traceparent"] != "t" || !m.QueuedAt.Equal(d.Message().QueuedAt) || m.Redelivered {
			t.Errorf("%+v", m)
		}
		// Nobody but b has it.
		short, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		if d, err := a.Source().Receive(short); err == nil {
			t.Fatalf("a has it, too: %+v", d.Message())
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		back := receive(t, a.Source())
		if m := back.Message(); m.MessageID != "m" || m.Pool != "p" || m.Band != queue.High || m.HandedBy != "" || !m.Redelivered || len(m.History) != 1 {
			t.Errorf("back from a host that died: %+v", m)
		}
		settle(t, back, queue.Verdict{Action: queue.Done})
		select {
		case q := <-a.Questions():
			t.Errorf("a hears its own question: %+v", q)
		default:
		}
	})
}

// next waits for what comes by a channel.
func next[T any](t *testing.T, from <-chan T) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(patience):
		t.Fatalf("no %T came", *new(T))
		panic("unreachable")
	}
}

// Who gave a message back without having begun it knows it again; who asks for it learns that it is free, once.
func TestGivenBack(t *testing.T) {
	onAll(t, func(t *testing.T, _ *broker.Broker, url string) {
		a, _ := dial(t, Config{URLs: []string{url}, Host: "a", Pools: []string{"p"}})
		publish(t, a, queue.Message{Pool: "p", MessageID: "m", Body: []byte(`{}`)})
		a.Source().Demand(1)
		settle(t, receive(t, a.Source()), queue.Verdict{Action: queue.Return})
		d := receive(t, a.Source())
		if d.Message().Redelivered {
			t.Error("what was given back is taken for something that was begun")
		}
		a.Source().Demand(0)
		awaitNoneFetched(t, a, func(*line) {}) // else it may come to this host once more
		settle(t, d, queue.Verdict{Action: queue.Return})
		b, _ := dial(t, Config{URLs: []string{url}, Host: "b", Pools: []string{"p"}})
		b.Source().Demand(1)
		m := receive(t, b.Source()).Message()
		if !m.Redelivered {
			t.Error("what another host had is taken for new")
		}
		next(t, a.Joined())
		next(t, b.Joined())
		fingerprint := m.Fingerprint()
		ask := queue.Question{ID: "1", Pool: "p", Purpose: queue.ToAdopt, Fingerprint: fingerprint[:]}
		if err := b.Ask(t.Context(), ask, ""); err != nil {
			t.Fatal(err)
		}
		o := next(t, b.Offers())
		if o.Has || o.Host != "a" || !m.Unbegun(o.Gave) {
			t.Errorf("%+v on %+v", o, m)
		}
		// Delivered once more: to b, who may have begun it.
		if m.Turns = append(m.Turns, m.Turns[len(m.Turns)-1]+1); m.Unbegun(o.Gave) {
			t.Error("what b may have begun is free")
		}
		if q := next(t, a.Questions()); q.From != "b" || q.Purpose != queue.ToAdopt {
			t.Errorf("%+v", q)
		}
		if err := b.Hello(t.Context(), queue.Hello{Life: "1", Back: true}, ""); err != nil {
			t.Fatal(err)
		}
		if h := next(t, a.Hellos()); h.Host != "b" || !h.Back || h.Life != "1" || !slices.Equal(h.Pools, []string{"p"}) {
			t.Errorf("%+v", h)
		}
	})
}

// TestDoubtful tells a copy of which there may be another one from one of which there is none.
func TestDoubtful(t *testing.T) {
	onAll(t, func(t *testing.T, _ *broker.Broker, url string) {
		c, _ := dial(t, Config{URLs: []string{url}, Host: "a", Pools: []string{"p"}})
		c.Source().Demand(1)
		publish(t, c, queue.Message{Pool: "p", MessageID: "m", Body: []byte(`{}`)})
		for i, doubtful := range []bool{false, true, false} {
			d := receive(t, c.Source())
			if m := d.Message(); m.Redelivered != doubtful || (len(m.Turns) == 0) != doubtful {
				t.Errorf("copy %d: %+v", i, m)
			}
			v := queue.Verdict{Action: queue.Retry, Doubtful: i == 0}
			if i == 2 {
				v = queue.Verdict{Action: queue.Done}
			}
			settle(t, d, v)
		}
	})
}
