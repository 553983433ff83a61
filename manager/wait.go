package manager

import (
	"context"
	"slices"
	"time"
)

// Wait implements Backend.
func (m *Manager) Wait(ctx context.Context, id string) (View, error) {
	m.mu.Lock()
	_, again := m.again[id]
	ended := make(chan struct{})
	m.waiters[id] = append(m.waiters[id], ended)
	busy := slices.ContainsFunc(m.entriesOf(id), func(e *entry) bool { return !e.recorded })
	m.mu.Unlock()
	defer m.unwait(id, ended)
	if r, ok := m.History.Get(id); ok && r.Result.State != "" && !again && !busy {
		return recordView(&r), nil
	}
	if err := m.awaitEnd(ctx, id, ended); err != nil {
		return View{}, err
	}
	r, ok := m.History.Get(id)
	if !ok {
		return View{}, ErrUnknownTask
	}
	return recordView(&r), nil
}

// unknownTime is how long a task may be nowhere, on its way from the queue to the manager.
const unknownTime = time.Second

// awaitEnd waits until a task has ended. Where no other host serves the queue, one that is not there will not come.
func (m *Manager) awaitEnd(ctx context.Context, id string, ended <-chan struct{}) error {
	var look <-chan time.Time
	for absent := false; ; {
		if m.config.Alone {
			there := m.isHere(ctx, id)
			if absent && !there {
				return ErrUnknownTask
			}
			absent = !there
			if look = nil; absent {
				look = time.After(unknownTime)
			}
		}
		select {
		case <-ended:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-look:
		}
	}
}

// isHere reports whether this host has a task, or its queue.
func (m *Manager) isHere(ctx context.Context, id string) bool {
	m.mu.Lock()
	n := len(m.entriesOf(id))
	m.mu.Unlock()
	if n > 0 || m.Backlog.Find == nil {
		return true
	}
	_, queued := m.Backlog.Find(ctx, id)
	return queued
}

func (m *Manager) unwait(id string, c chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	left := slices.DeleteFunc(m.waiters[id], func(w chan struct{}) bool { return w == c })
	if len(left) == 0 {
		delete(m.waiters, id)
		return
	}
	m.waiters[id] = left
}
