package manager

import (
	"context"
	"fmt"
	"time"

	"github.com/mayfly/mayfly/internal/logkey"
	"github.com/mayfly/mayfly/queue"
	"github.com/mayfly/mayfly/worker"
)

const (
	// faultsMax is how many workers may be lost through the host's fault, one after the other, before the host takes no more tasks. Fewer may be the
	// fault of one task that kills its host.
	faultsMax = 3
	// probeMin and probeMax are the waits between two probes of a host that takes no tasks.
	probeMin = time.Second
	probeMax = time.Minute
	// probeTime is how long a probe may take.
	probeTime = 10 * time.Second
	// probeID is no id that a task can have.
	probeID = "_probe"
)

// noteFault learns from an outcome whether this host is fit to run tasks. The lock is held.
func (m *Manager) noteFault(o *worker.Outcome) {
	switch {
	case m.drained || o.Cause == queue.CauseCancelled || o.Cause == queue.CauseGPUFault: // says nothing of the host as a whole
		return
	case o.Cause != queue.CauseHostLost:
		m.faults = 0
		return
	}
	m.faults++
	if m.faults < faultsMax || m.sick != "" || m.state != serving {
		return
	}
	m.sick = fmt.Sprintf("%d workers one after the other were lost through the host's fault, the last one so: %s", m.faults, o.Message)
	m.unfitAt = time.Now()
	m.Log.Error("host stopped taking tasks", logkey.Host, m.config.Host, logkey.Reason, m.sick)
	m.group.Go(m.probe)
}

// probe runs a worker again and again until one succeeds: the way is the same as that of any task. Then the host takes tasks again.
func (m *Manager) probe() {
	for wait := probeMin; ; wait = min(2*wait, probeMax) {
		number := int(time.Now().UnixMilli())
		o, err := m.tryWorker(&worker.Attempt{Number: number, Host: m.config.Host, QueuedAt: time.Now(),
			Task:  queue.Task{ID: probeID, Command: []string{"true"}, Timeout: probeTime, Pool: m.config.Pools[0]},
			Lease: worker.Lease{MilliCPU: 100, Memory: 64 << 20, PIDs: 64}})
		if err == nil && o.Cause == queue.CauseNone {
			break
		}
		if m.serves.Err() != nil {
			return
		}
		var why string
		if err != nil {
			why = err.Error()
		} else {
			why = o.Message
		}
		m.Log.Warn("host is not fit yet", logkey.Host, m.config.Host, logkey.Reason, why, logkey.Delay, wait.String())
		select {
		case <-time.After(wait):
		case <-m.serves.Done():
			return
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sick, m.faults = "", 0
	m.Log.Info("host takes tasks again", logkey.Host, m.config.Host)
	m.schedule()
	m.notify()
}

// tryWorker runs the worker of a probe and leaves nothing of it.
func (m *Manager) tryWorker(a *worker.Attempt) (*worker.Outcome, error) {
	ctx, cancel := context.WithCancel(m.work)
	defer cancel()
	defer context.AfterFunc(m.serves, cancel)()
	o, err := m.Runner.Run(ctx, a, func(int, time.Time) {})
	m.Runner.Release(a.ID())
	m.Discard(a.ID())
	return o, err
}
