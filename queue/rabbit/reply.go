package rabbit

import (
	"context"
	"errors"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/mayfly/mayfly/queue"
)

// A producer's queue may take replies and confirm none: a quorum queue does so as long as most of its nodes are away. RabbitMQ takes nothing more from a channel for 30 s when the first message
// for such a queue comes by it, and soon nothing more from the connection when one queue owes 32 confirms (rabbitmq-server's rabbit_fifo_client, and credit_flow). So replies go by a channel
// for each queue, which owes no more than a part of that; and a queue that has let one reply wait for long is not waited for until it confirms again: neither its tasks nor others are to
// wait for it for ever.

const (
	// replyLimit is how long the confirm of a reply is waited for before it is published again, as some nodes lose what they owe when a queue gets another leader; after twice as long
	// nobody waits for it. While a queue refuses replies, because it is full, or is gone with its node of the broker (see [ear]), nobody waits for longer than once that.
	replyLimit = 30 * time.Second
	// owedMost is how many confirms a queue may owe before it is sent no more.
	owedMost = 24
	// replyIdle is how long a channel is kept that is not used, and replyOwing one by which confirms are owed.
	replyIdle  = time.Minute
	replyOwing = 10 * time.Minute
	// replyWays is how many there may be that are not used: a connection has some two thousand channels, and each program may have a queue of its own.
	replyWays = 64
)

// replies are the channels by which replies go, by queue.
type replies struct {
	mu    sync.Mutex // guards all below, and the fields of the lanes
	lanes map[string]*replyLane
}

// replyLane is the way to one producer's queue.
type replyLane struct {
	name    string
	opening sync.Mutex // one opens the channel at a time
	o       *outlet    // nil until it is opened
	users   int
	owed    int
	bad     bool          // a reply was given up: the queue is not waited for until it confirms one
	paid    chan struct{} // closed when it confirms one; replaced each time
	idle    *time.Timer
}

// use returns the way to a queue, which is there until it is left.
func (r *replies) use(name string) *replyLane {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.lanes[name]
	if l == nil {
		l = &replyLane{name: name, paid: make(chan struct{})}
		l.idle = time.AfterFunc(replyIdle, func() { r.tidy(l) })
		r.lanes[name] = l
	}
	l.users++
	return l
}

func (r *replies) leave(l *replyLane) {
	r.mu.Lock()
	defer r.mu.Unlock()
	l.users--
	r.rest(l)
}

// rest has a way be closed that is not used any more: in its time, or at once where there are many. It is called with mu held.
func (r *replies) rest(l *replyLane) {
	switch {
	case l.owed > 0: // the library keeps all confirms in its memory that come behind those
		l.idle.Reset(replyOwing)
	case l.users == 0 && len(r.lanes) > replyWays:
		r.close(l)
	default:
		l.idle.Reset(replyIdle)
	}
}

func (r *replies) tidy(l *replyLane) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if l.users > 0 {
		r.rest(l)
		return
	}
	r.close(l)
}

// close is called with mu held.
func (r *replies) close(l *replyLane) {
	if r.lanes[l.name] != l {
		return // it is closed
	}
	l.idle.Stop()
	delete(r.lanes, l.name)
	if l.o != nil {
		go func() { _ = l.o.ch.Close() }()
	}
}

// take has a queue owe one more confirm, if it may; it reports whether that is worth waiting for, and returns what is closed when the queue confirms something.
func (r *replies) take(l *replyLane) (room, bad bool, paid <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if room = l.owed < owedMost; room {
		l.owed++
	}
	return room, l.bad, l.paid
}

// settle takes note of a confirm when it comes; nil is that of what was not sent.
func (r *replies) settle(l *replyLane, confirm *amqp.DeferredConfirmation) {
	acked := confirm != nil && confirm.Wait() // also when the channel closes
	r.mu.Lock()
	defer r.mu.Unlock()
	l.owed--
	l.bad = l.bad && !acked
	close(l.paid)
	l.paid = make(chan struct{})
	r.rest(l)
}

