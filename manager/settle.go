package manager

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/mayfly/mayfly/internal/logkey"
	"github.com/mayfly/mayfly/queue"
)

// comeBack is how long an ended attempt waits for its message to be delivered again before it is given up: by then
// somebody else has settled it.
const comeBack = 24 * time.Hour

// vainTime is how long it waits before the other hosts are asked whether one of them has settled it; to ask again, twice as long each time, up to shareMax.
const vainTime = 10 * time.Second

// heldBack is how long it waits before that is reported: RabbitMQ's own copies from queue to queue are repeated after three minutes
// (rabbitmq-server's rabbit_fifo_dlx_worker).
const heldBack = 5 * time.Minute

// pauseMax bounds the pauses between tries to settle what the queue, or the disk, does not take.
const pauseMax = 30 * time.Second

// close settles an entry that was never begun, in the background. The lock is held.
func (m *Manager) close(e *entry, v queue.Verdict) {
	m.leave(e)
	e.status = Settling
	m.closing[e] = true
	m.setDemand()
	m.group.Go(func() {
		m.settle(e, v)
		m.forget(e)
	})
}

// settle carries the verdict out on the entry's delivery, and where that is lost on the next one, for as long as it
// takes. It reports whether the entry is settled.
func (m *Manager) settle(e *entry, v queue.Verdict) bool {
	v.TaskID, v.Doubtful = e.attempt.Task.ID, v.Doubtful || v.Action == queue.Retry && m.maybeTwice(e)
	recorded := false
	for pause := time.Second; ; pause = min(2*pause, pauseMax) {
		d := m.deliveryOf(e)
		if d == nil {
			return false
		}
		due := queue.Verdict{Action: queue.Done} // is all confirmed that was due, then only the message is still to be given up
		if !recorded {
			due = v
			due.History = joined(v.History, d.Message().History)
		}
		err := d.Settle(m.settling, due, func() (err error) {
			if !recorded {
				if err = m.record(e, due); err == nil {
					recorded = true
				}
			}
			return err
		})
		switch {
		case err == nil:
			if recorded || e.before != "" {
				m.History.Acked(e.recordID())
			}
			return true
		case errors.Is(err, queue.ErrLost):
			v.Doubtful = !recorded
			m.Log.Info("delivery lost", logkey.Task, e.attempt.Task.ID, logkey.Attempt, e.attempt.ID(), "confirmed", recorded)
			if !e.begun {
				return false // it comes again as if for the first time
			}
			m.mu.Lock()
			m.schedule() // it may be here already
			m.mu.Unlock()
		case m.settling.Err() != nil:
			return false
		default:
			m.Log.Error("task not settled, trying again", logkey.Task, e.attempt.Task.ID, logkey.Err, err)
			select {
			case <-time.After(pause):
			case <-m.settling.Done():
				return false
			}
		}
	}
}

// maybeTwice reports whether a copy for the task's next try may not be the only one: the manager before may have got as far, or another copy of the message waits here.
func (m *Manager) maybeTwice(e *entry) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return e.adopted || m.copyWaits(&e.attempt, e)
}

// joined is the history of a message's next try: what an attempt makes of it, and what the message has besides. It may be a copy of a later try, which has joined the attempt that began
// before it: a copy with fewer attempts would be taken by whoever has settled those for one that is to be given up, and nothing would be left of the task.
func joined(made, had []queue.Past) []queue.Past {
	if len(made) == 0 {
		return made // it is not tried again
	}
	all := slices.Clone(made)
	for _, past := range had {
		if !slices.ContainsFunc(made, func(p queue.Past) bool { return p.Attempt == past.Attempt && p.Host == past.Host }) {
			all = append(all, past)
		}
	}
	slices.SortStableFunc(all, func(a, b queue.Past) int { return cmp.Compare(a.Attempt, b.Attempt) })
	return all
}

// deliveryOf returns the entry's delivery, waiting for one where it is lost; nil when none comes.
func (m *Manager) deliveryOf(e *entry) queue.Delivery {
	if d, atHand, _ := m.lookAtDelivery(e); atHand {
		return d
	}
	limit := comeBack
	if e.cutOff || e.recorded { // others have begun it by then, as they were meant to; or the record knows its message, should it be there still
		limit = 2 * adoptTime
	}
	ctx, cancel := context.WithTimeout(m.settling, limit)
	defer cancel()
	ask := time.AfterFunc(vainTime, func() { m.askSettled(e) })
	defer m.askNoMore(e, ask)
	report := time.AfterFunc(heldBack, func() {
		m.Log.Warn("ended task waits for its message, which the queue has not delivered again", logkey.Task, e.attempt.Task.ID, logkey.Attempt, e.attempt.ID(),
			"for", heldBack.String(), "remedy", "see \"A result that does not come\" in docs/troubleshooting.md")
	})
	defer report.Stop()
	for {
		d, atHand, arrived := m.lookAtDelivery(e)
		if atHand {
			return d
		}
		if !e.begun {
			return nil
		}
		select {
		case <-arrived:
		case <-e.followed:
			m.Log.Info("ended task's next try is here: nothing waits for its message any more", logkey.Task, e.attempt.Task.ID, logkey.Attempt, e.attempt.ID())
			m.release(e)
			return nil
		case <-e.inVain:
			m.Log.Warn("ended task given up: another host has settled it", logkey.Task, e.attempt.Task.ID, logkey.Attempt, e.attempt.ID(), logkey.Host, e.settledBy)
			m.release(e)
			return nil
		case <-ctx.Done():
			if m.settling.Err() != nil {
				return nil
			}
			if !e.recorded {
				m.Log.Error("ended task given up: its message was not delivered again", logkey.Task, e.attempt.Task.ID, logkey.Attempt, e.attempt.ID())
			}
			m.release(e)
			return nil
		}
	}
}

