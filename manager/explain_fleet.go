package manager

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mayfly/mayfly/internal/logkey"
	"github.com/mayfly/mayfly/queue"
)

const (
	// pollTime is how long all hosts have to answer what a person wants to know.
	pollTime = 500 * time.Millisecond
	// parkedMax bounds how many parked tasks a host remembers, and parkedBody the size of those that it can explain: they lie in the broker.
	parkedMax  = 1000
	parkedBody = 16 << 10
	parkedGone = 10 * time.Second // what has not come by then is with another host
)

// poll collects what all hosts answer.
type poll struct{ offers []queue.Offer }

// parked is a task that this host has put back because no host could run it.
type parked struct {
	view    View
	message queue.Message
	until   time.Time
}

// park remembers a task that is put back. The lock is held.
func (m *Manager) park(e *entry, until time.Time) {
	now := time.Now()
	for id, p := range m.others.parked {
		if now.Sub(p.until) > parkedGone {
			delete(m.others.parked, id)
		}
	}
	if len(m.others.parked) >= parkedMax {
		return
	}
	v := e.view()
	v.Status, v.Reason = Parked, fmt.Sprintf("no host can run it; tried again at %s: %s", until.Format(time.TimeOnly), e.misfit)
	p := parked{view: v, until: until}
	if msg := e.delivery.Message(); len(msg.Body) <= parkedBody {
		p.message = msg
	}
	m.others.parked[e.attempt.Task.ID] = p
}

// parkedViews lists the parked tasks that have not come back, oldest first. The lock is held.
func (m *Manager) parkedViews() (views []View) {
	for _, p := range m.others.parked {
		if time.Since(p.until) < parkedGone {
			views = append(views, p.view)
		}
	}
	slices.SortFunc(views, func(a, b View) int { return cmp.Or(a.QueuedAt.Compare(b.QueuedAt), cmp.Compare(a.ID, b.ID)) })
	return views
}

// heldReason says what an entry waits for that is not this host. The lock is held.
func (m *Manager) heldReason(e *entry) string {
	switch {
	case e.adopting():
		return "was delivered before: waits for the host that may have begun it"
	case e.inquiry == nil:
		return "waits to be handed over again"
	case e.noTaker():
		return "is parked, for no other host can start it now: " + e.misfit
	case e.inquiry.question.Purpose == queue.ToSpare:
		return "asks other hosts: it has failed here"
	}
	return "asks other hosts: " + e.misfit
}

// explainFleet adds what the other hosts have of a task, or lack for it, to what this one knows.
func (m *Manager) explainFleet(ctx context.Context, id string, x Explanation, unknown error) (Explanation, error) {
	m.mu.Lock()
	_, msg := m.explainHere(&queue.Question{TaskID: id})
	m.mu.Unlock()
	if unknown == nil && msg == nil {
		return x, nil // it runs, has ended, or is in the broker's hands
	}
	if unknown != nil { // somebody else may have it
		offers, err := m.pollAll(ctx, queue.Question{Purpose: queue.ToExplain, TaskID: id})
		if err != nil {
			return x, err
		}
		if len(offers) == 0 {
			return x, unknown
		}
		for _, o := range offers {
			x.add(o)
			if o.Message != nil {
				msg = o.Message
			}
		}
		x.ID, x.Status, x.Sentence = id, Elsewhere, "another host has it"
	}
	if msg == nil {
		return x, nil
	}
	q := queue.Question{Purpose: queue.ToExplain, TaskID: id, Message: msg, Pool: msg.Pool}
	offers, err := m.pollAll(ctx, q)
	if err != nil && unknown == nil { // what this host knows is something
		x.Sentence += "; " + err.Error()
		return x, nil
	}
	if err != nil {
		return x, err
	}
	for _, o := range offers {
		x.add(o)
	}
	if unknown != nil && slices.Contains(m.config.Pools, q.Pool) {
		m.mu.Lock()
		says, _ := m.explainHere(&q)
		m.mu.Unlock()
		x.add(queue.Offer{Host: m.config.Host, Says: says})
	}
	return x, nil
}

func (x *Explanation) add(o queue.Offer) {
	if o.Says != "" && !slices.ContainsFunc(x.Hosts, func(h HostSays) bool { return h.Host == o.Host }) {
		x.Hosts = append(x.Hosts, HostSays{o.Host, o.Says})
	}
}

