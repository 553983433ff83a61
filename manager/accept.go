package manager

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/mayfly/mayfly/internal/logkey"
	"github.com/mayfly/mayfly/queue"
	"github.com/mayfly/mayfly/worker"
)

// accept takes a delivery in: joins it to the attempt that it belongs to, settles what needs no worker, and lets the
// rest wait for room.
func (m *Manager) accept(d queue.Delivery) {
	msg := d.Message()
	task, err := m.read(&msg)
	var here *refusedHere
	if errors.As(err, &here) && m.Fleet == nil || err != nil && here == nil {
		m.refuse(d, msg, task, err)
		return
	}
	a := m.attemptOf(task, msg)
	now := time.Now()

	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.mayDo() || m.rejoin(&a, d) {
		return
	}
	m.seq++
	e := newEntry(a, d)
	if here != nil {
		e.refused, e.misfit = true, here.Error()
	} else if choices, why := m.ledger.choices(&task); why != nil {
		e.misfit = why.Error()
	} else {
		e.choices, e.attempt.Lease = choices, choices[0].lease
	}
	e.seq = m.seq
	e.copied = m.isWonderedAbout(&a, &msg)
	e.submitter = m.shares.by.submitterOf(&task, msg)
	if m.comesTwice(e) {
		m.alreadySettled(e)
		return
	}
	if cancelled := m.markedCancelled(&task, &msg); cancelled && msg.Redelivered && m.Fleet != nil {
		e.cancelled = true // it may run elsewhere, and is cancelled there
	} else if cancelled {
		m.close(e, m.cancelledVerdict(e, now))
		return
	}
	m.received(a.Fingerprint)
	delete(m.others.parked, task.ID)
	twin := m.twin(&a)
	if twin == nil && msg.Redelivered && msg.HandedBy != "" {
		if twin = m.alike(e); twin != nil {
			e.standBy = now.Add(adoptTime)
		}
	}
	if e.returned && twin != nil {
		m.awaitLoss(twin, e)
	} else if m.Fleet != nil && (msg.Redelivered || e.copied) {
		m.hold(e, queue.ToAdopt)
	}
	m.Log.Debug("task received", logkey.Task, task.ID, logkey.Attempt, a.ID(), logkey.Pool, task.Pool, logkey.Band, string(msg.Band))
	m.waiting = append(m.waiting, e)
	m.schedule()
	if m.cameLate(e) {
		m.scheduleIn(againDelay)
	}
	m.notify()
}

// scheduleIn has the manager look again at what waits.
func (m *Manager) scheduleIn(wait time.Duration) {
	time.AfterFunc(wait, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.schedule()
	})
}

// attemptOf makes the attempt that the message asks for.
func (m *Manager) attemptOf(task queue.Task, msg queue.Message) worker.Attempt {
	return worker.Attempt{Task: task, Number: nextAttempt(msg.History), Host: m.config.Host, Band: msg.Band,
		QueuedAt: msg.QueuedAt, Guessed: msg.Guessed, History: msg.History, Fingerprint: msg.Fingerprint(), Trace: worker.TraceOf(msg.Headers)}
}

// nextAttempt is the number of the attempt that follows the history.
func nextAttempt(history []queue.Past) int {
	n := 0
	for _, past := range history {
		n = max(n, past.Attempt)
	}
	return n + 1
}

// fillIn gives the task the host's defaults for what neither it nor its type says.
func (m *Manager) fillIn(t *queue.Task) {
	d := m.config.Defaults
	if t.Timeout == 0 {
		t.Timeout = d.Timeout
	}
	if t.Grace < 0 {
		t.Grace = d.Grace
	}
	if t.MaxAttempts == 0 {
		t.MaxAttempts = d.MaxAttempts
	}
	if t.Backoff < 0 {
		t.Backoff = d.Backoff
	}
	if t.OnLost == "" {
		t.OnLost = d.OnLost
	}
	t.Grace = graceOf(t)
}

// rejoin gives the delivery to the entry whose message it is, if that has lost its own: the task still runs here, or has
// ended and waits to be settled, or waits for room. The lock is held.
func (m *Manager) rejoin(a *worker.Attempt, d queue.Delivery) bool {
	if e := m.lostEntry(a); e != nil {
		m.Log.Info("task adopted", logkey.Task, e.attempt.Task.ID, logkey.Attempt, e.attempt.ID(), logkey.State, string(e.status))
		e.join(d)
		m.setDemand()
		m.notify()
		return true
	}
	for _, e := range m.waiting {
		if !e.atHand() && e.is(a.Fingerprint, a.Dated()) && e.attempt.Number == a.Number && (m.Fleet == nil || followsAtOnce(d, e.delivery)) {
			e.join(d)
			return true
		}
	}
	return false // one that waits is forgotten, and asked about anew: another host may have begun it meanwhile
}

// followsAtOnce reports whether nobody had a message between two deliveries of it.
func followsAtOnce(next, before queue.Delivery) bool {
	turns, known := next.Message().Turns, before.Message().Turns
	return len(known) > 0 && len(turns) == len(known)+1 && slices.Equal(turns[:len(known)], known)
}

