package manager

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mayfly/mayfly/queue"
)

// simFault is what happened to a host.
type simFault struct {
	host     string
	from, to time.Time
	forgets  bool // what it has run
}

// TestSimulatedChaos has managers, whole, on a simulated broker and a simulated clock, run tasks while they are killed and cut off: none is lost, each has its result, and what ran to
// its end twice did so for its first host was killed or cut off between.
// The seed is that of the faults; which goroutine comes first is nobody's choice, so a run is told whole where it fails, and may not come again.
func TestSimulatedChaos(t *testing.T) {
	first, n := uint64(0), 40
	if s := os.Getenv("MAYFLY_TEST_SEED"); s != "" {
		seed, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		first, n = seed, 1
	}
	if s := os.Getenv("MAYFLY_TEST_SIMULATIONS"); s != "" {
		var err error
		if n, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	for i := range n {
		seed := first + uint64(i)
		synctest.Test(t, func(t *testing.T) { simulateChaos(t, seed) })
	}
}

func simulateChaos(t *testing.T, seed uint64) {
	const tasks, faulty = 40, 2 * time.Minute
	hosts := int(2 + seed%5)
	all := map[string]*simTask{}
	b := simulateBroker(seed, hosts, 3*time.Millisecond, all)
	b.unheard = 2
	for i := range tasks {
		id := fmt.Sprint("t", i)
		task := &simTask{takes: b.between(50*time.Millisecond, 20*time.Second), fails: int(max(0, b.between(0, 6)-3)), dated: b.chance(80)}
		b.Lock()
		all[id] = task
		b.Unlock()
		cpu := 1
		if b.chance(10) {
			cpu = 6 // only one host can
		}
		body := fmt.Appendf(nil, `{"id": %q, "command": ["x"], "resources": {"cpu": %d, "memory": "1MiB"}}`, id, cpu)
		time.AfterFunc(b.between(0, faulty*3/4), func() {
			b.Lock()
			defer b.Unlock()
			m := &simMessage{Message: queue.Message{MessageID: id, Body: body, Pool: "default", Band: queue.Normal}}
			if task.dated {
				m.QueuedAt = time.Now()
			}
			b.publish(m)
		})
	}
	var faults []simFault
	for {
		time.Sleep(b.between(0, 2*8*time.Second/time.Duration(hosts)))
		if time.Since(b.begin) > faulty {
			break
		}
		faults = append(faults, b.harm()...)
	}
	time.Sleep(time.Minute)
	done := func() bool {
		if len(b.left(t)) > 0 {
			return false
		}
		b.Lock()
		defer b.Unlock()
		busy := len(b.ready)
		for _, h := range b.hosts {
			busy += len(h.works)
			if h.link != nil {
				busy += len(h.link.unacked)
			}
		}
		return busy == 0 && len(b.results) == tasks
	}
	for wait := time.Duration(0); !done() && wait < 3*time.Hour; wait += time.Minute {
		time.Sleep(time.Minute)
	}
	var wrong []string
	for _, v := range b.left(t) {
		t.Errorf("a host has left: %+v", v)
		wrong = append(wrong, v.ID)
	}
	b.Lock()
	for id, task := range all {
		if len(b.results[id]) == 0 {
			t.Errorf("%s is lost", id)
			wrong = append(wrong, id)
		}
		ran := slices.DeleteFunc(slices.Clone(task.runs), func(r simRun) bool { return !r.ok })
		for i := 1; i < len(ran) && task.dated; i++ { // else a copy may as well be the same task sent anew
			if !slices.ContainsFunc(task.runs, func(earlier simRun) bool { // also one that failed: who began it as well has made another copy for the next try
				return earlier.from.Before(ran[i].from) && slices.ContainsFunc(faults, func(f simFault) bool {
					return f.host == earlier.host && (f.host != ran[i].host || f.forgets) && f.from.Before(ran[i].from) && f.to.After(earlier.from)
				})
			}) {
				t.Errorf("%s ran twice, on %s and on %s, without a reason", id, ran[i-1].host, ran[i].host)
				wrong = append(wrong, id)
			}
		}
	}
	for _, m := range b.ready {
		t.Errorf("%s is left in the queue %q", m.MessageID, m.to)
	}
	if t.Failed() {
		t.Logf("MAYFLY_TEST_SEED=%d", seed)
		for _, line := range b.tale {
			if slices.ContainsFunc(wrong, func(id string) bool {
				return strings.Contains(line, id+".") || strings.Contains(line, id+" ") || strings.HasSuffix(line, id)
			}) || strings.Contains(line, "***") {
				t.Log(line)
			}
		}
	}
	b.Unlock()
	b.stop()
}

// left lists what the hosts have.
func (b *simBroker) left(t *testing.T) (all []View) {
	var lives []*simLife
	b.Lock()
	for _, h := range b.hosts {
		lives = append(lives, h.life)
	}
	b.Unlock()
	for _, l := range lives {
		list, err := l.List(t.Context(), 0)
		if err != nil {
			t.Error(err)
		}
		all = append(all, list...)
	}
	return all
}

// harm does something to a host, or to all.
func (b *simBroker) harm() []simFault {
	b.Lock()
	defer b.Unlock()
	h := b.hosts[b.random.IntN(len(b.hosts))]
	now, l := time.Now(), h.life
	switch b.random.IntN(10) {
	case 9:
		b.tell("*** %s loses its workers", h.name)
		for id, w := range h.works {
			w.end(queue.CauseHostLost, "the keeper is gone")
			delete(h.works, id)
		}
		return []simFault{{h.name, now, now.Add(time.Second), true}}
	case 8:
		if l.isDead() || l.leaving {
			return nil
		}
		b.tell("*** %s is restarted", h.name)
		l.restart(b.random.IntN(2) == 0)
		return []simFault{{h.name, now, now.Add(10 * time.Second), false}}
	case 0, 1, 2:
		if l.isDead() {
			return nil
		}
		away := time.Duration(b.random.Int64N(int64(5 * time.Second)))
		b.tell("*** %s is killed, for %v", h.name, away)
		l.kill()
		time.AfterFunc(away, func() {
			b.Lock()
			defer b.Unlock()
			if h.life == l {
				b.tell("*** %s lives", h.name)
				h.live()
			}
		})
		return []simFault{{h.name, now, now.Add(away), false}}
	case 3, 4:
		b.tell("*** %s is cut off", h.name)
		b.cut(h)
		return []simFault{{h.name, now, now.Add(time.Second), false}}
	case 5, 6:
		quiet := time.Second + time.Duration(b.random.Int64N(int64(40*time.Second)))
		b.tell("*** nothing comes through to %s for %v", h.name, quiet)
		h.downUntil = now.Add(quiet)
		if link := l.own; link != nil && !closed(link.left) {
			link.quietUntil = h.downUntil
			later := func(least, most time.Duration, do func(*simLink)) {
				time.AfterFunc(least+time.Duration(b.random.Int64N(int64(most-least))), func() {
					b.Lock()
					defer b.Unlock()
					if time.Now().Before(link.quietUntil) {
						do(link)
					}
				})
			}
			later(10*time.Second, 20*time.Second, b.leave)
			later(20*time.Second, 30*time.Second, b.drop)
		}
		return []simFault{{h.name, now, h.downUntil, false}}
	default:
		down := time.Duration(b.random.Int64N(int64(5 * time.Second)))
		b.tell("*** the broker is restarted, for %v", down)
		var faults []simFault
		b.up = false
		for _, h := range b.hosts {
			b.cut(h)
			faults = append(faults, simFault{h.name, now, now.Add(down), false})
		}
		time.AfterFunc(down, func() {
			b.Lock()
			defer b.Unlock()
			b.up = true
			b.pump()
		})
		return faults
	}
}

// cut breaks a host's connection: one end hears of it first. The lock is held.
func (b *simBroker) cut(h *simHost) {
	link := h.life.own
	if link == nil {
		return
	}
	[]func(*simLink){b.leave, b.drop}[b.random.IntN(2)](link)
}

// TestRestartedWithCopies restarts a manager, its workers left to the next one, that has the messages of workers and a copy of each: what goes back to the queue says that it may have
// been begun, and is given up when its worker has ended.
func TestRestartedWithCopies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tasks := map[string]*simTask{}
		var messages []queue.Message
		for i := range 6 {
			id := fmt.Sprint("t", i)
			tasks[id] = &simTask{takes: time.Minute, dated: true}
			messages = append(messages, queue.Message{MessageID: id, Body: []byte(`{"command": ["x"]}`), Pool: "default", Band: queue.Normal, QueuedAt: time.Now()})
		}
		b := simulateBroker(1, 1, 3*time.Millisecond, tasks)
		h := b.hosts[0]
		do := func(what func()) {
			b.Lock()
			what()
			b.Unlock()
			time.Sleep(5 * time.Second)
		}
		time.Sleep(5 * time.Second) // it connects
		do(func() {
			for _, m := range messages {
				b.publish(&simMessage{Message: m})
			}
		})
		do(func() {
			for _, m := range messages {
				m.HandedBy = "h1"
				b.publish(&simMessage{Message: m, to: "h0", uncounted: true})
			}
		})
		do(func() { h.life.restart(false) })
		time.Sleep(5 * time.Minute)
		do(func() {
			for id, task := range tasks {
				if len(task.runs) != 1 || len(b.results[id]) != 1 {
					t.Errorf("%s: run %d times, %d results", id, len(task.runs), len(b.results[id]))
				}
			}
			if len(b.ready) > 0 {
				t.Errorf("%d messages are left", len(b.ready))
			}
		})
		b.stop()
	})
}