// explainHere says what this host has of the task, with its message where that can be run elsewhere; or what it lacks for the question's message; or
// nothing. The lock is held.
func (m *Manager) explainHere(q *queue.Question) (says string, msg *queue.Message) {
	if list := m.entriesOf(q.TaskID); len(list) > 0 {
		e := list[0]
		says = "has it: " + strings.ReplaceAll(strings.ReplaceAll(m.explainHeld(e).Sentence, "this host", "the host"), "here", "there")
		if e.status == Waiting && e.delivery != nil {
			msg = shown(e.delivery.Message())
		}
		return says, msg
	}
	if p, ok := m.others.parked[q.TaskID]; ok && time.Since(p.until) < parkedGone {
		if p.message.Body != nil {
			msg = shown(p.message)
		}
		return "has parked it: " + p.view.Reason, msg
	}
	if q.Message == nil {
		return "", nil
	}
	task, err := m.read(q.Message)
	if err != nil {
		return "refuses it: " + err.Error(), nil
	}
	choices, why := m.ledger.choices(&task)
	switch {
	case why != nil:
		return "cannot run it: " + strings.ReplaceAll(why.Error(), "this host", "it"), nil
	case m.sick != "":
		return "could run it, but takes no tasks: " + m.sick, nil
	}
	if c, _ := m.roomFor(choices); c != nil {
		return "can start it at once", nil
	}
	if lacks := m.ledger.lacks(&choices[0]); lacks != "" {
		return "can run it, and " + strings.Replace(lacks, "waits for", "lacks", 1), nil
	}
	return "can run it, after what waits there", nil
}

// answerExplain answers what a person wants to know. The lock is held.
func (m *Manager) answerExplain(q *queue.Question) {
	says, msg := m.explainHere(q)
	if says == "" {
		return
	}
	if q.Message != nil {
		msg = nil
	}
	m.offer(q, queue.Offer{Says: says, Message: msg})
}

// pollAll asks all other hosts of this one's pools, or of the question's.
func (m *Manager) pollAll(ctx context.Context, q queue.Question) ([]queue.Offer, error) {
	q.ID = m.config.Host + "/" + strconv.FormatUint(rand.Uint64(), 36)
	p := &poll{}
	m.mu.Lock()
	m.others.polls[q.ID] = p
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		delete(m.others.polls, q.ID)
		m.mu.Unlock()
	}()
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	pools := m.config.Pools
	if q.Pool != "" {
		pools = []string{q.Pool}
	}
	for _, pool := range pools {
		q.Pool = pool
		if err := m.Fleet.Ask(ctx, q, ""); err != nil {
			if errors.Is(err, context.DeadlineExceeded) {
				err = fmt.Errorf("nothing was confirmed in time by %s", m.QueueState())
			}
			return nil, fmt.Errorf("cannot ask the other hosts: %w", err)
		}
	}
	select {
	case <-time.After(pollTime):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return p.offers, nil
}

// Hosts implements Backend.
func (m *Manager) Hosts(ctx context.Context) ([]Info, error) {
	m.mu.Lock()
	list := []Info{m.infoHere()}
	m.mu.Unlock()
	if m.Fleet == nil {
		return list, nil
	}
	offers, err := m.pollAll(ctx, queue.Question{Purpose: queue.ToCount})
	if err != nil {
		return nil, err
	}
	for _, o := range offers {
		var i Info
		if err := json.Unmarshal(o.Info, &i); err != nil {
			m.Log.Warn("another host's answer not understood", logkey.Host, o.Host, logkey.Err, err)
			continue
		}
		if !slices.ContainsFunc(list, func(other Info) bool { return other.Host == i.Host }) {
			list = append(list, i)
		}
	}
	slices.SortFunc(list, func(a, b Info) int { return cmp.Compare(a.Host, b.Host) })
	return list, nil
}

// answerCount tells how this host is. The lock is held.
func (m *Manager) answerCount(q *queue.Question) {
	info, err := json.Marshal(m.infoHere())
	if err != nil {
		return // plain fields: cannot fail
	}
	m.offer(q, queue.Offer{Info: info})
}
