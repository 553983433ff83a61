package rabbit

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"go.uber.org/goleak"

	"github.com/mayfly/mayfly/integration/broker"
	"github.com/mayfly/mayfly/queue"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(broker.Main{M: m}) }

// patience bounds every wait of the tests: it is no expectation, only the end of a hang.
const patience = 60 * time.Second

// onAll runs a test against a shared broker of every version, each on a fresh virtual host.
func onAll(t *testing.T, f func(t *testing.T, b *broker.Broker, url string)) {
	t.Parallel()
	for _, v := range broker.Versions {
		t.Run(string(v), func(t *testing.T) {
			t.Parallel()
			b := broker.Shared(t, v)
			f(t, b, b.Vhost(t))
		})
	}
}

// journal collects log lines.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
	more chan struct{}
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.text.Write(p)
	signal(j.more)
	return len(p), nil
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

// await waits for a line that holds all parts.
func (j *journal) await(t *testing.T, parts ...string) string {
	t.Helper()
	limit := time.After(patience)
	for {
		for line := range strings.Lines(j.String()) {
			all := true
			for _, part := range parts {
				all = all && strings.Contains(line, part)
			}
			if all {
				return line
			}
		}
		select {
		case <-j.more:
		case <-limit:
			t.Fatalf("no log line with %q in:\n%s", parts, j)
		}
	}
}

func newJournal() (*journal, *slog.Logger) {
	j := &journal{more: make(chan struct{}, 1)}
	return j, slog.New(slog.NewTextHandler(j, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// dial makes a client for the test, with a journal of its log.
func dial(t *testing.T, c Config) (*Client, *journal) {
	t.Helper()
	j, log := newJournal()
	c.Log = log
	cl, err := Dial(within(t), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cl.Close()
		if t.Failed() {
			t.Logf("log:\n%s", j)
		}
	})
	return cl, j
}

// within returns a context that ends with the test's patience.
func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// channel opens a plain channel of the library: what a producer has.
func channel(t *testing.T, url string) *amqp.Channel {
	t.Helper()
	conn, err := amqp.Dial(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	return ch
}

func receive(t *testing.T, s queue.Source) queue.Delivery {
	t.Helper()
	d, err := s.Receive(within(t))
	if err != nil {
		if src, ok := s.(*source); ok {
			t.Log(src.tell(t.Context()))
		}
		t.Fatal(err)
	}
	return d
}

// tell describes the lanes and what waits in the broker: what an empty-handed source waits for.
func (s *source) tell(ctx context.Context) string {
	depth, err := s.client.Depth(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	text := fmt.Sprintf("demand %d, held %d, received %d, buffered %d, room %v since %v, over %v, waiting in the broker: %v, %v", s.demand, s.held, s.received, s.buffered, s.reg.room,
		time.Since(s.reg.roomSince), s.reg.over, depth, err)
	for _, l := range s.lanes {
		text += fmt.Sprintf("\n%s: narrowed %v, buffer %d, passed %d, retry in %v", l.queue, l.narrowed, len(l.buffer), l.passed, time.Until(l.retryAt))
		for _, ln := range l.lines {
			text += fmt.Sprintf(", a line with prefetch %d and %d unsettled", ln.prefetch, len(ln.unsettled))
		}
	}
	return text
}

func settle(t *testing.T, d queue.Delivery, v queue.Verdict) {
	t.Helper()
	if err := d.Settle(within(t), v, nil); err != nil {
		t.Fatal(err)
	}
}

func publish(t *testing.T, c *Client, m queue.Message) {
	t.Helper()
	if err := c.Publish(within(t), m); err != nil {
		t.Fatal(err)
	}
}

func awaitLost(t *testing.T, d queue.Delivery) {
	t.Helper()
	select {
	case <-d.Lost():
	case <-time.After(patience):
		t.Fatal("the delivery was not lost")
	}
}

// task is a message to the pool "p".
func task(n int) queue.Message {
	return queue.Message{Pool: "p", Band: queue.Normal, MessageID: fmt.Sprint("t", n), Body: fmt.Appendf(nil, `{"n":%d}`, n)}
}

func done(id string) queue.Verdict {
	return queue.Verdict{Action: queue.Done, Result: &queue.Result{ID: id, Pool: "p", State: queue.Succeeded, Cause: queue.CauseNone, Attempt: 1}}
}
