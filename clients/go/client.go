package mayfly

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// What a caller may want to tell apart.
var (
	// ErrClosed says that the client was closed.
	ErrClosed = errors.New("the client is closed")
	// ErrNoPool says that no queue takes the task: no host has ever served its pool in this virtual host.
	ErrNoPool = errors.New("no host has ever served its pool in this virtual host")
	// ErrNoHost says that no host has ever been there that could hear of a cancellation.
	ErrNoHost = errors.New("no host has ever served this virtual host")
	// ErrResultLost says that the client's reply queue was gone when the client came back: the result of the task may have
	// been lost with it, or the task may still run.
	ErrResultLost = errors.New("the queue for its result was gone when the broker was back: the result may be lost")
)

const (
	tasksExchange   = "mayfly.tasks"
	controlExchange = "mayfly.control"
	cancelKey       = "cancel"
	jsonType        = "application/json"
)

// The waits between two tries to connect, and to publish what the broker had no room for.
const (
	backoffMin = 100 * time.Millisecond
	backoffMax = 3 * time.Second
)

// Client submits tasks and receives their results by one connection, which it makes anew after each loss. All methods may be
// called from many goroutines at once.
type Client struct {
	dialer *dialer
	queue  queue
	signer *signer
	ctx    context.Context // ends with Close
	stop   context.CancelFunc
	ended  chan struct{} // closed when run has returned

	mu      sync.Mutex
	pending map[string]*Handle // submitted and not ended, by correlation id
	cur     *session
	up      chan struct{} // closed while cur is set
	why     error         // why there is no connection
	losses  int           // how often the reply queue was gone
}

// Option changes how a client connects.
type Option func(*settings)

type settings struct {
	tls    *tls.Config
	expiry time.Duration
	signer *signer
}

// WithTLS sets the TLS configuration for an amqps URL; without it, the system's authorities vouch for the broker. Where the
// configuration has a certificate and the URL no user, the certificate says who the client is (EXTERNAL).
func WithTLS(config *tls.Config) Option { return func(s *settings) { s.tls = config } }

// WithReplyExpiry sets how long the broker keeps the client's results while the client is away; an hour by default, at least
// a second.
func WithReplyExpiry(d time.Duration) Option { return func(s *settings) { s.expiry = d } }

// Dial connects to RabbitMQ at an amqp or amqps URL, or at one of several with commas in between: the nodes of a cluster. ctx bounds only Dial itself; the client lives until Close. No error
// holds the URL's password.
func Dial(ctx context.Context, url string, options ...Option) (*Client, error) {
	s := settings{expiry: time.Hour}
	for _, option := range options {
		option(&s)
	}
	if s.expiry < time.Second {
		return nil, fmt.Errorf("cannot keep results for %s only: give at least a second", s.expiry)
	}
	if err := s.signer.check(); err != nil {
		return nil, err
	}
	d, err := newDialer(url, s.tls)
	if err != nil {
		return nil, err
	}
	c := &Client{dialer: d, queue: queue{"mayfly.reply." + rand.Text(), s.expiry}, signer: s.signer, ended: make(chan struct{}),
		pending: map[string]*Handle{}, up: make(chan struct{})}
	first, _, err := c.open(ctx, false)
	if err != nil {
		return nil, err
	}
	c.ctx, c.stop = context.WithCancel(context.Background())
	c.offer(first)
	go c.run(first)
	return c, nil
}

