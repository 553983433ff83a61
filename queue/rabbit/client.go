package rabbit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/mayfly/mayfly/queue"
)

// Client is a host's or a program's way to RabbitMQ. It implements [queue.Publisher] and [queue.Cemetery]; all methods may
// be called from many goroutines at once.
type Client struct {
	host      string
	pools     []string
	user      string // by which the first URL logs in
	log       *slog.Logger
	topology  *topology
	receive   *link
	publish   *publisher
	source    *source
	announcer *announcer
	cancels   chan queue.Cancellation
	replies   chan queue.Result
	questions chan queue.Question
	offers    chan queue.Offer
	hellos    chan queue.Hello
	joined    chan struct{}
	given     given
	owned     owned
	waking    sync.Mutex
	address   atomic.Value // the name of the control queue that replies come by, once there is one
	hearing   hearing
	pulsing   atomic.Int64 // when the pulse was sent that is not yet confirmed, in nanoseconds of the Unix epoch; 0 where there is none
	burials   sync.Mutex   // one reader of the dead letters at a time: what one holds, another would not see

	stop context.CancelFunc
	wg   sync.WaitGroup

	mu    sync.Mutex
	state state
}

// state is what State tells.
type state struct {
	version string
	addr    string
	up      map[string]bool // by role
	since   time.Time       // when the first link went down
	reason  error
	heard   time.Time // until when the last connection that deliveries come by was heard that is no more
	again   uint64    // how often the broker was reached after it had been out of reach
}

// hearing is what [Client.hear] keeps from one connection to the next; its own.
type hearing struct {
	read     time.Time // of when the last cancellation was that was read in its turn
	deaf     string    // why they are not heard, as it was reported
	taken    time.Time // since when another connection has had the host's control queue; zero while none has
	reported bool      // that it has had it for long
}

// The roles of the two links.
const (
	roleReceive = "receive"
	rolePublish = "publish"
)

// Dial makes a client. Where the broker is out of reach it still returns one, which keeps trying; a broker that refuses
// the credentials, the virtual host or the certificate is an error. The error never holds a password. ctx bounds only
// Dial itself.
func Dial(ctx context.Context, c Config) (*Client, error) {
	endpoints, t, err := c.parse()
	if err != nil {
		return nil, err
	}
	d := &dialer{endpoints: endpoints, tls: t, host: c.Host}
	cl := &Client{host: c.Host, pools: c.Pools, log: c.Log, cancels: make(chan queue.Cancellation, 64), replies: make(chan queue.Result, 64),
		questions: make(chan queue.Question, 64), offers: make(chan queue.Offer, 64), hellos: make(chan queue.Hello, 64), joined: make(chan struct{}, 1), given: given{when: map[[16]byte]gift{}},
		owned: owned{changed: make(chan struct{}, 1), here: map[fingerprint]bool{}}}
	cl.user = endpoints[0].user
	cl.state.addr = endpoints[0].addr
	cl.state.up = map[string]bool{}
	cl.topology = &topology{mode: c.Declare, pools: c.Pools, pulse: c.Host != "" && len(endpoints) > 1, log: c.Log, known: newKnown()}
	cl.receive = newLink(roleReceive, d)
	cl.receive.prepare, cl.receive.report = cl.topology.prepare, cl.report
	sending := newLink(rolePublish, d)
	sending.prepare, sending.report = func(context.Context, *session) error { return nil }, cl.report
	cl.publish = newPublisher(sending, cl.topology, c.Log)
	cl.publish.unanswered = cl.unanswered
	cl.source, cl.announcer = newSource(cl), newAnnouncer()

	first, addr, err := cl.receive.connect(ctx)
	var no refused
	if errors.As(err, &no) {
		return nil, no.error
	}
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		cl.report(roleReceive, nil, addr, err)
	}
	run, stop := context.WithCancel(context.Background())
	cl.stop = stop
	cl.wg.Go(func() { cl.receive.run(run, first, addr) })
	cl.wg.Go(func() { sending.run(run, nil, addr) })
	cl.wg.Go(func() { cl.publish.run(run) })
	cl.wg.Go(func() { cl.source.run(run) })
	if c.Host != "" {
		cl.wg.Go(func() { cl.hear(run) })
		cl.wg.Go(func() { cl.announce(run) })
		if cl.topology.pulse {
			cl.wg.Go(func() { cl.pulse(run) })
		}
	}
	return cl, nil
}

