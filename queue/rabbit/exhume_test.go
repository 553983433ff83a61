package rabbit

import (
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
	"weak"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/mayfly/mayfly/integration/broker"
	"github.com/mayfly/mayfly/queue"
)

// letter is the nth oldest dead letter.
func letter(n int) queue.DeadLetter {
	return queue.DeadLetter{Key: fmt.Sprint("k", n), TaskID: fmt.Sprint("t", n), BuriedAt: time.Unix(int64(n), 0)}
}

// TestOldestLetters holds that a list has the oldest of all letters, in whatever order they come, and never many more of them at a time.
func TestOldestLetters(t *testing.T) {
	t.Parallel()
	const all, large = 5000, 1000
	size := letter(all)
	for name, c := range map[string]struct{ limit, most, want int }{
		"none is too many":     {math.MaxInt, math.MaxInt / 4, all},
		"by number":            {7, math.MaxInt / 4, 7},
		"by size":              {math.MaxInt, 10*size.Size() + large, 10},
		"one that is large":    {math.MaxInt, 1, 1},
		"in the end by number": {4999, math.MaxInt / 4, 4999},
	} {
		for order, at := range map[string]func(int) int{
			"as they were buried":  func(i int) int { return i },
			"the newest first":     func(i int) int { return all - 1 - i },
			"the newer half first": func(i int) int { return (i + all/2) % all },
		} {
			o := oldest{limit: c.limit, most: c.most, keys: map[string]bool{}}
			held := 0
			for i := range all {
				d := letter(at(i))
				if d.Key == "k10" { // those behind it are small enough, but not the oldest
					d.Reason = strings.Repeat("x", 2*large)
				}
				o.add(d)
				o.add(d) // its duplicate
				held = max(held, len(o.kept))
			}
			list := o.list()
			for i := range list {
				if list[i].Key != fmt.Sprint("k", i) {
					t.Fatalf("%s, %s: %d is %s", name, order, i, list[i].Key)
				}
			}
			if len(list) != c.want || held > c.want+oldestSlack || len(o.keys) != c.want {
				t.Errorf("%s, %s: %d are listed, want %d; %d were held", name, order, len(list), c.want, held)
			}
		}
	}
}

// TestBodiesAreLetGo holds that whoever looks through the dead letters has no more bodies in memory than what is asked for.
func TestBodiesAreLetGo(t *testing.T) {
	t.Parallel()
	const all = 50
	o := oldest{limit: all, most: math.MaxInt / 4, keys: map[string]bool{}}
	one, several, none := search{key: "k7"}, search{key: "twins"}, search{key: "x"}
	looks := map[string]struct {
		look func(*buried)
		want int
	}{"a list": {func(b *buried) { o.add(b.DeadLetter) }, 0}, "one": {one.look, 1}, "several": {several.look, 1}, "none": {none.look, 0}}
	for name, l := range looks {
		var bodies []weak.Pointer[byte]
		for i := range all {
			body := make([]byte, 1<<10)
			bodies = append(bodies, weak.Make(&body[0]))
			d := letter(i)
			if i%2 == 0 {
				d.TaskID = "twins"
			}
			d.Body = body
			l.look(&buried{DeadLetter: d, raw: amqp.Delivery{Body: body, DeliveryTag: uint64(i)}})
		}
		runtime.GC()
		bodies = slices.DeleteFunc(bodies, func(p weak.Pointer[byte]) bool { return p.Value() == nil })
		if len(bodies) != l.want {
			t.Errorf("%s: %d bodies are held, want %d", name, len(bodies), l.want)
		}
	}
	if found, err := one.found(); err != nil || found.first.Key != "k7" || len(found.first.Body) == 0 || !slices.Equal(found.tags, []uint64{7}) {
		t.Errorf("found %+v, %v", found, err)
	}
	var ambiguous *queue.AmbiguousError
	if _, err := several.found(); !errors.As(err, &ambiguous) || len(ambiguous.Keys) != all/2 || ambiguous.Keys[1] != "k2" {
		t.Errorf("found several: %v", err)
	}
	if _, err := none.found(); !errors.Is(err, queue.ErrNoDeadLetter) {
		t.Errorf("found none: %v", err)
	}
	runtime.KeepAlive(&o)
}

// TestDeadStay looks at dead letters again and again, and removes one: the others are there, and listed by their ages, whatever order the broker keeps of what it is given back.
func TestDeadStay(t *testing.T) {
	onAll(t, func(t *testing.T, _ *broker.Broker, url string) {
		const all = 40
		cl, _ := dial(t, Config{URLs: []string{url}, Host: "h", Pools: []string{"p"}})
		for i := range all {
			d := letter(i)
			err := cl.publish.publish(within(t), nil, cl.toDead(amqp.Publishing{MessageId: d.TaskID, Body: make([]byte, 64<<10), Headers: amqp.Table{
				headerDeadKey: d.Key, headerTaskID: d.TaskID, headerPool: "p", headerBand: "normal", headerBuriedAt: d.BuriedAt.Format(time.RFC3339Nano)}}))
			if err != nil {
				t.Fatal(err)
			}
		}
		for range 3 {
			if list, err := cl.Dead(within(t), 5); err != nil || len(list) != 5 || list[0].Key != "k0" || list[4].Key != "k4" || list[0].Body != nil {
				t.Fatalf("listed %+v, %v", list, err)
			}
			if d, err := cl.DeadLetter(within(t), "t30"); err != nil || d.Key != "k30" || len(d.Body) != 64<<10 {
				t.Fatalf("shown %+v, %v", d, err)
			}
		}
		if err := cl.Drop(within(t), "k7"); err != nil {
			t.Fatal(err)
		}
		list, err := cl.Dead(within(t), all)
		if err != nil || !slices.IsSortedFunc(list, func(a, b queue.DeadLetter) int { return a.BuriedAt.Compare(b.BuriedAt) }) {
			t.Errorf("listed %+v, %v", list, err)
		}
		ch := channel(t, url)
		var left []string
		for {
			got, ok, err := ch.Get(dead, true)
			if err != nil {
				t.Fatal(err)
			}
			if !ok {
				break
			}
			left = append(left, got.MessageId)
		}
		want := []string{}
		for i := range all {
			if i != 7 {
				want = append(want, fmt.Sprint("t", i))
			}
		}
		slices.Sort(left)
		slices.Sort(want)
		if len(list) != len(want) || !slices.Equal(left, want) {
			t.Errorf("left are %v", left)
		}
	})
}
