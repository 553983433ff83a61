package manager

import (
	"context"
	"slices"
	"time"

	"github.com/mayfly/mayfly/internal/logkey"
	"github.com/mayfly/mayfly/isolation"
	"github.com/mayfly/mayfly/queue"
)

// settleTime is how long ended tasks may take to be settled once all workers are gone or let go of. It covers the
// reconnecting to a broker that is restarted; what is not settled by then the queue delivers again.
const settleTime = 10 * time.Second

// stop drains: nothing new starts, what waits goes back, what runs may finish within the drain timeout.
func (m *Manager) stop(hurry context.Context, stopWork context.CancelCauseFunc, stopSettling context.CancelFunc) {
	m.mu.Lock()
	m.state, m.unfitAt = draining, time.Now()
	running := len(m.active)
	m.schedule()
	m.notify()
	m.waits = true
	m.mu.Unlock()
	m.Log.Info("draining", logkey.Count, running, "timeout", m.config.DrainTimeout.String(), "on_stop", string(m.config.OnStop))

	done := make(chan struct{})
	go func() {
		m.group.Wait()
		close(done)
	}()
	if m.config.OnStop == KeepWorkers {
		// What has ended is settled by us: the next manager should not have to wait for its message.
		select {
		case <-m.nobodyIs(Settling):
		case <-time.After(settleTime):
		case <-hurry.Done():
		}
		m.letGo()
	} else {
		m.drainWorkers(hurry, stopWork, done)
	}
	select {
	case <-done:
		m.sayBye()
	case <-time.After(settleTime):
		m.Log.Warn("tasks left unsettled: the queue will deliver them again", logkey.Count, m.unsettled())
	}
	stopSettling()
	stopWork(isolation.ErrKill)
	<-done
	m.mu.Lock()
	m.state = stopped
	m.mu.Unlock()
	m.Log.Info("manager stopped", logkey.Host, m.config.Host)
}

// letGo leaves the workers that live to the next manager.
func (m *Manager) letGo() {
	m.mu.Lock()
	m.detached = true
	m.mu.Unlock()
	m.Detach()
}

// byeTime is how long the farewell may take: others wait in vain where it does not reach them, and for no longer than for a host that was killed.
const byeTime = time.Second

// sayBye tells the other hosts that they need not wait for this one.
func (m *Manager) sayBye() {
	m.mu.Lock()
	bye := m.Fleet != nil && !m.detached && len(m.active) == 0 && len(m.others.known) > 0
	m.mu.Unlock()
	if !bye {
		return
	}
	ctx, cancel := context.WithTimeout(m.settling, byeTime)
	defer cancel()
	if err := m.Fleet.Hello(ctx, queue.Hello{Leaves: true}, ""); err != nil {
		m.Log.Warn("other hosts not told", logkey.Err, err)
	}
}

// drainWorkers returns when all workers have ended: by themselves, or told to after the drain timeout, or killed when
// hurry ends.
func (m *Manager) drainWorkers(hurry context.Context, stopWork context.CancelCauseFunc, done <-chan struct{}) {
	timer := time.NewTimer(m.config.DrainTimeout)
	defer timer.Stop()
	var cause error
	select {
	case <-done:
		return
	case <-m.nobodyIs(Running, Stopping):
		return
	case <-timer.C:
		m.Log.Warn("drain timeout: stopping the workers that are left", "timeout", m.config.DrainTimeout.String())
	case <-hurry.Done():
		m.Log.Warn("asked again to stop: killing the workers that are left")
		cause = isolation.ErrKill
	}
	m.mu.Lock()
	m.drained = true
	m.mu.Unlock()
	stopWork(cause)
	workersGone := m.nobodyIs(Running, Stopping)
	if cause == nil {
		select {
		case <-workersGone:
			return
		case <-hurry.Done():
			// They were told to stop; the keeper sees to it that they do, and keeps their exits for the next manager.
			m.letGo()
		}
	}
	<-workersGone
}

// nobodyIs returns a channel that is closed once no active entry has one of the statuses.
func (m *Manager) nobodyIs(statuses ...Status) <-chan struct{} {
	c := make(chan struct{})
	go func() {
		defer close(c)
		for {
			m.mu.Lock()
			changed, busy := m.changed, false
			for _, e := range m.active {
				busy = busy || slices.Contains(statuses, e.status)
			}
			m.mu.Unlock()
			if !busy {
				return
			}
			<-changed
		}
	}()
	return c
}

func (m *Manager) unsettled() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.active) + len(m.closing)
}
