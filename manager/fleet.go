package manager

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"github.com/mayfly/mayfly/internal/logkey"
	"github.com/mayfly/mayfly/queue"
	"github.com/mayfly/mayfly/worker"
)

// A host that holds a task which it cannot or should not run asks the others, once; those that can take it now say so, and the best is handed
// the task. Where nobody can now, the others keep the question for a time and answer when they can, so that nobody asks again and again, and
// nobody tells all others how it is. Who comes (back) says hello, and is asked what is still open: so no question is lost.
const (
	// adoptTime is how long a message that was delivered before waits for the host that has it. Such a host may have lost its connection, and
	// makes a new one within half a minute at worst: the longest wait between two tries is 2 s, 10 s where the broker refuses it, and a dial may take as long. Who may not go on
	// without the broker has stopped its workers by then (see lost.go).
	adoptTime = 30 * time.Second
	// loneTime is the same where no other host was ever heard of: the others answer the first hello at once.
	loneTime = time.Second
	// answerTime is how long an answer may take: it takes a broker milliseconds, and a loaded host some more.
	answerTime = 250 * time.Millisecond
	// sampleTime is how long it may take where only some hosts were asked, and more can be.
	sampleTime = 80 * time.Millisecond
	// collectTime is how long further offers are waited for after the first.
	collectTime = 20 * time.Millisecond
	// askLimit bounds the publishing of a question or an answer: by then it is put again, or of no use. Where a task may be begun twice for that it was not said, the
	// limit is adoptTime.
	askLimit = 5 * time.Second
	// runTime, spareTime and shareTime are how long a question stays open which nobody could answer at once: about what never can run here,
	// before it waits in the broker; about what has failed here, before it is tried here again; and about what waits for room here. The last one
	// is asked again, with twice the time up to shareMax: a broker that is full of waiting tasks is not to be filled with questions, too.
	runTime   = 5 * time.Minute
	spareTime = 3 * time.Second
	shareTime = 30 * time.Second
	shareMax  = 5 * time.Minute
	// askAfter is how long a task waits for room here before the others are asked; askAfterHanded, one that was handed on before.
	askAfter       = 500 * time.Millisecond
	askAfterHanded = 3 * time.Second
	// heldMax is how many tasks may wait for other hosts, or for one with the same id to end, without taking the place of others in the host's window, and parkedHeld how many of them
	// may be such as no host can run: the first host that can gets them at once. The others wait in the broker.
	heldMax    = 64
	parkedHeld = 32
	// greetedBy is how many of those that were there before greet a newcomer; a question about a message that was delivered before has all hosts
	// answer where no more are known.
	greetedBy = 8
	// againDelay is the wait after a handing over that failed.
	againDelay = time.Second
)

// others is what the manager knows of the other hosts. The manager's lock guards it.
type others struct {
	// here says that this host is ready to be asked: it knows what an earlier life began.
	here bool
	// reached says that it can be asked: what others say arrives.
	reached bool
	// known are the hosts that were heard of, and their pools as far as they said, but for those that have left in good order.
	known map[string][]string
	// crowds are the pools, and last is the question that was decided last.
	crowds    map[string]*crowd
	last      *inquiry
	inquiries map[string]*inquiry
	// shared is the question about what waits for room that nobody keeps yet, sharing when to ask the next one, and sharePause how long that stays
	// open.
	shared     *inquiry
	sharing    *time.Timer
	sharePause time.Duration
	// kept are questions of others that may be answered later, not before keptAt. promised is what was offered and may come.
	kept     []kept
	keptAt   time.Time
	look     *time.Timer
	promised []promise
	// lives tells the lives of the known hosts apart.
	lives map[string]string
	// wonders are the questions of others about who has a message.
	wonders []*wonder
	// polls are what people want to know of all hosts, by question.
	polls map[string]*poll
	// parked is what this host has put back because no host could run it, by task id.
	parked map[string]parked
}