var errNoReplies = errors.New("RabbitMQ has refused replies")

// openReply returns the channel of a way: a new one where there is none, or the connection is another one, or it was closed.
func (p *publisher) openReply(l *replyLane, s *session) (*outlet, error) {
	l.opening.Lock()
	defer l.opening.Unlock()
	p.replies.mu.Lock()
	o := l.o
	p.replies.mu.Unlock()
	if o != nil && o.sess == s && !o.ch.IsClosed() {
		return o, nil
	}
	if o != nil && o.ch.IsClosed() {
		if fault := <-o.closed; fault != nil {
			p.explain(fault)
		}
		if p.noReplies.Load() {
			return nil, errNoReplies
		}
	}
	o, err := open(s, p.log)
	if err != nil {
		return nil, err
	}
	p.replies.mu.Lock()
	defer p.replies.mu.Unlock()
	l.o = o
	return o, nil
}

// giveUp leaves a reply at that: it may arrive or not.
func (p *publisher) giveUp(pub *publication) {
	pub.done = true
	p.log.Warn("reply not waited for any more: its queue takes none, or confirms none", keyQueue, pub.key, keyTask, pub.msg.MessageId)
}

// reply publishes a reply, and waits for its confirm as long as that is worth it.
func (p *publisher) reply(ctx context.Context, lost <-chan struct{}, pub *publication) error {
	l := p.replies.use(pub.key)
	defer p.replies.leave(l)
	var wait backoff
	var refused time.Time // since when
	began := time.Now()
	for {
		main, err := p.outlet(ctx, lost)
		if err != nil {
			return err
		}
		if p.noReplies.Load() {
			pub.done = true
			return nil
		}
		anew := func() (on bool) { // where the broker serves nobody now, that is not the queue's fault
			if on = p.now() != main; on {
				began = time.Now()
			}
			return on
		}
		result, err := p.replyOnce(ctx, lost, main.sess, l, pub, anew)
		switch {
		case err != nil:
			return err
		case result == arrived, result == unroutable:
			pub.done = true
			return nil
		case result == unknown:
			began, refused = time.Now(), time.Time{}
		case result == refusedByBroker && refused.IsZero():
			refused = time.Now()
		}
		late := time.Since(began) >= 2*p.replyLimit || !refused.IsZero() && time.Since(refused) >= p.replyLimit
		if p.replies.isBad(l, late) && result != unknown {
			p.giveUp(pub)
			return nil
		}
		if result == unanswered {
			continue
		}
		if err := sleepOr(ctx, lost, wait.next()); err != nil {
			return err
		}
	}
}

// replyOnce publishes a reply once, unless its queue owes too much: then it waits for room. Where that is not worth waiting for, it has done with the reply.
func (p *publisher) replyOnce(ctx context.Context, lost <-chan struct{}, s *session, l *replyLane, pub *publication, anew func() bool) (fate, error) {
	o, err := p.openReply(l, s)
	if err != nil {
		return unknown, nil // the connection is gone, or about to go
	}
	room, bad, paid := p.replies.take(l)
	switch {
	case !room && bad:
		p.giveUp(pub)
		return arrived, nil
	case !room:
		timer := time.NewTimer(p.replyLimit)
		defer timer.Stop()
		select {
		case <-paid:
		case <-timer.C:
			anew()
		case <-ctx.Done():
			return unanswered, ctx.Err()
		case <-lost:
			return unanswered, queue.ErrLost
		}
		return unanswered, nil
	}
	if err := p.send(o, pub); err != nil {
		p.replies.settle(l, nil)
		return unknown, err
	}
	go p.replies.settle(l, pub.confirm)
	if bad { // its confirm tells whether the next ones are to be waited for
		p.giveUp(pub)
		return arrived, nil
	}
	return o.await(ctx, lost, pub, p.replyLimit, anew)
}

// isBad reports whether a queue is not worth waiting for, which it is not from when a reply was too late for it.
func (r *replies) isBad(l *replyLane, late bool) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	l.bad = l.bad || late
	return l.bad
}
