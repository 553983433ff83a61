package manager

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/mayfly/mayfly/internal/logkey"
	"github.com/mayfly/mayfly/queue"
)

// A cancellation is told to all hosts and kept by each, and by the queue, for a day: it meets its task wherever that is, and whoever was away learns
// of it later. It is meant for what was queued before it, so that the same id may be used again.

// labelMark is the name under which the cancellation of a label is kept: no task's id begins like that.
func labelMark(label, value string) string { return "?" + label + "=" + value }

// markOf is the name under which a cancellation is kept.
func markOf(c *queue.Cancellation) string {
	if c.ID != "" {
		return c.ID
	}
	return labelMark(c.Label, c.Value)
}

// Cancel implements Backend.
func (m *Manager) Cancel(ctx context.Context, id string) (string, error) {
	c := queue.Cancellation{ID: id, At: time.Now()}
	said, done := m.cancelHere(c)
	if done {
		away, kept := m.keepStops()
		err := kept()
		if err == nil && away && m.Broadcast != nil { // another host may have begun it meanwhile
			err = m.tellAll(ctx, c)
		}
		return said, err
	}
	if m.Backlog.Pick != nil {
		switch picked, err := m.cancelQueued(ctx, id); {
		case err != nil:
			return "", err
		case picked:
			return "cancelled while it was queued", nil
		}
	}
	if r, ok := m.History.Get(id); ok && said == "" && r.Result.State != "" && (m.Broadcast == nil || !m.isAgain(id)) {
		return fmt.Sprintf("nothing to cancel: it has ended (%s)", r.Result.State), nil
	}
	if m.Broadcast == nil {
		if said == "" {
			said, done = m.cancelHere(c) // it came out of the queue meanwhile
		}
		switch {
		case said == "":
			return "", ErrUnknownTask
		case done:
			_, kept := m.keepStops()
			return said, kept()
		}
		return said, m.mark(c)() // it may be about to be tried again
	}
	if err := m.tellAll(ctx, c); err != nil {
		return "", err
	}
	return "not on this host: all hosts were told to cancel it where they have it or meet it", nil
}

// CancelLabel implements Backend.
func (m *Manager) CancelLabel(ctx context.Context, label, value string) (string, error) {
	c := queue.Cancellation{Label: label, Value: value, At: time.Now()}
	if m.Broadcast == nil { // first, for what backs off, and for what leaves the queue meanwhile
		if err := m.History.MarkCancel(labelMark(label, value), c.At)(); err != nil {
			return "", err
		}
	}
	n := m.cancelLabelled(c)
	_, kept := m.keepStops()
	if err := kept(); err != nil { // all are told below
		return "", err
	}
	if m.Backlog.Pick != nil {
		ids, err := m.labelled(ctx, label, value)
		if err != nil {
			return "", fmt.Errorf("cannot look through the queue: %w", err)
		}
		for _, id := range ids {
			picked, err := m.cancelQueued(ctx, id)
			if err != nil {
				return "", err
			}
			if picked {
				n++
			}
		}
	}
	if m.Broadcast == nil {
		return fmt.Sprintf("%d tasks were cancelled", n), nil
	}
	if err := m.tellAll(ctx, c); err != nil {
		return "", err
	}
	return fmt.Sprintf("%d tasks were cancelled on this host: all hosts were told to cancel those that they have or meet", n), nil
}

// labelled returns the ids of the tasks in the embedded queue that have the label.
func (m *Manager) labelled(ctx context.Context, label, value string) (ids []string, err error) {
	err = m.Backlog.Peek(ctx, 0, math.MaxInt, func(msg queue.Message) bool {
		if t, err := queue.Decode(msg); err == nil {
			if has, ok := t.Labels[label]; ok && has == value {
				ids = append(ids, strings.Clone(t.ID)) // else the whole document stays with it
			}
		}
		return true
	})
	return ids, err
}

// tellAll keeps a cancellation and tells the other hosts of it.
func (m *Manager) tellAll(ctx context.Context, c queue.Cancellation) error {
	if err := m.mark(c)(); err != nil {
		return err
	}
	if err := m.Broadcast(ctx, c); err != nil {
		return fmt.Errorf("cannot tell the other hosts: %w", err)
	}
	return nil
}

// mark keeps a cancellation, unless it is kept already: the queue tells each one again to a host that comes back. What turns up from now on meets it; kept returns when the next manager
// knows it, too.
func (m *Manager) mark(c queue.Cancellation) (kept func() error) {
	name := markOf(&c)
	if at, ok := m.History.CancelMark(name); ok && !c.At.After(at) {
		return func() error { return nil }
	}
	return m.History.MarkCancel(name, c.At)
}

// Cancelled takes another host's word that tasks are cancelled. That is done when it returns; keep has the next manager know it, too.
func (m *Manager) Cancelled(c queue.Cancellation) (keep func()) {
	if c.At.IsZero() { // who was there remembers
		at, ok := m.History.CancelMark(markOf(&c))
		if c.At = at; !ok {
			c.At = time.Now()
		}
	}
	marked := m.mark(c) // first, for what is accepted meanwhile
	if c.ID == "" {
		m.cancelLabelled(c)
	} else {
		m.cancelHere(c)
	}
	_, kept := m.keepStops()
	return func() {
		if err := errors.Join(marked(), kept()); err != nil {
			m.Log.Error("cancellation not recorded", logkey.Task, c.ID, logkey.Err, err)
		}
	}
}

