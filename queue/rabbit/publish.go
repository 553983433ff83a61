package rabbit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/mayfly/mayfly/internal/pause"
	"github.com/mayfly/mayfly/queue"
)

// publication is one message on its way.
type publication struct {
	exchange, key string
	// make makes what the message needs to arrive in a queue; nil where it may arrive nowhere.
	make func(*session) error
	// ahead, when not empty, names what make makes that must exist before publishing: an exchange made on demand.
	ahead string
	// reply says that the message goes to a producer's own queue, which may be gone.
	reply bool
	// many says that the message goes to queues of many hosts, some of which may be gone with their node of the broker: the others have it though the
	// broker refuses it (from 4.2 on; see [ear]).
	many bool
	// waits says that the message goes to a wait queue: where that does not answer, there are other ways to wait.
	waits bool
	// copied says that the message is a copy to be run, of which there must not be two.
	copied bool
	msg    amqp.Publishing

	confirm *amqp.DeferredConfirmation
	id      int64
	done    bool
}

// doubt notes that the message may have arrived already.
func (p *publication) doubt() {
	if p.copied {
		p.msg.Headers[headerDoubtful] = true
	}
}

// leaveMax is the longest time between two connections that are given up because a confirm does not come.
const leaveMax = 10 * time.Minute

// publisher publishes with confirms on one channel at a time.
type publisher struct {
	link       *link
	topology   *topology
	log        *slog.Logger
	seq        atomic.Int64
	noReplies  atomic.Bool // the broker has refused us the default exchange
	blocked    atomic.Bool // the broker is short of something
	unanswered func(s *session, silence time.Duration)
	limit      time.Duration // see [answerLimit]
	replyLimit time.Duration
	replies    replies

	mu    sync.Mutex
	cur   *outlet
	up    chan struct{} // closed while cur is set, and for good at the end
	end   bool          // there will be no other outlet
	left  time.Time     // when a connection was last given up because a confirm did not come
	leave time.Duration // the least time from then to the next one
}

func newPublisher(l *link, t *topology, log *slog.Logger) *publisher {
	return &publisher{link: l, topology: t, log: log, limit: answerLimit, replyLimit: replyLimit, replies: replies{lanes: map[string]*replyLane{}}, up: make(chan struct{})}
}

// run keeps a channel open for publishing until ctx ends.
func (p *publisher) run(ctx context.Context) {
	defer p.finish()
	var wait backoff
	var last *session
	var alarm alarm
	for ctx.Err() == nil {
		s, err := p.link.session(ctx)
		if err != nil {
			return
		}
		if s != last {
			last = s
			alarm = newAlarm(s)
			p.blocked.Store(false)
		}
		o, err := open(s, p.log)
		if err == nil {
			began := time.Now()
			err = p.serve(ctx, o, &alarm)
			wait.held(began)
		}
		p.explain(err)
		if isCode(err, amqp.NotFound) {
			_ = p.topology.prepare(ctx, s) // somebody deleted an exchange
		}
		_ = pause.For(ctx, wait.next())
	}
}

// serve offers the outlet until its channel closes, and returns why it closed.
func (p *publisher) serve(ctx context.Context, o *outlet, a *alarm) error {
	if !a.active {
		p.offer(o)
	}
	defer p.withdraw()
	for {
		select {
		case <-ctx.Done():
			return nil
		case b, ok := <-a.changes:
			switch {
			case !ok:
				a.changes = nil // the connection has ended; so will the channel
			case b.Active && !a.active:
				p.log.Warn("RabbitMQ blocked publishing: results wait until its alarm is over", "reason", b.Reason)
				a.active = true
				p.blocked.Store(true)
				p.withdraw()
			case !b.Active && a.active:
				p.log.Info("RabbitMQ unblocked publishing")
				a.active = false
				p.blocked.Store(false)
				p.offer(o)
			}
		case fault, ok := <-o.closed:
			if !ok {
				return nil
			}
			return fault
		}
	}
}

// explain logs why the channel closed. A lost connection is its link's to report.
func (p *publisher) explain(err error) {
	switch {
	case err == nil || errors.Is(err, amqp.ErrClosed):
	case isCode(err, amqp.AccessRefused) && strings.Contains(err.Error(), "amq.default"):
		p.log.Warn("RabbitMQ refused replies: reply_to is not served until the user may write to amq.default", keyErr, err)
		p.noReplies.Store(true)
	case isCode(err, amqp.AccessRefused), isCode(err, amqp.NotFound), isCode(err, amqp.PreconditionFailed):
		p.log.Error("RabbitMQ refused a publication", keyErr, err)
	default:
		p.log.Debug("lost the publishing channel", keyErr, err)
	}
}

func (p *publisher) offer(o *outlet) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cur = o
	close(p.up)
}

func (p *publisher) withdraw() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cur != nil {
		p.cur = nil
		p.up = make(chan struct{})
	}
}

func (p *publisher) finish() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.end = true
	close(p.up)
}

// outlet waits for a channel to publish on. lost may be nil.
func (p *publisher) outlet(ctx context.Context, lost <-chan struct{}) (*outlet, error) {
	for {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		p.mu.Lock()
		o, up, end := p.cur, p.up, p.end
		p.mu.Unlock()
		if o != nil {
			return o, nil
		}
		if end {
			return nil, queue.ErrClosed
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-lost:
			return nil, queue.ErrLost
		case <-up:
		}
	}
}

