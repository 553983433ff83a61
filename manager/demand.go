package manager

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/mayfly/mayfly/queue"
)

// Needs are resources of a number of tasks.
type Needs struct {
	Tasks  int     `json:"tasks"`
	CPU    float64 `json:"cpu"`
	Memory int64   `json:"memory"`
	Disk   int64   `json:"disk"`
	GPUs   int     `json:"gpus"`
}

// Demand says how much work there is and how much room, for whoever adds and removes hosts.
type Demand struct {
	// Queued counts the messages of each queue "<pool>.<band>" that no host has taken: with RabbitMQ the same on each host. What they
	// need is not known.
	Queued map[string]int `json:"queued"`
	// Waiting is what the tasks need that wait on this host, Running what the others hold. What a host like this one can never run is in no figure: no number of them would help it.
	Waiting Needs `json:"waiting"`
	Running Needs `json:"running"`
	// Free is what this host has left; Tasks is how many more it takes at once.
	Free Needs `json:"free"`
	// OldestAt is when the oldest task that waits for room here was queued.
	OldestAt *time.Time `json:"oldest_at,omitempty"`
	// IdleSince is set while this host holds no task.
	IdleSince *time.Time `json:"idle_since,omitempty"`
	// Pools says the same by pool.
	Pools []PoolDemand `json:"pools"`
	// Serving is false while the host drains: what is free is lent to nobody.
	Serving bool `json:"serving"`
}

// PoolDemand is the work of one pool.
type PoolDemand struct {
	Pool string `json:"pool"`
	// Queued counts messages that no host has taken, Waiting and Running tasks of this host, but for those that it can never run.
	Queued  int `json:"queued"`
	Waiting int `json:"waiting"`
	Running int `json:"running"`
	// PerHost is how many of the pool's tasks a host like this one runs at once, by what those need on average that this host has in its
	// hands, or a task that says nothing.
	PerHost float64 `json:"per_host"`
	// Hosts is how many hosts like this one, with nothing else to do, could start at once what is queued and what waits here.
	Hosts int `json:"hosts"`
	// Needs is what those that are queued or wait here need together, each as much as the pool's tasks on average; nil where that is not known.
	Needs *Needs `json:"needs,omitempty"`
}

func (n *Needs) add(e *entry) {
	n.Tasks++
	n.CPU += float64(e.attempt.Lease.MilliCPU) / 1000
	n.Memory += e.attempt.Lease.Memory
	n.Disk += e.attempt.Lease.Disk
	n.GPUs += len(e.attempt.Lease.GPUs)
}

// Of is what so many tasks need that are like those on average.
func (n Needs) Of(tasks int) *Needs {
	share := float64(tasks) / float64(max(1, n.Tasks))
	return &Needs{Tasks: tasks, CPU: n.CPU * share, Memory: int64(float64(n.Memory) * share), Disk: int64(float64(n.Disk) * share), GPUs: int(math.Ceil(float64(n.GPUs) * share))}
}

// Demand implements Backend.
func (m *Manager) Demand(ctx context.Context) (Demand, error) {
	depth, err := m.Backlog.Depth(ctx)
	if err != nil {
		return Demand{}, fmt.Errorf("cannot look into the queue: %w", err)
	}
	idle := m.startedAt
	if m.Archive != nil {
		if last, _, err := m.Archive.Page(Filter{}, 0, 1); err == nil && len(last) == 1 && last[0].SettledAt.After(idle) {
			idle = last[0].SettledAt
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	d := Demand{Queued: depth, Serving: m.state == serving}
	if d.Queued == nil {
		d.Queued = map[string]int{}
	}
	for _, e := range m.waiting {
		if e.misfit != "" {
			continue
		}
		d.Waiting.add(e)
		if len(e.choices) > 0 {
			d.Waiting.GPUs += e.choices[0].gpus.Count
		}
		if at := e.attempt.QueuedAt; d.OldestAt == nil || at.Before(*d.OldestAt) {
			d.OldestAt = &at
		}
	}
	for _, e := range m.active {
		if e.status != Settling {
			d.Running.add(e)
		}
	}
	for _, pool := range m.config.Pools {
		d.Pools = append(d.Pools, m.poolDemand(pool, depth))
	}
	total, lent := m.ledger.total, m.ledger.lent
	d.Free = Needs{Tasks: max(0, m.demand-len(m.active)-len(m.closing)-len(m.waiting)), CPU: max(0, float64(total.MilliCPU-lent.MilliCPU)/1000),
		Memory: max(0, total.Memory-lent.Memory), Disk: max(0, total.Disk-lent.Disk)}
	if m.Services.GPUs != nil {
		_, d.Free.GPUs, _ = m.Services.GPUs.Counts()
	}
	if len(m.active)+len(m.closing)+len(m.waiting) == 0 {
		d.IdleSince = &idle
	}
	return d, nil
}

// poolDemand is the work of one pool. The lock is held.
func (m *Manager) poolDemand(pool string, depth map[string]int) PoolDemand {
	inHand := m.inHand(pool)
	d := PoolDemand{Pool: pool, PerHost: m.perHost(inHand)}
	for _, band := range queue.Bands {
		d.Queued += depth[pool+"."+string(band)]
	}
	for _, e := range m.waiting {
		if e.attempt.Task.Pool == pool && e.misfit == "" {
			d.Waiting++
		}
	}
	for _, e := range m.active {
		if e.status != Settling && e.attempt.Task.Pool == pool {
			d.Running++
		}
	}
	d.Hosts = int(math.Ceil(float64(d.Queued+d.Waiting) / d.PerHost))
	d.Needs = inHand.Of(d.Queued + d.Waiting)
	return d
}

// inHand is what those tasks of a pool need that this host has in its hands and can run, or one that says nothing. The lock is held.
func (m *Manager) inHand(pool string) (sum Needs) {
	for _, list := range []iter.Seq[*entry]{slices.Values(m.waiting), maps.Values(m.active)} {
		for e := range list {
			if e.attempt.Task.Pool != pool || e.misfit != "" { // which has no lease
				continue
			}
			sum.add(e)
			if len(e.attempt.Lease.GPUs) == 0 && len(e.choices) > 0 {
				sum.GPUs += e.choices[0].gpus.Count
			}
		}
	}
	if sum.Tasks == 0 {
		lease := m.ledger.price(queue.Resources{})
		sum = Needs{Tasks: 1, CPU: float64(lease.MilliCPU) / 1000, Memory: lease.Memory}
	}
	return sum
}

// perHost is how many tasks like those would fill this host; at least one, for they run. The lock is held.
func (m *Manager) perHost(sum Needs) float64 {
	n := math.Inf(1)
	part := func(total, needed float64) {
		if needed > 0 {
			n = min(n, total*float64(sum.Tasks)/needed)
		}
	}
	part(float64(m.ledger.total.MilliCPU)/1000, sum.CPU)
	part(float64(m.ledger.total.Memory), float64(sum.Memory))
	part(float64(m.ledger.total.Disk), float64(sum.Disk))
	part(float64(m.shares.gpus), float64(sum.GPUs))
	if math.IsInf(n, 1) {
		return 1
	}
	return max(1, math.Floor(n))
}