// inquiry is a question that was asked.
type inquiry struct {
	question queue.Question
	// about is what it is about; entry is the same, and nil when that does not wait any more, but others do.
	about, entry *entry
	offers       []queue.Offer
	// gave is what the offers say of deliveries that ended without the task's having been begun.
	gave []int
	// lack are the hosts that have not begun the task, for sure; or cannot take it now.
	// Those that never can are never, too.
	lack, never []string
	// open is how long the others are to keep it where none can answer at once, and until is the end of that once they do.
	open  time.Duration
	until time.Time
	// timer ends the wait for offers, of that length, which begins when the question was put: nobody is silent who was not asked. Until then (putAt is zero) it puts
	// the question again.
	timer *time.Timer
	wait  time.Duration
	putAt time.Time
	// unsaid says that it could not be put: the others were not asked.
	unsaid bool
}

// hold has the entry wait for the answer to a question before anything else is done with it. The lock is held.
func (m *Manager) hold(e *entry, purpose queue.Purpose) {
	e.held = true
	if purpose != queue.ToAdopt {
		e.asked = true
	}
	m.inquire(e, purpose, map[queue.Purpose]time.Duration{queue.ToRun: runTime, queue.ToSpare: spareTime}[purpose])
}

// heldCount counts the entries that do not wait for room, and those that others have handed to this one. The lock is held.
func (m *Manager) heldCount() (n int) {
	for _, e := range m.waiting {
		if !m.inLine(e) || e.handed() {
			n++
		}
	}
	return min(n, heldMax)
}

// shown is what other hosts are shown of a message: all that they need to know whether they would run it.
func shown(msg queue.Message) *queue.Message {
	signature, signed := msg.Headers[queue.SignatureHeader]
	msg.Headers, msg.Turns = nil, nil
	if signed {
		msg.Headers = map[string]any{queue.SignatureHeader: signature}
	}
	return &msg
}

// parkedCount counts the entries that no host can run now. The lock is held.
func (m *Manager) parkedCount() (n int) {
	for _, e := range m.waiting {
		if e.noTaker() {
			n++
		}
	}
	return n
}

// inquire asks the other hosts about an entry. The lock is held.
func (m *Manager) inquire(e *entry, purpose queue.Purpose, open time.Duration) *inquiry {
	fingerprint := e.attempt.Fingerprint
	q := &inquiry{about: e, entry: e, open: open, question: queue.Question{ID: m.config.Host + "/" + strconv.FormatUint(rand.Uint64(), 36),
		Pool: e.attempt.Task.Pool, Purpose: purpose, TaskID: e.attempt.Task.ID, AttemptID: e.attempt.ID(), Fingerprint: fingerprint[:], QueuedAt: e.attempt.Dated()}}
	wait := answerTime
	switch {
	case purpose == queue.ToAdopt:
		wait = m.adoptTime()
		q.question.Rank = m.rank(&e.attempt)
		q.question.Surely = len(m.others.known) <= greetedBy
		if !q.question.Surely {
			q.question.Owner, wait = true, ownerTime
		}
	case purpose == queue.ToSettle:
		wait = open
	default:
		q.question.Message = shown(e.delivery.Message())
		q.question.Refused = e.refused
		q.question.Avoided = purpose == queue.ToRun || purpose == queue.ToShare && time.Since(e.acceptedAt) >= shareTime
		m.aim(&q.question)
		if q.question.Part == "" && purpose != queue.ToShare {
			q.question.Surely = len(m.others.known) <= greetedBy
		}
		wait = m.patience(&q.question)
	}
	e.inquiry = q
	m.others.inquiries[q.question.ID] = q
	q.timer = time.AfterFunc(askLimit, func() { m.step(q) })
	m.pose(q, wait)
	return q
}

