package manager

import (
	"context"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/mayfly/mayfly/isolation"
	"github.com/mayfly/mayfly/queue"
	"github.com/mayfly/mayfly/worker"
)

// simHost is a host: what outlives its manager.
type simHost struct {
	broker  *simBroker
	name    string
	history *memory
	tasks   map[string]*simTask
	// The lock of the broker guards what follows. downUntil is when its network works again.
	known     map[string][]string
	works     map[string]*simWork // what the keeper has, by attempt id
	life      *simLife
	link      *simLink // as the broker sees it
	downUntil time.Time
	lives     sync.WaitGroup
}

// simLife is one life of a host's manager.
type simLife struct {
	*Manager
	host       *simHost
	dead       chan struct{} // it was killed: it does nothing any more
	detached   chan struct{}
	deliveries chan *simDelivery
	demand     int
	own        *simLink // as it sees it itself
	stop       context.CancelFunc
	leaving    bool
	// given are the deliveries, by their numbers, of what it has given back without having begun it.
	given map[[16]byte][]int
	ended chan struct{} // closed when the manager has stopped
}

// gives notes that a delivery ends without its task having been begun. The lock of the broker is held.
func (l *simLife) gives(d *simDelivery) {
	if turns := d.said.Turns; len(turns) > 0 {
		key := d.said.Fingerprint()
		l.given[key] = append(l.given[key], turns[len(turns)-1])
	}
}

// simTask is what becomes of a task, and what became of it.
type simTask struct {
	takes time.Duration
	fails int // so many times first
	dated bool
	runs  []simRun
}

// simRun is one run of a task.
type simRun struct {
	host     string
	from, to time.Time
	ok       bool
}

// simWork is a worker.
type simWork struct {
	attempt worker.Attempt
	from    time.Time
	outcome *worker.Outcome
	ended   chan struct{}
}

func (l *simLife) isDead() bool { return closed(l.dead) }

// live begins a life. The lock of the broker is held.
func (h *simHost) live() {
	l := &simLife{host: h, dead: make(chan struct{}), detached: make(chan struct{}), deliveries: make(chan *simDelivery, 1000),
		given: map[[16]byte][]int{}, ended: make(chan struct{})}
	capacity := Capacity{MilliCPU: 4000, Memory: 4 << 30}
	if h.name == "h0" {
		capacity.MilliCPU = 8000
	}
	l.Manager = New(Config{Host: h.name, Pools: []string{"default"}, Capacity: capacity, Window: 4, OnStop: KeepWorkers,
		KnownHosts: maps.Clone(h.known), Defaults: Defaults{MilliCPU: 1000, MaxAttempts: 5, Backoff: time.Second, OnLost: queue.KeepOnLost}},
		Services{Source: l, Runner: simRunner{l}, Fleet: simFleet{l}, History: simHistory{h.history, l}, Resolve: func(t queue.Task) (queue.Task, error) { return t, nil },
			Backlog: Backlog{Depth: func(context.Context) (map[string]int, error) { return nil, nil }}, Detach: func() { close(l.detached) },
			Sweep: func(func(string) bool) {}, Discard: func(string) {}, QueueState: func() string { return "simulated" }, Log: slog.New(simLog{l}),
			KeepHosts: func(known map[string][]string) { // called with the manager's lock
				kept := maps.Clone(known)
				go func() {
					h.broker.Lock()
					defer h.broker.Unlock()
					h.known = kept
				}()
			}})
	intake, stop := context.WithCancel(context.Background())
	h.life, l.stop = l, stop
	h.lives.Go(func() {
		defer close(l.ended)
		if err := l.Run(intake, intake); err != nil {
			panic(err)
		}
	})
	h.lives.Go(func() { l.connect(intake) })
}

// connect keeps the life connected.
func (l *simLife) connect(ctx context.Context) {
	b := l.host.broker
	for ctx.Err() == nil {
		wait(ctx, b.between(5*time.Millisecond, 2*time.Second))
		b.Lock()
		if !b.up || time.Now().Before(l.host.downUntil) || l.isDead() {
			b.Unlock()
			continue
		}
		link := &simLink{life: l, left: make(chan struct{}), gone: make(chan struct{}), unacked: map[*simDelivery]bool{}, mine: map[*simDelivery]bool{}}
		b.drop(l.host.link) // RabbitMQ does not, but the host hears of nothing by that any more
		l.own, l.host.link = link, link
		b.pump()
		b.Unlock()
		go l.Joined()
		select {
		case <-link.left:
		case <-ctx.Done():
		}
	}
}