// publish sends all publications, then waits until each is confirmed, or is a reply that is not worth waiting for. It tries until ctx ends or lost is closed, and
// returns their error, or that the broker lacks what a publication needs and it may not be made.
func (p *publisher) publish(ctx context.Context, lost <-chan struct{}, all ...*publication) error {
	var replying sync.WaitGroup
	var notReplied error
	rest := make([]*publication, 0, len(all))
	for _, pub := range all {
		switch {
		case !pub.reply:
			rest = append(rest, pub)
		case !pub.done: // there is one at most
			replying.Go(func() { notReplied = p.reply(ctx, lost, pub) })
		}
	}
	err := p.publishAll(ctx, lost, rest)
	replying.Wait()
	if err != nil {
		return err
	}
	return notReplied
}

// publishAll is publish without replies.
func (p *publisher) publishAll(ctx context.Context, lost <-chan struct{}, all []*publication) error {
	var wait backoff
	for fruitless := 0; ; {
		o, err := p.outlet(ctx, lost)
		if err != nil {
			return err
		}
		sent := time.Now()
		for _, pub := range all {
			if !pub.done {
				if err := p.send(o, pub); err != nil {
					return err
				}
			}
		}
		left := 0
		for _, pub := range all {
			if pub.done {
				continue
			}
			result, err := o.await(ctx, lost, pub, p.limit, func() (on bool) { p.late(o, sent); return !pub.waits || p.blocked.Load() })
			if err != nil {
				return err
			}
			switch result {
			case arrived:
				pub.done = true
			case unroutable:
				fruitless++
				if err := pub.make(o.sess); err != nil && !o.sess.conn.IsClosed() {
					return err
				}
				left++
			case refusedByBroker:
				if pub.done = pub.many; !pub.done {
					p.log.Warn("RabbitMQ did not take a message, trying again", "exchange", pub.exchange, "key", pub.key, keyTask, pub.msg.MessageId)
					left++
				}
			case unknown:
				pub.doubt()
				left++
			case unanswered:
				p.topology.known.silent(pub.exchange)
				p.log.Warn("RabbitMQ did not take a message for a wait queue: such tasks wait in another one for now", keyQueue, pub.exchange,
					"remedy", leaderless(pub.exchange), keyTask, pub.msg.MessageId)
				return errMute
			}
		}
		if left == 0 {
			return nil
		}
		if fruitless > 5 {
			return fmt.Errorf("cannot publish to the exchange %s: no queue is bound under the key %q", all[0].exchange, all[0].key)
		}
		if err := sleepOr(ctx, lost, wait.next()); err != nil {
			return err
		}
	}
}

// late gives a connection up on which a message has waited for its confirm for long, though the broker has not said that it is short of something.
// Where that does not help, it is done more and more rarely: what one queue owes must not disturb all others.
func (p *publisher) late(o *outlet, sent time.Time) {
	p.mu.Lock()
	silence, since := time.Since(sent), time.Since(p.left)
	if since > 2*leaveMax {
		p.leave = 0
	}
	due := p.cur == o && silence >= p.limit && since >= p.leave
	if due {
		p.left, p.leave = time.Now(), min(max(2*p.leave, answerLimit), leaveMax)
	}
	p.mu.Unlock()
	if due {
		p.unanswered(o.sess, silence)
	}
}

// send publishes without waiting. An error is final; a channel that closed shows when the confirm is awaited.
func (p *publisher) send(o *outlet, pub *publication) error {
	pub.confirm = nil
	if pub.ahead != "" {
		if err := o.ahead(pub.ahead, pub.make); err != nil {
			if o.sess.conn.IsClosed() {
				return nil
			}
			return err
		}
	}
	if pub.make != nil {
		if dropped := fit(pub.msg.Headers); len(dropped) > 0 {
			p.log.Warn("dropped headers of a message: all together must fit into one frame", keyTask, pub.msg.MessageId, "headers", dropped)
		}
		pub.id = p.seq.Add(1)
		pub.msg.Headers[headerPublish] = pub.id
	}
	if err := pub.msg.Headers.Validate(); err != nil {
		return fmt.Errorf("cannot publish to the exchange %s: %w", pub.exchange, err)
	}
	if pub.msg.UserId != "" { // the broker refuses any but the connection's own
		pub.msg.UserId = o.sess.user
	}
	// What is valid fails only with the channel, perhaps before the channel knows: its fate is unknown.
	pub.confirm, _ = o.ch.PublishWithDeferredConfirm(pub.exchange, pub.key, pub.make != nil || pub.reply, false, pub.msg)
	return nil
}

// Publish stores m in the queue of its pool and band (normal where it names none); nil means that the broker has
// confirmed it. Where the pool's queues do not exist they are made, or the error says what is missing.
func (c *Client) Publish(ctx context.Context, m queue.Message) error {
	if err := checkPool(m.Pool); err != nil {
		return err
	}
	msg, err := encode(m, c.user)
	if err != nil {
		return err
	}
	return c.publish.publish(ctx, nil, c.toPool(m.Pool, m.Band, msg))
}

// toPool addresses a message to a pool's band.
func (c *Client) toPool(pool string, band queue.Band, msg amqp.Publishing) *publication {
	return &publication{
		exchange: tasksExchange, key: routingKey(pool, band), msg: msg,
		make: func(s *session) error { return c.topology.pool(s, pool) },
	}
}

// toDead addresses a message to the dead letters.
func (c *Client) toDead(msg amqp.Publishing) *publication {
	return &publication{exchange: dead, msg: msg, make: c.topology.graveyard}
}
