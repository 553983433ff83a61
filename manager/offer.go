package manager

import (
	"context"
	"slices"
	"time"

	"github.com/mayfly/mayfly/queue"
	"github.com/mayfly/mayfly/worker"
)

const (
	// keptMax bounds the questions of others that a host keeps, and keptPause is the least time between two answers to such: one task may take
	// the room of both.
	keptMax   = 256
	keptPause = 20 * time.Millisecond
	// promiseTime is how long room is set aside for a task that was offered it: the other host waits a little for more offers, then hands it over.
	promiseTime = time.Second
)

// kept is a question of another host that may be answered later.
type kept struct {
	question queue.Question
	task     queue.Task
	choices  []choice // as they were when it came
	// avoided says that the task has failed here.
	avoided bool
	until   time.Time
}

// promise is what was offered to another host.
type promise struct {
	fingerprint [16]byte
	lease       worker.Lease
	gpus        bool
	until       time.Time
}

// Asked answers another host's question where this one can help, or keeps it till it can.
func (m *Manager) Asked(q queue.Question) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.meet(q.From)
	m.others.kept = slices.DeleteFunc(m.others.kept, func(k kept) bool { return k.question.ID == q.ID })
	if !m.others.here || q.Over || !slices.Contains(m.config.Pools, q.Pool) || m.state != serving && q.Purpose != queue.ToAdopt && q.Purpose != queue.ToSettle {
		return
	}
	switch q.Purpose {
	case queue.ToAdopt:
		m.answerWonder(&q)
	case queue.ToSettle:
		if m.hasSettled(&q) {
			m.offer(&q, queue.Offer{Has: true})
		}
	case queue.ToExplain:
		m.answerExplain(&q)
	case queue.ToCount:
		m.answerCount(&q)
	default:
		k := kept{question: q}
		fits := m.fit(&k)
		if fits && m.answer(&k) {
			return
		}
		if q.Surely || q.Refused && fits {
			m.offer(&q, queue.Offer{Lacks: true, Never: !fits})
		}
		if fits && q.Open > 0 {
			k.until = time.Now().Add(min(q.Open, shareMax))
			m.others.kept = append(m.others.kept, k)
			if len(m.others.kept) > keptMax {
				m.others.kept = slices.Delete(m.others.kept, 0, 1)
			}
			m.lookLater()
		}
	}
}

// fit reports whether a task that another host asks about can run here at all. The lock is held.
func (m *Manager) fit(k *kept) bool {
	if k.question.Message == nil {
		return false
	}
	if k.avoided = m.avoids(k.question.Message.History); k.avoided && !k.question.Avoided {
		return false
	}
	var err error
	if k.task, err = m.read(k.question.Message); err != nil {
		return false // it would be refused here, too
	}
	k.choices, _ = m.ledger.choices(&k.task)
	return len(k.choices) > 0
}

// refusedHere is why this host refuses a task that says all it must: another one may know its type, or allow what it asks for.
type refusedHere struct{ error }

func (r *refusedHere) Unwrap() error { return r.error }

// read decodes a message as this host understands it. The task of one that is refused here is what the message says.
func (m *Manager) read(msg *queue.Message) (queue.Task, error) {
	if err := m.config.Keys.Verify(*msg); err != nil {
		return queue.Task{}, err
	}
	said, err := queue.Decode(*msg)
	if err != nil {
		return said, err
	}
	task, err := m.Resolve(said)
	if err != nil {
		return said, &refusedHere{err}
	}
	m.fillIn(&task)
	return task, nil
}

// answer offers to take a task where there is room for it. The lock is held.
func (m *Manager) answer(k *kept) bool {
	choices, _ := m.ledger.choices(&k.task)
	c, room := m.roomFor(choices)
	if c == nil {
		// What can never run where it is waits here as well as there, in its turn: up to another window.
		if k.question.Purpose != queue.ToRun || len(choices) == 0 || m.sick != "" || m.handedWaiting() >= m.config.Window {
			return false
		}
		c, room = &choices[0], -float64(len(m.waiting)+1)
	}
	m.others.promised = append(m.others.promised, promise{fingerprint: k.question.Message.Fingerprint(), lease: c.lease, gpus: c.gpus.Count > 0,
		until: time.Now().Add(promiseTime)})
	m.setDemand()
	m.offer(&k.question, queue.Offer{Room: room, Avoided: k.avoided})
	return true
}

// offer answers. The lock is held.
func (m *Manager) offer(q *queue.Question, o queue.Offer) {
	question := *q // it may be forgotten meanwhile
	limit := askLimit
	if q.Purpose == queue.ToAdopt {
		limit = adoptTime
	}
	m.tell("another host not answered", q.TaskID, limit, func(ctx context.Context) error { return m.Fleet.Answer(ctx, question, o) })
}