func wait(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// kill ends a life as SIGKILL does. The lock of the broker is held.
func (l *simLife) kill() {
	if !l.isDead() {
		close(l.dead)
		l.stop()
		l.host.broker.leave(l.own)
		l.host.broker.drop(l.own)
	}
}

// restart has a life leave in good order, its workers with it or not, and the next one begin. The lock of the broker is held.
func (l *simLife) restart(drain bool) {
	l.leaving = true
	h := l.host
	go func() {
		if drain {
			l.Drain(5 * time.Second)
		} else {
			l.Leave()
		}
		<-l.ended
		time.Sleep(time.Second) // what it has said arrives
		h.broker.Lock()
		defer h.broker.Unlock()
		if h.life == l {
			h.broker.leave(l.own)
			h.broker.drop(l.own)
			l.stop()
			h.broker.tell("*** %s lives again", h.name)
			h.live()
		}
	}()
}

// Receive implements [queue.Source].
func (l *simLife) Receive(ctx context.Context) (queue.Delivery, error) {
	for {
		select {
		case d := <-l.deliveries:
			if closed(d.lost) {
				l.host.broker.Lock()
				l.gives(d)
				l.host.broker.Unlock()
				continue
			}
			return d, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// Demand implements [queue.Source]; it is called with the manager's lock.
func (l *simLife) Demand(n int) {
	go func() {
		l.host.broker.Lock()
		defer l.host.broker.Unlock()
		l.demand = n
		l.host.broker.pump()
	}()
}

// Close implements [queue.Source].
func (*simLife) Close() error { return nil }

// simHistory is the history as a life writes it.
type simHistory struct {
	*memory
	life *simLife
}

func (h simHistory) Put(r Record) error {
	if h.life.isDead() {
		return context.Canceled
	}
	return h.memory.Put(r)
}

func (h simHistory) Acked(id string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if r, ok := h.records[id]; ok && !h.life.isDead() {
		r.AckedAt = time.Now()
		h.records[id] = r
		if h.latest[r.Result.ID].ID == id {
			h.latest[r.Result.ID] = r
		}
	}
}

// simRunner is the keeper as a life sees it.
type simRunner struct{ *simLife }

func (r simRunner) Run(ctx context.Context, a *worker.Attempt, started func(int, time.Time)) (*worker.Outcome, error) {
	h := r.host
	h.broker.Lock()
	w := h.works[a.ID()]
	if w == nil && !r.isDead() {
		w = h.start(a)
	}
	h.broker.Unlock()
	if w == nil {
		return nil, isolation.ErrDetached
	}
	started(1, w.from)
	select {
	case <-w.ended:
	case <-r.dead:
		return nil, isolation.ErrDetached
	case <-r.detached:
		return nil, isolation.ErrDetached
	case <-ctx.Done():
		h.broker.Lock()
		w.end(queue.CauseCancelled, "")
		h.broker.Unlock()
	}
	if r.isDead() {
		return nil, isolation.ErrDetached
	}
	o := *w.outcome
	return &o, nil
}

// start starts a worker. The lock of the broker is held.
func (h *simHost) start(a *worker.Attempt) *simWork {
	w := &simWork{attempt: *a, from: time.Now(), ended: make(chan struct{})}
	h.works[a.ID()] = w
	t := h.tasks[a.Task.ID]
	if t == nil { // a probe
		t = &simTask{}
	}
	i := len(t.runs)
	t.runs = append(t.runs, simRun{host: h.name, from: w.from})
	h.broker.tell("%s begins %s", h.name, a.ID())
	time.AfterFunc(t.takes, func() {
		h.broker.Lock()
		defer h.broker.Unlock()
		if h.works[a.ID()] != w || w.outcome != nil { // killed
			return
		}
		cause, message := queue.CauseNone, ""
		if a.Number <= t.fails {
			cause, message = queue.CauseExit, "it is to fail"
		}
		t.runs[i].to, t.runs[i].ok = time.Now(), cause == queue.CauseNone
		h.broker.tell("%s has ended %s: %s", h.name, a.ID(), cause)
		w.end(cause, message)
	})
	return w
}

// end ends a worker. The lock of the broker is held.
func (w *simWork) end(cause queue.Cause, message string) {
	if w.outcome == nil {
		w.outcome = &worker.Outcome{Cause: cause, Message: message, StartedAt: w.from, FinishedAt: time.Now()}
		close(w.ended)
	}
}

func (r simRunner) Held(context.Context) (list []worker.Held, err error) {
	r.host.broker.Lock()
	defer r.host.broker.Unlock()
	for _, w := range r.host.works {
		list = append(list, worker.Held{Attempt: w.attempt, PID: 1, StartedAt: w.from, Ended: w.outcome != nil})
	}
	return list, nil
}

func (r simRunner) Release(attemptID string) {
	r.host.broker.Lock()
	defer r.host.broker.Unlock()
	if !r.isDead() {
		delete(r.host.works, attemptID)
	}
}
