package manager

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mayfly/mayfly/queue"
)

// multitude is a fleet of many hosts that answer as hosts do.
type multitude struct {
	mute
	host *host
	mu   sync.Mutex
	// names are the hosts that live; rooms have room, or, for what cannot run where it is, are large enough.
	names []string
	rooms map[string]bool
	// asked are the questions but for those about their end, and heard is how many hosts have heard each of them. lacks counts the hosts that have said that
	// they cannot take a task, ends the hosts that have heard that a question is over.
	asked       []queue.Question
	heard       []int
	lacks, ends int
	// ownerless is what becomes of questions to owners, which nobody answers. owned are the messages that are owned by the host that asks.
	ownerless error
	owned     map[[16]byte]bool
}

func (f *multitude) Own(message [16]byte, owns bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.owned[message] = owns
}

func (f *multitude) owns() (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, owns := range f.owned {
		if owns {
			n++
		}
	}
	return n
}

func (f *multitude) Ask(_ context.Context, q queue.Question, to string) error {
	f.mu.Lock()
	if q.Owner {
		defer f.mu.Unlock()
		f.asked, f.heard = append(f.asked, q), append(f.heard, 1)
		return f.ownerless
	}
	var offers []queue.Offer
	n := 0
	for _, name := range f.names {
		if to != "" && to != name || !strings.HasPrefix(queue.PartOf(name), q.Part) {
			continue
		}
		n++
		switch o := (queue.Offer{Question: q.ID, Host: name, Room: 1}); {
		case q.Over:
			f.ends++
		case f.rooms[name]:
			offers = append(offers, o)
		case q.Surely:
			o.Lacks, o.Never = true, q.Refused
			f.lacks++
			offers = append(offers, o)
		}
	}
	if !q.Over {
		f.asked, f.heard = append(f.asked, q), append(f.heard, n)
	}
	f.mu.Unlock()
	for _, o := range offers {
		f.host.Offered(o)
	}
	return nil
}

// since returns what was asked after the first n questions, and by how many hosts it was heard.
func (f *multitude) since(n int) (asked []queue.Question, heard int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, n := range f.heard[n:] {
		heard += n
	}
	return f.asked[n:], heard
}

// state returns how many questions were asked, how many hosts have heard of the end of one, and how many have said that they cannot take a task.
func (f *multitude) state() (asked, ends, lacks int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.heard), f.ends, f.lacks
}

// among puts a host of four cores among n others, all of which have said hello.
func among(t *testing.T, n int, test func(h *host, f *multitude)) {
	t.Helper()
	simulate(t, nil, func(h *host) {
		f := &multitude{host: h, rooms: map[string]bool{}, owned: map[[16]byte]bool{}}
		h.Fleet = f
		h.Joined()
		for i := range n {
			f.names = append(f.names, fmt.Sprint("o", i))
			h.Greeted(queue.Hello{Host: f.names[i], Pools: []string{"default"}})
		}
		synctest.Wait()
		test(h, f)
	})
}

// deliver hands a task of so many cores over, and waits for what becomes of it.
func (h *host) deliver(id string, cpu int) *delivery {
	h.mu.Lock()
	h.takes[id] = time.Hour
	h.mu.Unlock()
	d := newDelivery(queue.Message{MessageID: id, Body: fmt.Appendf(nil, `{"id": %q, "command": ["x"], "resources": {"cpu": %d, "memory": "1MiB"}}`, id, cpu)})
	h.source.deliveries <- d
	synctest.Wait()
	return d
}

// forwarded returns the host that a task was handed to, or "".
func (d *delivery) forwarded() string {
	synctest.Wait()
	select {
	case v := <-d.verdicts:
		return v.Host
	default:
		return ""
	}
}

