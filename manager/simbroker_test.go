package manager

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/mayfly/mayfly/queue"
)

// simBroker is a broker as hosts see it, on a clock of its own: a queue of a pool, one for each host, and connections that break.
type simBroker struct {
	sync.Mutex
	random  *rand.Rand
	begin   time.Time
	up      bool
	ready   []*simMessage
	hosts   []*simHost
	results map[string][]queue.State // by task id
	tale    []string
	// unheard is how many of a hundred confirms are lost with the connection by which a host publishes, another one than that by which it receives.
	unheard int
	// latency is how long what is sent takes at most; some of it takes longer. It does not change.
	latency time.Duration
}

// simulateBroker starts a broker with so many hosts, which work on the tasks.
func simulateBroker(seed uint64, hosts int, latency time.Duration, tasks map[string]*simTask) *simBroker {
	b := &simBroker{random: rand.New(rand.NewPCG(seed, 2)), begin: time.Now(), up: true, results: map[string][]queue.State{}, latency: latency}
	b.Lock()
	defer b.Unlock()
	for i := range hosts {
		h := &simHost{broker: b, name: fmt.Sprint("h", i), tasks: tasks, works: map[string]*simWork{},
			history: &memory{records: map[string]Record{}, latest: map[string]Record{}, marks: map[string]time.Time{}}}
		b.hosts = append(b.hosts, h)
		h.live()
	}
	return b
}

// stop ends all that still lives.
func (b *simBroker) stop() {
	b.Lock()
	for _, h := range b.hosts {
		h.life.stop()
	}
	b.Unlock()
	for _, h := range b.hosts {
		h.lives.Wait()
	}
	time.Sleep(3 * time.Minute) // what is timed still ends
}

// simMessage is one that the broker has.
type simMessage struct {
	queue.Message
	to string // the host whose queue it is in, or empty
	// first is the number of its first delivery, and deliveries is how many there were; uncounted, that there may have been others.
	first, deliveries int
	uncounted         bool
}

// deliver returns the message as it is delivered next. The lock of the broker is held.
func (m *simMessage) deliver(b *simBroker) queue.Message {
	if m.first == 0 {
		m.first = 1 + b.random.IntN(1<<50)
	}
	said := m.Message
	m.deliveries++
	said.Redelivered = m.deliveries > 1 || m.uncounted
	if said.Turns = nil; !m.uncounted {
		for i := range m.deliveries {
			said.Turns = append(said.Turns, m.first+i)
		}
	}
	if said.QueuedAt.IsZero() {
		said.QueuedAt, said.Undated, said.Guessed = time.Now(), true, true
	}
	return said
}

// simLink is a host's connection.
type simLink struct {
	life *simLife
	// quietUntil is when something comes through again.
	quietUntil time.Time
	// left is closed when the host knows that it is gone, gone when the broker does.
	left, gone chan struct{}
	// unacked are the deliveries for which the broker waits, mine those for which the host does.
	unacked, mine map[*simDelivery]bool
}

// simDelivery is a message on a connection.
type simDelivery struct {
	link    *simLink
	message *simMessage
	said    queue.Message
	lost    chan struct{}
}

// tell notes what has happened. The lock is held.
func (b *simBroker) tell(format string, args ...any) {
	b.tale = append(b.tale, fmt.Sprintf("%10.4f ", time.Since(b.begin).Seconds())+fmt.Sprintf(format, args...))
}

// between returns a random time.
func (b *simBroker) between(least, most time.Duration) time.Duration {
	b.Lock()
	defer b.Unlock()
	return least + time.Duration(b.random.Int64N(int64(most-least)))
}