// lostEntry finds the active entry without a delivery that the message belongs to. A task that was given its id by this
// host, for neither body nor message had one, comes back with another id: its fingerprint is what tells. Messages with
// the same fingerprint can stand in for each other. The lock is held.
func (m *Manager) lostEntry(a *worker.Attempt) *entry {
	mayBeIts := func(e *entry) bool {
		return e.is(a.Fingerprint, a.Dated()) && !e.atHand() && !e.givenUp() && !e.precedes(a)
	}
	if e := m.active[a.Task.ID]; e != nil && mayBeIts(e) {
		return e
	}
	for _, e := range m.active {
		if mayBeIts(e) {
			return e
		}
	}
	return nil
}

// makeWay has an active entry end of which only the message is still to be given up, where its next try is here: the message may be gone already, and is known by the record where it
// is not. The lock is held.
func (m *Manager) makeWay(active, e *entry) {
	if !active.atHand() && !active.givenUp() && active.precedes(&e.attempt) && active.is(e.attempt.Fingerprint, e.attempt.Dated()) {
		close(active.followed)
	}
}

// twin finds the active entry of the message whose delivery is at hand. The lock is held.
func (m *Manager) twin(a *worker.Attempt) *entry {
	if e := m.active[a.Task.ID]; e != nil && e.is(a.Fingerprint, a.Dated()) && !e.precedes(a) {
		return e
	}
	return nil
}

// alike finds an entry with the same message, but for the id that a host gives it, as one that was handed to this host, because it said that it had begun it: of a producer that
// gives no ids there may be many. Is its delivery lost, the one that was handed is its message; else that is another one, which nobody has begun. The lock is held.
func (m *Manager) alike(e *entry) *entry {
	like := func(other *entry) bool {
		return other.attempt.Task.ID != e.attempt.Task.ID && other.is(e.attempt.Fingerprint, e.attempt.Dated()) && !other.precedes(&e.attempt) && other.standBy.IsZero() && other.delivery != nil
	}
	for _, other := range m.active {
		if like(other) {
			return other
		}
	}
	if i := slices.IndexFunc(m.waiting, like); i >= 0 {
		return m.waiting[i]
	}
	return nil
}

// runsHere reports whether an entry that waits is the message of one that is active, delivered again before we have heard that the delivery before is
// lost. The lock is held.
func (m *Manager) runsHere(e *entry) bool {
	return e.returned && (m.twin(&e.attempt) != nil || time.Now().Before(e.standBy) && m.alike(e) != nil)
}

// noteOvertaken notes that an entry waits while a later attempt of its message is active. It came here for that one, and is not its message where that ends without having lost its own:
// then who has ended the attempt of the entry is still to be asked. The lock is held.
func (m *Manager) noteOvertaken(e *entry) {
	if twin := m.twin(&e.attempt); twin != nil && twin.attempt.Number > e.attempt.Number {
		e.overtaken = true
	}
}

// mayHaveBegun reports whether an entry that waits may be the message of a worker that runs, here or elsewhere: nothing is decided about it before that is known. The lock is held.
func (m *Manager) mayHaveBegun(e *entry) bool { return e.adopting() || m.runsHere(e) }