// hasBegun reports whether a worker of the message was begun here, or has ended. Its delivery is lost, though we may not have heard of that
// yet: it was delivered to another host. The lock is held.
func (m *Manager) hasBegun(q *queue.Question) bool {
	fingerprint, known := fingerprintOf(q)
	if !known {
		return false
	}
	for _, e := range m.active {
		if e.is(fingerprint, q.QueuedAt) {
			return true
		}
	}
	for _, e := range m.waiting { // it may begin before we hear of the loss
		if e.is(fingerprint, q.QueuedAt) && e.atHand() && e.mayBegin() {
			return true
		}
	}
	if m.settledBefore(q.AttemptID, q.TaskID, fingerprint, q.QueuedAt) != "" {
		return true
	}
	_, ok := m.copySucceeded(q.TaskID, fingerprint, q.QueuedAt)
	return ok
}

// fingerprintOf is that of the message that is asked about.
func fingerprintOf(q *queue.Question) (fingerprint [16]byte, known bool) {
	if len(q.Fingerprint) != len(fingerprint) {
		return fingerprint, false
	}
	return [16]byte(q.Fingerprint), true
}

// handedWaiting counts what other hosts have handed to this one, or may be about to. The lock is held.
func (m *Manager) handedWaiting() int {
	n := len(m.promises())
	for _, e := range m.waiting {
		if e.handed() {
			n++
		}
	}
	return n
}

// promises lists what may still come of what was offered. The lock is held.
func (m *Manager) promises() []promise {
	now := time.Now()
	m.others.promised = slices.DeleteFunc(m.others.promised, func(p promise) bool { return now.After(p.until) })
	return m.others.promised
}

// received takes a promise for kept: what was offered room has come. The lock is held.
func (m *Manager) received(fingerprint [16]byte) {
	if i := slices.IndexFunc(m.others.promised, func(p promise) bool { return p.fingerprint == fingerprint }); i >= 0 {
		m.others.promised = slices.Delete(m.others.promised, i, i+1)
	}
}

// crowded reports whether tasks wait for room here, others than those that wait for something else. The lock is held.
func (m *Manager) crowded() bool {
	return slices.ContainsFunc(m.waiting, m.inLine)
}

// roomFor returns the first of the choices that could start here at once beside what was promised, and how many cores are left then. The lock is
// held.
func (m *Manager) roomFor(choices []choice) (c *choice, room float64) {
	if m.sick != "" || m.crowded() || m.unconfirmed() >= unconfirmedMax {
		return nil, 0 // those that wait come first
	}
	promises, before := m.promises(), m.ledger.lent
	defer func() { m.ledger.lent = before }()
	gpus := false
	for _, p := range promises {
		m.ledger.lent.MilliCPU += p.lease.MilliCPU
		m.ledger.lent.Memory += p.lease.Memory
		m.ledger.lent.Disk += p.lease.Disk
		gpus = gpus || p.gpus
	}
	for i := range choices {
		c := &choices[i]
		if c.gpus.Count > 0 && gpus || m.ledger.lacks(c) != "" { // which GPUs a promise will take, nobody knows
			continue
		}
		return c, float64(m.ledger.total.MilliCPU-m.ledger.lent.MilliCPU-c.lease.MilliCPU) / 1000
	}
	return nil, 0
}

// answerKept answers one of the questions that were kept, now that there may be room. The lock is held.
func (m *Manager) answerKept(now time.Time) {
	if len(m.others.kept) == 0 || m.state != serving || now.Before(m.others.keptAt) {
		return
	}
	m.others.kept = slices.DeleteFunc(m.others.kept, func(k kept) bool { return now.After(k.until) })
	for i := range m.others.kept {
		k := &m.others.kept[i]
		if k.question.Purpose != queue.ToRun && !m.ledger.anyFits(k.choices) || !m.answer(k) { // the first is cheap, and there may be hundreds each time that something starts or ends
			continue
		}
		m.others.kept = slices.Delete(m.others.kept, i, i+1)
		m.others.keptAt = now.Add(keptPause)
		m.lookIn(keptPause)
		return
	}
	m.lookLater()
}

// lookLater has this host look at the questions that it keeps when a promise that stands in the way may be void. The lock is held.
func (m *Manager) lookLater() {
	if promises := m.promises(); len(promises) > 0 && len(m.others.kept) > 0 {
		m.lookIn(time.Until(promises[0].until) + time.Millisecond)
	}
}

func (m *Manager) lookIn(wait time.Duration) {
	if m.others.look == nil {
		m.others.look = time.AfterFunc(wait, m.lookAgain)
		return
	}
	m.others.look.Reset(wait)
}

// lookAgain answers one of the questions that were kept.
func (m *Manager) lookAgain() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.answerKept(time.Now())
}