// TestManyHosts hands on what cannot run here in fleets of many sizes: what a question costs does not grow with them.
func TestManyHosts(t *testing.T) {
	for _, n := range []int{1, 5, 50, 1000, 9000} {
		among(t, n, func(h *host, f *multitude) {
			for i, name := range f.names {
				f.rooms[name] = i%2 == 0
			}
			const tasks = 20
			heard := 0
			for i := range tasks {
				before, _, _ := f.state()
				d := h.deliver(fmt.Sprint("t", i), 8)
				time.Sleep(time.Second)
				if !f.rooms[d.forwarded()] {
					t.Errorf("of %d: it is not handed over", n)
				}
				_, k := f.since(before)
				heard += k
			}
			// 3 to 24 offers are wanted, and only every second host gives one.
			if limit := 2 * 8 * offersLeast * tasks; heard > limit {
				t.Errorf("of %d hosts, %d hear a question", n, heard/tasks)
			}
			_, _, lacks := f.state()
			t.Logf("%d hosts: each question is heard by %d, and %d in all have said that they cannot", n, heard/tasks, lacks)
		})
	}
}

// TestRareHost looks for the one host of many that can run a task, wherever that is.
func TestRareHost(t *testing.T) {
	among(t, 1000, func(h *host, f *multitude) {
		f.rooms["o777"] = true
		d := h.deliver("t", 8)
		time.Sleep(time.Second)
		if host := d.forwarded(); host != "o777" {
			t.Errorf("handed to %q", host)
		}
	})
}

// TestFullFleet has tasks wait for room in a fleet that has none: a few hosts keep that in mind, and no more is said till one has room.
func TestFullFleet(t *testing.T) {
	for _, n := range []int{3, 100, 1000, 9000} {
		among(t, n, func(h *host, f *multitude) {
			h.deliver("runs", 4)
			var waiting []*delivery
			for i := range 5 {
				waiting = append(waiting, h.deliver(fmt.Sprint("t", i), 2))
			}
			time.Sleep(10 * time.Second)
			asked, heard := f.since(0)
			last := asked[len(asked)-1]
			if last.Open != shareTime || heard > 3*8*sharedAmong {
				t.Errorf("of %d hosts, %d hear questions: %+v", n, heard, asked)
			}
			// One of those that keep the question gets room.
			name := ""
			for _, name = range f.names {
				if strings.HasPrefix(queue.PartOf(name), last.Part) {
					break
				}
			}
			h.Offered(queue.Offer{Question: last.ID, Host: name, Room: 1})
			time.Sleep(collectTime)
			if host := waiting[0].forwarded(); host != name {
				t.Errorf("handed to %q", host)
			}
			if _, ends, _ := f.state(); ends == 0 || ends > 2*8*sharedAmong {
				t.Errorf("of %d hosts, %d hear that the question is over", n, ends)
			}
			// The next one is asked about, and then the more rarely the longer there is no room.
			time.Sleep(time.Hour)
			before, _, _ := f.state()
			time.Sleep(time.Hour)
			if asked, heard := f.since(before); len(asked) == 0 || len(asked) > 3*int(time.Hour/shareMax) || heard > 2*len(asked)*8*sharedAmong {
				t.Errorf("of %d hosts, %d hear %d questions in an hour", n, heard, len(asked))
			}
		})
	}
}

// TestSmallBesideLarge asks about small tasks while nobody has room for a large one, and not about one that is larger still.
func TestSmallBesideLarge(t *testing.T) {
	among(t, 3, func(h *host, f *multitude) {
		h.deliver("runs", 4)
		h.deliver("large", 3)
		time.Sleep(2 * time.Second)
		before, _, _ := f.state()
		larger := h.deliver("larger", 4)
		time.Sleep(2 * time.Second)
		if asked, _ := f.since(before); len(asked) > 0 {
			t.Errorf("asked: %+v", asked)
		}
		f.mu.Lock()
		f.rooms["o1"] = true
		f.mu.Unlock()
		small := h.deliver("small", 1)
		time.Sleep(askAfter + collectTime)
		if host := small.forwarded(); host != "o1" {
			t.Errorf("the small one is handed to %q", host)
		}
		if host := larger.forwarded(); host != "" {
			t.Errorf("the larger one is handed to %q", host)
		}
	})
}