// awaitLoss lets a message that was delivered again join its entry as soon as we hear that the delivery before is lost. The lock is held.
func (m *Manager) awaitLoss(twin, e *entry) {
	before, now := twin.delivery, e.delivery
	go func() {
		select {
		case <-before.Lost():
		case <-now.Lost():
		case <-time.After(adoptTime): // two messages that are the same
		case <-m.settling.Done():
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		m.schedule()
	}()
}

// settledBefore names the attempt as which this very message was settled already, so that only its acknowledgement got lost; or it returns nothing.
func (m *Manager) settledBefore(attemptID, taskID string, fingerprint [16]byte, dated time.Time) (id string) {
	for _, id := range []string{attemptID, queue.AttemptID(taskID, 0)} {
		if r, ok := m.History.Settled(id); ok && r.of(fingerprint, dated) && r.inDoubt(time.Now()) {
			return id
		}
	}
	return ""
}

// comesTwice reports whether the entry's message is that of an attempt which was settled here already: delivered again, or a second copy. A host's copy is told from what
// a producer sends anew by when that was queued, where it is for a retry by the attempts that it carries, and where others ask for it by that.
func (m *Manager) comesTwice(e *entry) bool {
	a := &e.attempt
	msg := e.delivery.Message()
	handed := msg.HandedBy != "" && !a.Dated().IsZero()
	e.recheck = false
	if msg.Redelivered || handed || e.copied || len(a.History) > 0 {
		e.before = m.settledBefore(a.ID(), a.Task.ID, a.Fingerprint, a.Dated())
	} else if !msg.Copied || a.Dated().IsZero() { // what a host has given back is not sent anew: of that there may be another copy, where the host's connection broke on the way
		return false
	}
	if e.before == "" {
		if r, ok := m.copySucceeded(a.Task.ID, a.Fingerprint, a.QueuedAt); ok {
			e.before = r.ID
		}
	}
	return e.before != ""
}

// settledSince reports whether the entry's message is that of an attempt which was settled here while it waited. The lock is held.
func (m *Manager) settledSince(e *entry) bool {
	return e.before != "" || e.recheck && m.comesTwice(e)
}

// copySucceeded returns the success here of another copy of the attempt's message, as long as copies of it may come. There are two where a host died between the publishing of
// the copy for the next try and its own note of that: the message itself comes back, too. When it was queued tells them from what a producer sends anew; where that is not known,
// they cannot be told.
func (m *Manager) copySucceeded(taskID string, fingerprint [16]byte, queuedAt time.Time) (Record, bool) {
	r, ok := m.History.Get(taskID)
	return r, ok && r.Result.State == queue.Succeeded && !r.Remote && r.Fingerprint == fingerprint && r.Result.QueuedAt != nil && r.Result.QueuedAt.Equal(queuedAt) && r.inDoubt(time.Now())
}

// alreadySettled gives up the message of an attempt that was settled. The lock is held.
func (m *Manager) alreadySettled(e *entry) {
	m.Log.Info("task was settled before", logkey.Task, e.attempt.Task.ID, logkey.Attempt, e.attempt.ID())
	m.close(e, queue.Verdict{Action: queue.Done})
}

// refuse settles a message that is no task which may run here.
func (m *Manager) refuse(d queue.Delivery, msg queue.Message, task queue.Task, err error) {
	task.Pool = msg.Pool
	if task.ID == "" {
		task.ID = queue.PeekID(msg)
	}
	sentence := err.Error()
	a := m.attemptOf(task, msg)
	m.Log.Warn("task rejected", logkey.Task, task.ID, logkey.Pool, msg.Pool, logkey.Reason, sentence)
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.mayDo() {
		return
	}
	e := newEntry(a, d)
	if msg.Redelivered {
		if e.before = m.settledBefore(a.ID(), task.ID, a.Fingerprint, a.Dated()); e.before != "" {
			m.close(e, queue.Verdict{Action: queue.Done})
			return
		}
	}
	m.close(e, m.rejectedVerdict(e, sentence, time.Now()))
}

// Waits in the queue of a task that no host can run: from parkMin to parkMax, growing with the time that it has been waiting, so that nothing
// spins.
const (
	parkMin = 5 * time.Second
	parkMax = 5 * time.Minute
)

// cannotRun settles a task that this host can never run, and no other host now: alone, or where all refuse it, there is no hope; else it waits in the queue
// for a while.
func (m *Manager) cannotRun(e *entry, now time.Time) {
	msg, why := e.delivery.Message(), e.misfit
	if e.refused && len(m.others.known) > 0 {
		why += "; no other host of the pool takes it"
	}
	if m.config.Alone || e.refused && !e.silent {
		m.Log.Warn("task rejected", logkey.Task, e.attempt.Task.ID, logkey.Reason, why)
		m.close(e, m.rejectedVerdict(e, why, now))
		return
	}
	delay := min(parkMax, max(parkMin, now.Sub(msg.QueuedAt)/2))
	if deadline := e.attempt.Task.Deadline; !deadline.IsZero() { // it is told when that is over
		delay = min(delay, max(parkMin, deadline.Sub(now)))
	}
	m.announceParked(e)
	m.Log.Info("task put back", logkey.Task, e.attempt.Task.ID, logkey.Reason, why, logkey.Delay, delay.String())
	e.reason = why
	m.park(e, now.Add(delay))
	m.close(e, queue.Verdict{Action: queue.Retry, Delay: delay, History: msg.History})
}

func (m *Manager) rejectedVerdict(e *entry, sentence string, now time.Time) queue.Verdict {
	v := m.unstartedVerdict(e, queue.Rejected, queue.CauseRejected, sentence, now)
	v.Action, v.Reason = queue.Bury, sentence
	return v
}

func (m *Manager) cancelledVerdict(e *entry, now time.Time) queue.Verdict {
	e.cancelled = true
	return m.unstartedVerdict(e, queue.Cancelled, queue.CauseCancelled, "the task was cancelled before it ran", now)
}

func (m *Manager) deadlineVerdict(e *entry, now time.Time) queue.Verdict {
	return m.unstartedVerdict(e, queue.Failed, queue.CauseDeadline,
		fmt.Sprintf("the task did not start before its deadline %s", e.attempt.Task.Deadline.Format(time.RFC3339)), now)
}

func (m *Manager) unstartedVerdict(e *entry, s queue.State, c queue.Cause, sentence string, now time.Time) queue.Verdict {
	return queue.Verdict{Action: queue.Done, History: e.attempt.History,
		Result: unstarted(&e.attempt.Task, e.delivery.Message(), m.config.Host, s, c, sentence, now)}
}