// Submit stores the task in its pool's queue: nil means that the broker has confirmed it. While the broker is out of reach, or
// has no room, it waits. Where ctx ends first, the task may or may not have been stored.
func (c *Client) Submit(ctx context.Context, task Task) (*Handle, error) {
	if task.ID == "" {
		task.ID = rand.Text()
	}
	body, err := task.encode()
	var headers amqp.Table
	if err == nil {
		headers, err = task.table()
	}
	if err != nil {
		return nil, fmt.Errorf("cannot submit task %.128q: %w", task.ID, err)
	}
	h := &Handle{ID: task.ID, client: c, done: make(chan struct{})}
	key := rand.Text() // an id may be submitted twice
	c.mu.Lock()
	c.pending[key] = h
	c.mu.Unlock()
	losses, err := c.publish(ctx, tasksExchange, task.routingKey(), amqp.Publishing{
		ContentType: jsonType, DeliveryMode: amqp.Persistent, MessageId: task.ID, CorrelationId: key, ReplyTo: c.queue.name,
		Timestamp: time.Now(), Headers: c.signer.sign(headers, body), Body: body,
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		delete(c.pending, key)
		if errors.Is(err, errUnroutable) {
			err = fmt.Errorf("%w: %q", ErrNoPool, task.routingKey())
		}
		return nil, fmt.Errorf("cannot submit task %s: %w", task.ID, err)
	}
	h.stored = true
	if losses < c.losses && c.pending[key] == h { // meanwhile
		delete(c.pending, key)
		h.end(Result{}, ErrResultLost)
	}
	return h, nil
}

// Cancel asks all hosts to cancel a task: nil means that the broker keeps the request for a day, also for hosts that are away. What
// comes of it the result says, as always: Cancelled, or how the task ended before. A host that holds the task stops it; one that
// meets it within that day settles it without running it.
func (c *Client) Cancel(ctx context.Context, id string) error {
	body, err := json.Marshal(map[string]string{"cancel": id})
	if err == nil {
		_, err = c.publish(ctx, controlExchange, cancelKey, amqp.Publishing{ContentType: jsonType, Timestamp: time.Now(), Body: body})
	}
	if errors.Is(err, errUnroutable) {
		err = ErrNoHost
	}
	if err != nil {
		return fmt.Errorf("cannot cancel task %s: %w", id, err)
	}
	return nil
}

// Close ends the client and removes its reply queue: Wait returns ErrClosed for tasks without a result, which run all the
// same. It returns when nothing runs any more.
func (c *Client) Close() {
	c.stop()
	<-c.ended
}

// publish publishes a message, and waits until it is confirmed. It tries until ctx or the client ends: what the loss of a
// connection leaves unknown is published again, and what the broker has no room for, too. losses is the client's when the
// confirming connection was made.
func (c *Client) publish(ctx context.Context, exchange, key string, m amqp.Publishing) (losses int, err error) {
	var fault error // of the last try
	for wait := backoffMin; ; wait = min(2*wait, backoffMax) {
		s, err := c.session(ctx)
		if err == nil {
			losses, err = s.losses, s.publish(ctx, exchange, key, m)
		}
		var pause <-chan time.Time
		switch {
		case errors.Is(err, errRefused):
			fault, pause = err, time.After(wait)
		case errors.Is(err, errUnknown):
			fault = err
		case err != nil && errors.Is(err, ctx.Err()):
			return 0, c.explain(ctx, fault)
		default:
			return losses, err
		}
		select {
		case <-pause:
		case <-s.gone:
		case <-ctx.Done():
			return 0, c.explain(ctx, fault)
		}
	}
}

// session returns the connection, waiting for one where there is none.
func (c *Client) session(ctx context.Context) (*session, error) {
	for {
		c.mu.Lock()
		s, up := c.cur, c.up
		c.mu.Unlock()
		switch {
		case c.ctx.Err() != nil:
			return nil, ErrClosed
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case s != nil:
			return s, nil
		}
		select {
		case <-up:
		case <-ctx.Done():
		case <-c.ctx.Done():
		}
	}
}

// explain is ctx's error, and what was in the way: the connection, or else the fault.
func (c *Client) explain(ctx context.Context, fault error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	why := c.why
	if c.cur != nil {
		why = c.cur.blocked()
	}
	if why == nil {
		why = fault
	}
	if why == nil {
		return ctx.Err()
	}
	return fmt.Errorf("%w (%s)", ctx.Err(), why.Error())
}

// run serves one connection after the other until the client is closed.
func (c *Client) run(s *session) {
	defer close(c.ended)
	defer c.abandon(ErrClosed, func(*Handle) bool { return true })
	wait := backoffMin
	for s != nil {
		began := time.Now()
		err := c.serve(s)
		if c.ctx.Err() != nil {
			s.remove(c.queue)
		}
		c.withdraw(s, err)
		wait = max(backoffMin, wait-time.Since(began)) // it may be ours what ends connections
		if s = c.reconnect(&wait); s != nil {
			c.offer(s)
		}
	}
}

// serve receives results until the connection or the client ends, and returns why the connection did.
func (c *Client) serve(s *session) error {
	for {
		select {
		case <-c.ctx.Done():
			return nil
		case d, ok := <-s.results:
			if !ok {
				return s.cause()
			}
			c.arrived(d)
			_ = d.Ack(false) // where the connection is lost, it comes again and nobody waits for it
		}
	}
}

// arrived ends the handle that a result is for.
func (c *Client) arrived(d amqp.Delivery) {
	c.mu.Lock()
	h := c.pending[d.CorrelationId]
	delete(c.pending, d.CorrelationId)
	c.mu.Unlock()
	if h == nil {
		return // published twice, or Submit gave up
	}
	var r Result
	err := json.Unmarshal(d.Body, &r)
	if err != nil {
		err = fmt.Errorf("its result cannot be read: %w", err)
	}
	h.end(r, err)
}

// abandon ends the handles that are to be ended with the error.
func (c *Client) abandon(err error, which func(*Handle) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for key, h := range c.pending {
		if which(h) {
			delete(c.pending, key)
			h.end(Result{}, err)
		}
	}
}

// reconnect makes a new connection, after a wait that grows; nil when the client was closed.
func (c *Client) reconnect(wait *time.Duration) *session {
	for {
		select {
		case <-c.ctx.Done():
			return nil
		case <-time.After(*wait/2 + mathrand.N(*wait/2)): // clients of one broker spread out
		}
		*wait = min(2**wait, backoffMax)
		s, renewed, err := c.open(c.ctx, true)
		if err != nil {
			c.mu.Lock()
			c.why = err
			c.mu.Unlock()
			continue
		}
		if renewed { // a task that is still being submitted will be published with the new queue
			c.mu.Lock()
			c.losses++
			c.mu.Unlock()
			c.abandon(ErrResultLost, func(h *Handle) bool { return h.stored })
		}
		return s
	}
}

// offer makes the connection that of all calls.
func (c *Client) offer(s *session) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s.losses = c.losses
	c.cur, c.why = s, nil
	close(c.up)
}

// withdraw ends the connection.
func (c *Client) withdraw(s *session, why error) {
	c.mu.Lock()
	c.cur, c.why = nil, why
	c.up = make(chan struct{})
	c.mu.Unlock()
	s.close()
}