// TestHostsDie has all hosts but one die without a word: the one that lives is found for the next task that waits.
func TestHostsDie(t *testing.T) {
	for _, n := range []int{130, 1000, 9000} {
		among(t, n, func(h *host, f *multitude) {
			f.mu.Lock()
			f.names, f.rooms = []string{"o99"}, map[string]bool{"o99": true}
			f.mu.Unlock()
			h.deliver("runs", 4)
			d := h.deliver("waits", 1)
			time.Sleep(2 * time.Second)
			if host := d.forwarded(); host != "o99" {
				t.Errorf("of %d, handed to %q", n, host)
			}
		})
	}
}

// TestNewcomer comes to a large fleet, of which a few hosts greet it: it does not ask all for that.
func TestNewcomer(t *testing.T) {
	among(t, 0, func(h *host, f *multitude) {
		for i := range 1000 {
			f.names = append(f.names, fmt.Sprint("o", i))
			f.rooms[f.names[i]] = true
		}
		h.Greeted(queue.Hello{Host: "o7", Pools: []string{"default", "other"}, Back: true, Hosts: map[string]int{"default": 999, "other": 5000}})
		d := h.deliver("t", 8)
		time.Sleep(time.Second)
		if host := d.forwarded(); host == "" {
			t.Error("it is not handed over")
		}
		if asked, heard := f.since(0); heard > 2*8*offersLeast {
			t.Errorf("%d hear %+v", heard, asked)
		}
	})
}

// TestOwner has messages come again in a large fleet: whoever has owned up to one is asked alone, and all hosts where nobody has, or does not answer.
func TestOwner(t *testing.T) {
	again := func(h *host) *delivery {
		d := newDelivery(queue.Message{MessageID: "t", Body: []byte(`{"id": "t", "command": ["x"]}`), Redelivered: true, Turns: []int{0, 1}})
		h.source.deliveries <- d
		synctest.Wait()
		return d
	}
	among(t, 100, func(h *host, f *multitude) {
		d := again(h)
		asked, heard := f.since(0)
		if len(asked) != 1 || heard != 1 || asked[0].Purpose != queue.ToAdopt {
			t.Errorf("%d hear %+v", heard, asked)
		}
		h.Offered(queue.Offer{Question: asked[0].ID, Host: "o5", Has: true})
		time.Sleep(time.Second)
		if host := d.forwarded(); host != "o5" {
			t.Errorf("handed to %q", host)
		}
		if n, _, _ := f.state(); n != 1 {
			t.Errorf("%d questions", n)
		}
	})
	for _, ownerless := range []error{nil, queue.ErrNoHost} {
		among(t, 100, func(h *host, f *multitude) {
			f.ownerless = ownerless
			d := again(h)
			if ownerless == nil {
				time.Sleep(ownerTime)
			}
			synctest.Wait()
			asked, heard := f.since(0)
			if len(asked) != 2 || heard != 101 {
				t.Errorf("%v: %d hear %+v", ownerless, heard, asked)
			}
			h.Offered(queue.Offer{Question: asked[0].ID, Host: "o5", Has: true})
			time.Sleep(time.Second)
			if host := d.forwarded(); host != "o5" {
				t.Errorf("handed to %q", host)
			}
		})
	}
	// A task that runs for long is owned till it is settled.
	among(t, 1, func(h *host, f *multitude) {
		h.mu.Lock()
		h.takes["long"], h.takes["short"] = ownAfter+time.Minute, time.Minute
		h.mu.Unlock()
		for _, id := range []string{"long", "short"} {
			h.source.deliveries <- newDelivery(queue.Message{MessageID: id, Body: fmt.Appendf(nil, `{"id": %q, "command": ["x"]}`, id)})
		}
		for _, s := range []struct {
			after time.Duration
			owned int
		}{{ownAfter - time.Second, 0}, {2 * time.Second, 1}, {time.Minute, 0}} {
			time.Sleep(s.after)
			synctest.Wait()
			if n := f.owns(); n != s.owned {
				t.Errorf("%d are owned, want %d", n, s.owned)
			}
		}
	})
}
