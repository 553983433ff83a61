package manager

import (
	"slices"
	"time"

	"github.com/mayfly/mayfly/queue"
	"github.com/mayfly/mayfly/worker"
)

// A message may be there twice: the confirm of a copy got lost, and so both the copy and what it was made of come to a host. Two hosts that have one of them each, and ask each
// other who has begun it, would both hear that nobody has. So the questions about a message are in an order: each ranks behind all that its host had heard before (Lamport, "Time,
// Clocks, and the Ordering of Events in a Distributed System", 1978), and a host answers none that ranks behind its own before that is decided (Ricart and Agrawala, "An Optimal
// Algorithm for Mutual Exclusion in Computer Networks", 1981). One that was delivered to nobody before is not asked about; it is, where others wonder who has it.
const (
	// wonderTime is for how long is remembered who asked for a message: for as long as the question may be open, and for as long as its host needs to begin the task.
	wonderTime = 2 * adoptTime
	// wondersMax bounds how many are remembered.
	wondersMax = 1024
)

// wonder is another host's question about who has a message.
type wonder struct {
	question       queue.Question
	heardAt, until time.Time
	// deferred says that it was not answered yet, for this host comes first.
	deferred bool
}

// answerWonder tells another host whether this one has begun what it asks about, at once or later. The lock is held.
func (m *Manager) answerWonder(q *queue.Question) {
	now := time.Now()
	m.others.wonders = slices.DeleteFunc(m.others.wonders, func(w *wonder) bool { return w.question.ID == q.ID || now.After(w.until) })
	if len(m.others.wonders) >= wondersMax {
		m.others.wonders = slices.Delete(m.others.wonders, 0, 1)
	}
	w := &wonder{question: *q, heardAt: now, until: now.Add(wonderTime)}
	m.others.wonders = append(m.others.wonders, w)
	for _, e := range m.waiting {
		if e.adopting() && asksFor(q, &e.attempt) && before(q, &e.inquiry.question) && e.inquiry.unsay(q.From) {
			m.put(e.inquiry.question, q.From) // what it has said to ours it said in an earlier life, or this is an old question that comes late
		}
	}
	m.sayWho(w)
}

// sayWho answers who has begun a message, unless nobody has here and this host wonders, too, and comes first. The lock is held.
func (m *Manager) sayWho(w *wonder) {
	q := &w.question
	has := m.hasBegun(q)
	w.deferred = !has && slices.ContainsFunc(m.waiting, func(e *entry) bool {
		return e.adopting() && asksFor(q, &e.attempt) && before(&e.inquiry.question, q)
	})
	switch {
	case has:
		m.offer(q, queue.Offer{Has: true})
	case q.Surely && !w.deferred:
		m.offer(q, queue.Offer{Lacks: true})
	}
}

// resolved answers those who wait for what this host finds out by its own question; where it did not hear of all, those as well that came first. The lock is held.
func (m *Manager) resolved(q *inquiry) {
	for _, w := range m.wonders(&q.about.attempt) {
		if w.deferred || q.about.unowned {
			m.sayWho(w)
		}
	}
}

// wonders lists the questions of others for the message of an attempt. The lock is held.
func (m *Manager) wonders(a *worker.Attempt) (list []*wonder) {
	now := time.Now()
	for _, w := range m.others.wonders {
		if now.Before(w.until) && asksFor(&w.question, a) {
			list = append(list, w)
		}
	}
	return list
}

// rank is that of a question about the message of an attempt. The lock is held.
func (m *Manager) rank(a *worker.Attempt) (rank int) {
	for _, w := range m.wonders(a) {
		rank = max(rank, w.question.Rank)
	}
	return min(rank+1, queue.MaxRank)
}

// othersFirst is how long to wait for hosts that have not answered, for they wonder, too, and come first: until they decide for want of an answer themselves, and can say so. They wait for each other, too.
// The lock is held.
func (m *Manager) othersFirst(q *inquiry) time.Duration {
	if q.question.Purpose != queue.ToAdopt || len(q.offers) > 0 {
		return 0
	}
	var until time.Time
	var turns time.Duration
	for _, w := range m.wonders(&q.about.attempt) {
		if before(&w.question, &q.question) && !slices.Contains(q.lack, w.question.From) {
			turns++
			if at := w.heardAt.Add(adoptTime); at.After(until) {
				until = at
			}
		}
	}
	return time.Until(until.Add(turns * answerTime))
}

// isWonderedAbout reports whether a message that came as if for the first time is one of two: another host has asked who has begun the attempt, and has not handed it to this one since. What
// was submitted twice, word for word, is told apart by when it was queued; what has no attempts behind it and comes from the pool is no copy, but what a host gave back. The lock is held.
func (m *Manager) isWonderedAbout(a *worker.Attempt, msg *queue.Message) bool {
	if msg.Redelivered || a.Dated().IsZero() || msg.HandedBy == "" && len(msg.History) == 0 {
		return false
	}
	return slices.ContainsFunc(m.wonders(a), func(w *wonder) bool {
		return !w.question.QueuedAt.IsZero() && w.question.AttemptID == a.ID() && w.question.From != msg.HandedBy
	})
}

// asksFor reports whether a question is about the message of an attempt. Those of a producer that gives no ids are told apart by the ids that hosts give them.
func asksFor(q *queue.Question, a *worker.Attempt) bool {
	fingerprint, known := fingerprintOf(q)
	return known && q.TaskID == a.Task.ID && isMessage(a, fingerprint, q.QueuedAt)
}

// before reports whether one question about a message comes before another one.
func before(a, b *queue.Question) bool {
	if a.Rank != b.Rank {
		return a.Rank < b.Rank
	}
	return a.ID < b.ID
}
