package mayfly_test

import (
	"context"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"go.uber.org/goleak"

	mayfly "github.com/mayfly/mayfly/clients/go"
	"github.com/mayfly/mayfly/integration/broker"
	"github.com/mayfly/mayfly/queue"
	"github.com/mayfly/mayfly/queue/rabbit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(broker.Main{M: m}) }

// patience bounds every wait of the tests: it is no expectation, only the end of a hang.
const patience = 90 * time.Second

// within returns a context that ends with the test's patience.
func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// onAll runs a test against a shared broker of every version, each on a fresh virtual host.
func onAll(t *testing.T, f func(t *testing.T, url string)) {
	t.Parallel()
	for _, v := range broker.Versions {
		t.Run(string(v), func(t *testing.T) {
			t.Parallel()
			f(t, broker.Shared(t, v).Vhost(t))
		})
	}
}

// one returns a fresh virtual host of one version, for what does not depend on it.
func one(t *testing.T) string {
	t.Helper()
	t.Parallel()
	return broker.Shared(t, broker.V43).Vhost(t)
}

// host is the broker side of a real host, without a manager: the test runs its tasks.
type host struct {
	t *testing.T
	*rabbit.Client
}

func newHost(t *testing.T, url string, pools ...string) host {
	t.Helper()
	cl, err := rabbit.Dial(within(t), rabbit.Config{URLs: []string{url}, Host: "h", Pools: pools, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cl.Close() })
	cl.Source().Demand(1000)
	until(t, "the host has made its queues", func() bool { return strings.HasSuffix(cl.State(), ", connected") })
	return host{t, cl}
}

func (h host) receive() queue.Delivery {
	h.t.Helper()
	d, err := h.Source().Receive(within(h.t))
	if err != nil {
		h.t.Fatal(err)
	}
	return d
}

// end settles a delivery with a result whose message is given.
func (h host) end(d queue.Delivery, message string) {
	h.t.Helper()
	task, err := queue.Decode(d.Message())
	if err != nil {
		h.t.Error(err)
		return
	}
	r := queue.Result{ID: task.ID, Pool: task.Pool, State: queue.Succeeded, Cause: queue.CauseNone, Attempt: 1, Message: message, ExitCode: new(0),
		Attempts: []queue.Past{}, Host: "h", GPUs: []string{}}
	if err := d.Settle(within(h.t), queue.Verdict{Action: queue.Done, Result: &r}, nil); err != nil {
		h.t.Error(err)
	}
}

func dial(t *testing.T, url string, options ...mayfly.Option) *mayfly.Client {
	t.Helper()
	cl, err := mayfly.Dial(within(t), url, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

func submit(t *testing.T, cl *mayfly.Client, task mayfly.Task) *mayfly.Handle {
	t.Helper()
	h, err := cl.Submit(within(t), task)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func wait(t *testing.T, h *mayfly.Handle) mayfly.Result {
	t.Helper()
	r, err := h.Wait(within(t))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// say is a task whose id is its only content.
func say(id string) mayfly.Task { return mayfly.Task{ID: id, Command: []string{"true"}} }

// channel opens a plain channel of the library.
func channel(t *testing.T, url string) *amqp.Channel {
	t.Helper()
	conn, err := amqp.Dial(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	return ch
}

// exists reports whether there is a queue of the name.
func exists(t *testing.T, url, name string) bool {
	t.Helper()
	_, err := channel(t, url).QueueDeclarePassive(name, true, false, false, false, nil)
	return err == nil
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for limit := time.Now().Add(patience); !ok(); {
		if time.Now().After(limit) {
			t.Fatalf("waited in vain until %s", what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// line is a way to the broker that the test can cut.
type line struct {
	t    *testing.T
	to   string
	l    net.Listener
	url  string
	wg   sync.WaitGroup
	mu   sync.Mutex
	dead bool // new connections are refused
	deaf bool // what the broker says is lost
	all  map[net.Conn]bool
}

// through makes a line to the broker's URL.
func through(t *testing.T, url string) *line {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := url[strings.IndexByte(url, '@')+1 : strings.LastIndexByte(url, '/')]
	p := &line{t: t, to: addr, l: l, url: strings.Replace(url, addr, l.Addr().String(), 1), all: map[net.Conn]bool{}}
	p.wg.Go(p.serve)
	t.Cleanup(func() {
		l.Close()
		p.cut()
		p.wg.Wait()
	})
	return p
}

func (p *line) serve() {
	for {
		near, err := p.l.Accept()
		if err != nil {
			return
		}
		far, err := net.Dial("tcp", p.to)
		if err != nil {
			near.Close()
			continue
		}
		p.mu.Lock()
		if p.dead {
			near.Close()
			far.Close()
			p.mu.Unlock()
			continue
		}
		p.all[near], p.all[far] = true, true
		p.mu.Unlock()
		p.wg.Go(func() { io.Copy(far, near); far.Close() })
		p.wg.Go(func() { p.tell(near, far); near.Close() })
	}
}

// tell passes on what the broker says, unless the line is deaf.
func (p *line) tell(near, far net.Conn) {
	buffer := make([]byte, 64<<10)
	for {
		n, err := far.Read(buffer)
		if err != nil {
			return
		}
		p.mu.Lock()
		deaf := p.deaf
		p.mu.Unlock()
		if deaf {
			continue
		}
		if _, err := near.Write(buffer[:n]); err != nil {
			return
		}
	}
}

// cut ends all connections, and refuses new ones until mend.
func (p *line) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dead, p.deaf = true, false
	for c := range p.all {
		c.Close()
		delete(p.all, c)
	}
}

func (p *line) mend() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dead = false
}

func (p *line) deafen() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.deaf = true
}