// pose puts a question, and waits so long for offers once it was put. The lock is held.
func (m *Manager) pose(q *inquiry, wait time.Duration) {
	q.wait, q.putAt = wait, time.Time{}
	q.timer.Reset(askLimit)
	m.put(q.question, "")
}

// wasPut begins the wait for offers.
func (m *Manager) wasPut(question *queue.Question, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	q := m.others.inquiries[question.ID]
	if q == nil || !q.putAt.IsZero() || q.question.Part != question.Part || q.question.Owner != question.Owner {
		return // it is over, or goes to others by now
	}
	q.unsaid = err != nil
	if q.putAt = time.Now(); !q.good() {
		q.timer.Reset(q.wait)
	}
}

func (m *Manager) adoptTime() time.Duration {
	if len(m.others.known) == 0 {
		return loneTime
	}
	return adoptTime
}

// put publishes a question, to one host or to all. The lock is held.
func (m *Manager) put(q queue.Question, host string) {
	m.tell("other hosts not asked", q.TaskID, askLimit, func(ctx context.Context) error {
		err := m.Fleet.Ask(ctx, q, host)
		switch {
		case errors.Is(err, queue.ErrNoHost): // nobody owns it
			m.hurry(q.ID)
			return nil
		case host == "" && ctx.Err() == nil: // else the queue is out of reach; any other error is final
			m.wasPut(&q, err)
		}
		return err
	})
}

// hurry goes on with a question at once.
func (m *Manager) hurry(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if q := m.others.inquiries[id]; q != nil && q.question.Owner {
		q.putAt, q.wait = time.Now(), 0
		q.timer.Reset(0)
	}
}

// tell says something to other hosts in the background. What is not said within the limit is of no use any more, or is said again. The lock is held.
func (m *Manager) tell(otherwise, taskID string, limit time.Duration, say func(context.Context) error) {
	if !m.mayDo() {
		return
	}
	m.group.Go(func() {
		ctx, cancel := context.WithTimeout(m.settling, limit)
		defer cancel()
		if err := say(ctx); err != nil && ctx.Err() == nil {
			m.Log.Warn(otherwise, logkey.Task, taskID, logkey.Err, err)
		}
	})
}

// step goes on with a question when its time is over.
func (m *Manager) step(q *inquiry) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.others.inquiries[q.question.ID] != q {
		return
	}
	adopts, first := q.question.Purpose == queue.ToAdopt, m.othersFirst(q)
	switch {
	case adopts && !q.entry.atHand(): // its message has gone to another host, and those that did not answer may not have been heard for that
		m.schedule() // which lets it go
	case q.good() || len(q.offers) > 0 && !q.until.IsZero():
		m.decide(q)
	case q.putAt.IsZero():
		m.pose(q, q.wait)
	case time.Since(q.putAt) < q.wait: // it was put while the time ran out
		q.timer.Reset(q.wait - time.Since(q.putAt))
	case q.question.Purpose == queue.ToSettle:
		q.open = min(2*q.open, shareMax)
		m.pose(q, q.open)
	case q.question.Owner: // it has none, or one that does not answer
		q.question.Owner = false
		m.pose(q, m.adoptTime())
	case first > 0:
		q.timer.Reset(first)
	case adopts && len(q.offers) == 0 && m.unsure(): // what was said to this host may be on its way still
		m.prove()
		q.timer.Reset(answerTime)
	case q.until.IsZero() && m.widen(q): // those few could not; others may
		m.pose(q, m.patience(&q.question))
	case len(q.offers) > 0 || m.hopeless(q):
		m.decide(q)
	case q.open > 0 && q.until.IsZero() && (q.question.Purpose != queue.ToRun || m.parkedCount() < parkedHeld):
		if q.question.Refused && !q.question.Surely { // one that would take it says so at once
			q.open = adoptTime
		}
		q.question.Open, q.question.Surely, q.until = q.open, q.question.Refused && q.question.Surely, time.Now().Add(q.open)
		m.pose(q, q.open)
		if e := q.entry; q.question.Purpose == queue.ToRun && e != nil {
			e.reason = m.heldReason(e)
			m.announceParked(e)
			m.Log.Info("task parked", logkey.Task, q.question.TaskID, logkey.Reason, e.misfit)
		}
		m.notify()
		if m.others.shared == q { // others may fit in where this one does not
			m.others.shared = nil
			m.share(time.Now())
		}
	default:
		m.decide(q)
	}
}