// lookAtDelivery returns the entry's delivery, whether it is at hand, and what is closed when another one arrives.
func (m *Manager) lookAtDelivery(e *entry) (d queue.Delivery, atHand bool, arrived <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return e.delivery, e.atHand(), e.arrived
}

// askSettled asks the others whether one of them has settled an ended attempt whose message does not come back. The question stays open: it is put again
// now and then, and when this host or another one comes back.
func (m *Manager) askSettled(e *entry) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.Fleet != nil && e.inquiry == nil && !e.atHand() {
		m.inquire(e, queue.ToSettle, 2*vainTime)
	}
}

func (m *Manager) askNoMore(e *entry, ask *time.Timer) {
	ask.Stop()
	m.mu.Lock()
	defer m.mu.Unlock()
	if q := e.inquiry; q != nil && q.question.Purpose == queue.ToSettle {
		m.endInquiry(q)
	}
}

// hasSettled reports whether this host has settled a task for good, by this attempt or a later one. One that is only to be tried again may come
// to who asks, and is settled by what has ended there. The lock is held.
func (m *Manager) hasSettled(q *queue.Question) bool {
	r, ok := m.History.Get(q.TaskID)
	fingerprint, known := fingerprintOf(q)
	return ok && known && r.Result.State != "" && r.of(fingerprint, q.QueuedAt)
}

// record remembers the settlement, says it, and wakes those who wait for the task. It runs between the confirm and the
// acknowledgement. It fails where a result would be nowhere else.
func (m *Manager) record(e *entry, v queue.Verdict) error {
	a := &e.attempt
	r := Record{ID: e.recordID(), Command: commandLine(&a.Task), Band: a.Band, Labels: a.Task.Labels, Lease: a.Lease,
		Fingerprint: a.Fingerprint, Guessed: a.Guessed, SettledAt: time.Now()}
	switch {
	case v.Result != nil:
		r.Result = *v.Result
	case v.Action == queue.Retry && e.begun:
		// Not ended: the state stays empty, the history tells how far it got.
		r.Result = queue.Result{ID: a.Task.ID, Name: a.Task.Name, Pool: a.Task.Pool, Attempt: a.Number, Attempts: v.History,
			Host: a.Host, QueuedAt: &a.QueuedAt}
		if n := len(v.History); n > 0 {
			r.Result.Cause, r.Result.Message = v.History[n-1].Cause, v.History[n-1].Message
		}
	default:
		return nil
	}
	if err := m.History.Put(r); err != nil {
		if m.config.Alone && v.Result != nil {
			return fmt.Errorf("cannot keep the result: %w", err)
		}
		m.Log.Error("settled task not recorded", logkey.Task, a.Task.ID, logkey.Err, err)
	}
	switch v.Action {
	case queue.Retry:
		m.Log.Info("task tried again", logkey.Task, a.Task.ID, logkey.Attempt, a.ID(), logkey.Delay, v.Delay.String(), logkey.Reason, r.Result.Message)
	case queue.Bury:
		m.Log.Warn("task buried", logkey.Task, a.Task.ID, logkey.State, string(r.Result.State), logkey.Cause, string(r.Result.Cause), logkey.Reason, v.Reason)
	default:
		m.Log.Info("task ended", logkey.Task, a.Task.ID, logkey.State, string(r.Result.State), logkey.Cause, string(r.Result.Cause))
	}
	m.mu.Lock()
	if e.recorded = true; m.unfit() {
		m.setDemand() // before the message is given up, or another comes in its place
	}
	for _, w := range m.waiting {
		w.recheck = w.recheck || w.attempt.Task.ID == a.Task.ID
	}
	m.mu.Unlock()
	m.observeSettled(e, &v)
	m.announceSettled(e, &v, &r.Result)
	m.wake(a.Task.ID, r.Result.State)
	return nil
}

// wake tells those who wait for the task that it ended.
func (m *Manager) wake(taskID string, s queue.State) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s != "" {
		delete(m.again, taskID)
		for _, c := range m.waiters[taskID] {
			close(c)
		}
		delete(m.waiters, taskID)
	}
	m.notify()
}