func (b *simBroker) chance(percent int) bool {
	b.Lock()
	defer b.Unlock()
	return b.random.IntN(100) < percent
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// pass waits until something that one end of the connection has sent comes to the other end, and reports whether it does.
func (b *simBroker) pass(l *simLink, near, far <-chan struct{}) bool {
	wait := b.between(0, b.latency)
	if b.chance(3) {
		wait *= 50
	}
	for {
		select {
		case <-time.After(wait):
		case <-near:
			if !closed(far) && wait < time.Second { // it is on its way
				time.Sleep(wait)
				return !closed(far)
			}
			return false
		case <-far:
			return false
		}
		b.Lock()
		wait = time.Until(l.quietUntil)
		b.Unlock()
		if wait <= 0 {
			return !closed(far)
		}
	}
}

// publish puts a message into a queue. The lock is held.
func (b *simBroker) publish(m *simMessage) {
	b.ready = append(b.ready, m)
	b.pump()
}

// pump delivers what can be. The lock is held.
func (b *simBroker) pump() {
	if !b.up {
		return
	}
	b.ready = slices.DeleteFunc(b.ready, func(m *simMessage) bool {
		var links []*simLink
		for _, h := range b.hosts {
			if l := h.link; l != nil && !closed(l.gone) && len(l.unacked) < l.life.demand && (m.to == "" || m.to == h.name) {
				links = append(links, l)
			}
		}
		if len(links) == 0 {
			return false
		}
		l := links[b.random.IntN(len(links))]
		d := &simDelivery{link: l, message: m, said: m.deliver(b), lost: make(chan struct{})}
		l.unacked[d] = true
		go func() {
			if b.pass(l, l.gone, l.left) {
				b.Lock()
				if d.said.Redelivered && d.said.Unbegun(l.life.given[d.said.Fingerprint()]) {
					d.said.Redelivered = false // nobody else had it
				}
				if !closed(l.left) {
					l.mine[d] = true
					l.life.deliveries <- d
				}
				b.Unlock()
			}
		}()
		return true
	})
}

// drop has the broker know that a connection is gone. The lock is held.
func (b *simBroker) drop(l *simLink) {
	if l == nil || closed(l.gone) {
		return
	}
	close(l.gone)
	b.follow(l)
	for d := range l.unacked {
		b.ready = append([]*simMessage{d.message}, b.ready...)
	}
	clear(l.unacked)
	h := l.life.host
	if h.link == l {
		h.link = nil
	}
	time.AfterFunc(time.Minute, func() { // the queue of a host that is away gives back what it has
		b.Lock()
		defer b.Unlock()
		if h.link != nil {
			return
		}
		for _, m := range b.ready {
			if m.to == h.name {
				m.to, m.HandedBy, m.uncounted = "", "", true
			}
		}
		b.pump()
	})
	b.pump()
}

// follow has each end of a connection know that the other has given it up, as soon as anything comes through. The lock is held.
func (b *simBroker) follow(l *simLink) {
	time.AfterFunc(max(0, time.Until(l.quietUntil))+time.Duration(b.random.Int64N(int64(20*time.Millisecond))), func() {
		b.Lock()
		defer b.Unlock()
		if time.Now().Before(l.quietUntil) {
			b.follow(l)
			return
		}
		b.leave(l)
		b.drop(l)
	})
}

// leave has the host know that its connection is gone. The lock is held.
func (b *simBroker) leave(l *simLink) {
	if l == nil || closed(l.left) {
		return
	}
	close(l.left)
	b.follow(l)
	for d := range l.mine {
		close(d.lost)
	}
	clear(l.mine)
}

// Message implements [queue.Delivery].
func (d *simDelivery) Message() queue.Message { return d.said }

// Lost implements [queue.Delivery].
func (d *simDelivery) Lost() <-chan struct{} { return d.lost }

// Settle implements [queue.Delivery].
func (d *simDelivery) Settle(ctx context.Context, v queue.Verdict, confirmed func() error) error {
	l, life := d.link, d.link.life
	b := life.host.broker
	for v.Result != nil || v.Action == queue.Retry || v.Action == queue.Forward {
		if closed(d.lost) {
			return queue.ErrLost
		}
		arrived := b.pass(l, l.left, l.gone)
		if arrived {
			b.Lock()
			d.carryOut(v)
			b.Unlock()
		}
		if arrived && !b.chance(b.unheard) && b.pass(l, l.gone, l.left) {
			break
		}
		// Either nobody will ever confirm it, or the other connection is broken, by which it was published, and that is done again.
		v.Doubtful = true
		select {
		case <-time.After(b.between(0, time.Second)):
		case <-d.lost:
			return queue.ErrLost
		case <-ctx.Done():
			return ctx.Err()
		}
		if life.isDead() {
			<-ctx.Done()
			return ctx.Err()
		}
	}
	if life.isDead() {
		<-ctx.Done()
		return ctx.Err()
	}
	if confirmed != nil {
		if err := confirmed(); err != nil {
			return err
		}
	}
	b.Lock()
	defer b.Unlock()
	if v.Action == queue.Return {
		life.gives(d)
	}
	if closed(d.lost) {
		return queue.ErrLost
	}
	delete(l.mine, d)
	go func() {
		if !b.pass(l, l.left, l.gone) {
			return
		}
		b.Lock()
		defer b.Unlock()
		if !l.unacked[d] {
			return
		}
		if delete(l.unacked, d); v.Action == queue.Return {
			b.ready = append(b.ready, d.message)
		}
		b.pump()
	}()
	return nil
}

// carryOut stores what the verdict publishes. The lock of the broker is held.
func (d *simDelivery) carryOut(v queue.Verdict) {
	h := d.link.life.host
	b := h.broker
	m := &simMessage{Message: d.said, uncounted: v.Doubtful}
	m.HandedBy, m.Undated, m.Copied = "", false, true
	switch {
	case v.Result != nil:
		b.tell("%s says that %s has %s (%s)", h.name, v.Result.ID, v.Result.State, v.Result.Cause)
		b.results[v.Result.ID] = append(b.results[v.Result.ID], v.Result.State)
	case v.Action == queue.Forward:
		b.tell("%s hands %s to %s, doubtful: %v", h.name, m.MessageID, v.Host, v.Doubtful)
		m.to, m.HandedBy = v.Host, h.name
		b.publish(m)
	default:
		m.History = v.History
		b.tell("%s has %s tried again after %v, attempts %d, doubtful: %v", h.name, m.MessageID, v.Delay, len(v.History), v.Doubtful)
		time.AfterFunc(v.Delay, func() {
			b.Lock()
			defer b.Unlock()
			b.publish(m)
		})
	}
}