// stopMark is the name under which it is kept that an attempt was stopped because its task was cancelled, for the next manager that finds it so. Its task's name would not do:
// that may be meant for the next task with it, too, where the producer gives no timestamp. It is kept by when the worker was told, and until its exit is let go of: the next task with
// that id has attempts of the same names.
func stopMark(attemptID string) string { return "!" + attemptID }

// keepStops keeps which workers were told to stop by a cancellation, and reports whether the message of one is away.
func (m *Manager) keepStops() (away bool, kept func() error) {
	var keeping []func() error
	m.mu.Lock()
	defer m.mu.Unlock() // marked while it is active, see forget
	for _, e := range m.active {
		if e.cancelled && !e.stopKept {
			e.stopKept = true
			keeping = append(keeping, m.History.MarkCancel(stopMark(e.attempt.ID()), time.Now()))
			away = away || !e.atHand()
		}
	}
	return away, func() (err error) {
		for _, kept := range keeping {
			err = errors.Join(err, kept())
		}
		return err
	}
}

// wasStopped reports whether the manager before has stopped a worker that was born then because its task was cancelled. An older mark is that of an earlier task with the same id.
func (m *Manager) wasStopped(attemptID string, startedAt time.Time) bool {
	at, ok := m.History.CancelMark(stopMark(attemptID))
	return ok && !at.Before(startedAt)
}

// markedCancelled reports whether a task that turns up was cancelled after it was queued.
func (m *Manager) markedCancelled(t *queue.Task, msg *queue.Message) bool {
	meant := func(name string) bool {
		at, ok := m.History.CancelMark(name)
		return ok && meantFor(at, msg)
	}
	if meant(t.ID) {
		return true
	}
	for label, value := range t.Labels {
		if meant(labelMark(label, value)) {
			return true
		}
	}
	return false
}

// meantFor reports whether a cancellation was made when the message was queued. Of a message that does not say when that was, it is taken to be.
func meantFor(at time.Time, msg *queue.Message) bool { return msg.Undated || at.After(msg.QueuedAt) }

// cancelHere cancels the task's entries on this host. It says what it did, or nothing, and whether the task is done for with that.
func (m *Manager) cancelHere(c queue.Cancellation) (said string, done bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range m.entriesOf(c.ID) {
		word, ended := m.cancelEntry(e, c.At)
		if word != "" && !done {
			said, done = word, ended
		}
	}
	if said != "" {
		m.Log.Info("task cancelled", logkey.Task, c.ID, logkey.Reason, said)
		m.notify()
	}
	return said, done
}

// cancelLabelled cancels the entries with a label on this host, and returns how many.
func (m *Manager) cancelLabelled(c queue.Cancellation) (n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := slices.Clone(m.waiting)
	for _, e := range m.active {
		all = append(all, e)
	}
	for _, e := range all {
		if value, ok := e.attempt.Task.Labels[c.Label]; !ok || value != c.Value {
			continue
		}
		if said, done := m.cancelEntry(e, c.At); done {
			m.Log.Info("task cancelled", logkey.Task, e.attempt.Task.ID, logkey.Reason, said)
			n++
		}
	}
	m.notify()
	return n
}

// cancelEntry cancels one entry. The lock is held.
func (m *Manager) cancelEntry(e *entry, at time.Time) (said string, done bool) {
	if !meantFor(at, &queue.Message{QueuedAt: e.attempt.QueuedAt, Undated: e.undated}) {
		return "", false
	}
	switch {
	case e.status == Waiting && m.mayHaveBegun(e): // where it may run, it is cancelled too; else it is when that is known
		e.cancelled = true
		return "", false
	case e.status == Waiting && e.atHand():
		m.waiting = slices.DeleteFunc(m.waiting, func(w *entry) bool { return w == e })
		m.close(e, m.cancelledVerdict(e, time.Now()))
		return "cancelled while it waited", true
	case e.status == Running:
		e.cancelled, e.status = true, Stopping
		e.cancel()
		return "the worker was told to stop", true
	case e.status == Stopping:
		return "the worker is being stopped", true
	case e.status == Settling && e.begun:
		return "nothing to cancel: it has ended and is being settled", false
	}
	return "", false
}

// cancelQueued takes a task out of an embedded queue and settles it.
func (m *Manager) cancelQueued(ctx context.Context, id string) (bool, error) {
	d, err := m.Backlog.Pick(ctx, id)
	if errors.Is(err, ErrUnknownTask) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("cannot take the task out of the queue: %w", err)
	}
	msg := d.Message()
	task, err := queue.Decode(msg)
	if err != nil {
		m.refuse(d, msg, task, err)
		return true, nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	e := newEntry(m.attemptOf(task, msg), d)
	m.close(e, m.cancelledVerdict(e, time.Now()))
	m.notify()
	return true, nil
}

func (m *Manager) isAgain(id string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, again := m.again[id]
	return again
}