// unanswered leaves a node that does not confirm.
func (c *Client) unanswered(s *session, silence time.Duration) {
	cause := fmt.Errorf("RabbitMQ at %s has not confirmed a message for %s", s.addr, silence.Round(time.Second))
	s.giveUp(cause)
	c.leaveNode(s.addr, cause)
}

// leaveNode goes on to the next node with both links, where there is another one.
func (c *Client) leaveNode(addr string, cause error) {
	d := c.receive.dialer
	if len(d.endpoints) == 1 {
		return
	}
	d.avoid(addr)
	for _, l := range []*link{c.receive, c.publish.link} {
		l.mu.Lock()
		s := l.cur
		l.mu.Unlock()
		if s != nil && s.addr == addr {
			s.giveUp(cause)
		}
	}
}

// Close ends the client: its source's deliveries are delivered again later, and what is being published may or may not
// arrive. It returns when nothing runs any more.
func (c *Client) Close() error {
	impatience := time.AfterFunc(closeLimit, c.stop) // the broker may owe an answer, and never give it
	_ = c.source.Close()
	impatience.Stop()
	c.stop()
	c.wg.Wait()
	return nil
}

// Source returns the source of the client's pools; always the same one.
func (c *Client) Source() queue.Source { return c.source }

// Heard says when the broker was last heard and did what it was asked for; long ago before the first time. What it says to a connection by which it gives us nothing, or not yet,
// such as that it refuses us, does not count: our deliveries may be another host's meanwhile.
func (c *Client) Heard() time.Time {
	heard := time.Unix(0, c.receive.dialer.heard.Load())
	c.mu.Lock()
	if !c.state.up[roleReceive] {
		heard = c.state.heard
	}
	c.mu.Unlock()
	if owed := c.unconfirmed(); !owed.IsZero() && owed.Before(heard) {
		return owed
	}
	return heard
}

// Prove asks the broker something and returns nil when it has answered by the connection that deliveries come by: they were still ours when it did.
func (c *Client) Prove(ctx context.Context) error {
	s, err := c.receive.session(ctx)
	if err != nil {
		return err
	}
	answered := make(chan error, 1)
	c.wg.Go(func() { answered <- attempt(s, func(*amqp.Channel) error { return nil }) }) // for as long as the connection lives
	select {
	case err := <-answered:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// State says in one line which broker this is and whether it is in reach.
func (c *Client) State() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	name := "RabbitMQ"
	if c.state.version != "" {
		name += " " + c.state.version
	}
	name += " at " + c.state.addr
	switch {
	case c.state.up[roleReceive] && c.state.up[rolePublish]:
		return name + ", connected"
	case c.state.reason == nil:
		return name + ", connecting"
	default:
		return fmt.Sprintf("%s, out of reach since %s: %v", name, c.state.since.Format(time.RFC3339), c.state.reason)
	}
}

// version returns the broker's version, or "" before the first connection.
func (c *Client) version() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state.version
}

// Connection says whether the broker is in reach, and how often it was reached after it had been out of reach.
func (c *Client) Connection() (up bool, reconnects uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state.up[roleReceive] && c.state.up[rolePublish], c.state.again
}

// report notes the change of a link and logs when the broker as a whole is lost or reached: s is the new connection, or
// nil with the reason of its loss.
func (c *Client) report(role string, s *session, addr string, err error) {
	if isCode(err, amqp.InternalError) { // such as that it cannot store what takes most nodes of its cluster
		c.leaveNode(addr, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	st := &c.state
	st.addr = addr
	if s == nil {
		if err == nil {
			return // closed by us
		}
		if role == roleReceive && st.up[role] {
			st.heard = time.Unix(0, c.receive.dialer.heard.Load())
		}
		st.up[role] = false
		if st.reason == nil {
			st.since = time.Now()
			what := "lost RabbitMQ, trying again"
			if st.version == "" {
				what = "could not reach RabbitMQ, trying again"
			}
			c.log.Warn(what, "addr", addr, keyErr, err)
		} else {
			c.log.Debug("still out of reach of RabbitMQ", "addr", addr, keyErr, err)
		}
		st.reason = err
		return
	}
	st.version, _ = s.conn.Properties["version"].(string)
	st.up[role] = true
	if !st.up[roleReceive] || !st.up[rolePublish] {
		return
	}
	if st.reason != nil {
		st.again++
		c.log.Info("reached RabbitMQ", "addr", addr, "version", st.version, "after", time.Since(st.since).Round(time.Millisecond))
	} else {
		c.log.Info("connected to RabbitMQ", "addr", addr, "version", st.version)
	}
	st.reason = nil
}
