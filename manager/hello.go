package manager

import (
	"context"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/mayfly/mayfly/internal/logkey"
	"github.com/mayfly/mayfly/queue"
)

// Joined says that this host can be reached (again). What others have asked and answered before was not heard.
func (m *Manager) Joined() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.others.reached = true
	m.greet()
}

// greet says hello, and asks again what is open. The lock is held.
func (m *Manager) greet() {
	if m.Fleet == nil || !m.others.here || !m.others.reached {
		return
	}
	m.tell("other hosts not greeted", "", adoptTime, func(ctx context.Context) error { return m.Fleet.Hello(ctx, queue.Hello{Life: m.life}, "") })
	for _, q := range m.others.inquiries {
		m.put(q.question, "")
	}
}

// Greeted asks a host that has come (back) what is still open.
func (m *Manager) Greeted(h queue.Hello) {
	if !slices.ContainsFunc(h.Pools, func(pool string) bool { return slices.Contains(m.config.Pools, pool) }) {
		return // it never has anything to do with us
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if h.Leaves {
		m.forgetHost(h.Host)
		m.count(h.Pools, -1)
		return
	}
	if _, known := m.others.known[h.Host]; !known {
		m.count(h.Pools, 1)
	}
	m.meet(h.Host, h.Pools...)
	m.told(h.Hosts)
	reborn := m.isReborn(&h)
	if m.Fleet == nil || !m.others.here {
		return
	}
	// It wants to know who is there. Of a large fleet, a few are enough for it to know that it is not alone.
	if n := len(m.others.known); !h.Back && (n <= greetedBy || rand.IntN(n) < greetedBy) {
		back := queue.Hello{Life: m.life, Back: true, Hosts: m.tellable(h.Pools)}
		m.tell("another host not greeted", "", adoptTime, func(ctx context.Context) error { return m.Fleet.Hello(ctx, back, h.Host) })
	}
	if h.Back && !reborn {
		return
	}
	for _, q := range m.others.inquiries {
		if slices.Contains(h.Pools, q.question.Pool) && strings.HasPrefix(queue.PartOf(h.Host), q.question.Part) {
			if reborn {
				q.unsay(h.Host) // that was an earlier life, which may have had other messages
			}
			m.put(q.question, h.Host)
		}
	}
	for _, e := range m.waiting { // it may have begun what still waits for room here
		if e.unowned && !e.held && e.atHand() && slices.Contains(h.Pools, e.attempt.Task.Pool) {
			e.unowned = false
			m.leave(e)
			m.hold(e, queue.ToAdopt)
		}
	}
}

// isReborn reports whether a greeting may be that of another life of a host than the one that has answered before. The lock is held.
func (m *Manager) isReborn(h *queue.Hello) bool {
	before, known := m.others.lives[h.Host]
	if _, met := m.others.known[h.Host]; met && h.Life != "" {
		m.others.lives[h.Host] = h.Life
	}
	if !known {
		return !h.Back // who answers our greeting has heard all that we have asked since
	}
	return before != h.Life
}

// knownMost is more hosts than a fleet has: who makes names up does not fill the memory.
const knownMost = 20000

// meet remembers a host. The first one tells that this one is not alone: what waits for a host that has it may have to wait for longer. The lock is
// held.
func (m *Manager) meet(host string, pools ...string) {
	if len(m.others.known) == 0 {
		for _, q := range m.others.inquiries {
			if q.question.Purpose == queue.ToAdopt && len(q.offers) == 0 {
				if q.wait = adoptTime; !q.putAt.IsZero() {
					q.timer.Reset(adoptTime)
				}
			}
		}
	}
	known, there := m.others.known[host]
	if !there && len(m.others.known) >= knownMost {
		return
	}
	if !there || len(pools) > 0 && !slices.Equal(pools, known) {
		m.others.known[host] = pools
		m.keepHosts()
	}
}

// forgetHost forgets a host that has left, or that does not answer any more. The lock is held.
func (m *Manager) forgetHost(host string) {
	if _, ok := m.others.known[host]; ok {
		delete(m.others.known, host)
		delete(m.others.lives, host)
		m.keepHosts()
	}
}

// keepHosts keeps who is known for the next life, which would else take itself for alone until it has heard of the others, and not wait for them. That
// there are many is known from a few. The lock is held.
func (m *Manager) keepHosts() {
	if m.KeepHosts != nil && len(m.others.known) <= 2*greetedBy {
		m.KeepHosts(m.others.known)
	}
}

// forgetSilent forgets the hosts that have not answered a question that all of them were to answer. Those that come back say so. The lock is held.
func (m *Manager) forgetSilent(q *inquiry) {
	if !q.question.Surely { // not all were to answer
		return
	}
	for _, host := range m.unheard(q, q.lack) {
		m.Log.Info("host does not answer any more", logkey.Host, host)
		m.forgetHost(host)
	}
}