// decide hands an entry to the best host that has offered to take it; where none has, it goes on here. The lock is held.
func (m *Manager) decide(q *inquiry) {
	e := q.entry
	if q.question.Purpose == queue.ToAdopt {
		defer m.resolved(q) // when it is handed over, where it is
	}
	if len(q.offers) > 0 && q.until.IsZero() {
		m.others.last = q
		m.learn(q)
	}
	if q.question.Purpose == queue.ToAdopt && len(q.offers) == 0 && e != nil {
		m.forgetSilent(q)
		e.unowned = true
		m.Log.Info("task is with no host that lives", logkey.Task, q.question.TaskID, "deliveries", e.delivery.Message().Turns, "unbegun", q.gave)
	}
	if e != nil && e.refused && len(q.offers) == 0 {
		if e.silent = m.mayBeTaken(q); e.silent && !q.unsaid && !q.until.IsZero() {
			m.forgetSilent(q)
		}
	}
	m.endInquiry(q)
	if q.question.Purpose == queue.ToShare {
		m.others.sharePause = min(2*q.open, shareMax)
		if len(q.offers) > 0 {
			m.others.sharePause = 0
		}
		if e == nil && len(q.offers) > 0 { // somebody has room for one like that: is it enough for the next one?
			m.share(time.Now())
			return
		}
	}
	if e != nil && e.status == Waiting && e.atHand() && m.mayDo() && len(q.offers) > 0 && (q.question.Purpose == queue.ToAdopt || !m.staysHere(e)) {
		m.forward(e, q)
		return
	}
	m.schedule()
}

// staysHere reports whether an entry is not to be handed over, though it was offered room: it was begun here since, or has ended, for there is another copy of its message; or that one
// waits here, too, and this host, which could begin that, would say that it has it. The lock is held.
func (m *Manager) staysHere(e *entry) bool {
	return m.active[e.attempt.Task.ID] != nil || m.runsHere(e) || m.settledSince(e) || e.misfit == "" && m.copyWaits(&e.attempt, e)
}

// copyWaits reports whether another entry than e waits here that is a copy of an attempt's message. The lock is held.
func (m *Manager) copyWaits(a *worker.Attempt, e *entry) bool {
	return slices.ContainsFunc(m.waiting, func(w *entry) bool {
		return w != e && w.attempt.Task.ID == a.Task.ID && w.is(a.Fingerprint, a.Dated())
	})
}

// endInquiry forgets a question. The lock is held.
func (m *Manager) endInquiry(q *inquiry) {
	q.timer.Stop()
	delete(m.others.inquiries, q.question.ID)
	if m.others.shared == q {
		m.others.shared = nil
	}
	if q.entry != nil {
		q.entry.inquiry, q.entry.held = nil, false
	}
	if time.Now().Before(q.until) { // the others need not keep it
		m.put(queue.Question{ID: q.question.ID, Pool: q.question.Pool, Part: q.question.Part, Over: true}, "")
	}
}

// leave has the question about an entry end that waits no more. Where there is room for it, others may still want that. The lock is held.
func (m *Manager) leave(e *entry) {
	q := e.inquiry
	switch {
	case q == nil:
	case q.question.Purpose == queue.ToShare:
		e.inquiry, q.entry = nil, nil
	default:
		m.endInquiry(q)
		if q.question.Purpose == queue.ToAdopt {
			m.resolved(q)
		}
	}
}
