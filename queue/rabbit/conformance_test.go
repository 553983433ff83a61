package rabbit

import (
	"encoding/json"
	"fmt"
	"sync"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/mayfly/mayfly/integration/broker"
	"github.com/mayfly/mayfly/queue"
	"github.com/mayfly/mayfly/queue/queuetest"
)

// TestConformance runs the suite of all queues on every version.
func TestConformance(t *testing.T) {
	onAll(t, func(t *testing.T, b *broker.Broker, _ string) {
		queuetest.Run(t, func(t *testing.T) queuetest.Harness { return newHarness(t, b.Vhost(t)) })
	})
}

// harness is a virtual host: a client that publishes and reads, and one that receives.
type harness struct {
	*Client // publishes, and deals with the dead
	t       *testing.T
	url     string
	hosts   int

	mu       sync.Mutex
	receiver *Client
	results  []queue.Result
}

func newHarness(t *testing.T, url string) *harness {
	h := &harness{t: t, url: url}
	h.Client, _ = dial(t, Config{URLs: []string{url}, Pools: []string{queuetest.Pool}})
	ch := channel(t, url)
	if err := ch.ExchangeDeclare(resultsExchange, "topic", true, false, false, false, nil); err != nil {
		t.Fatal(err)
	}
	messages, err := listenFor(ch, "#")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for m := range messages {
			var r queue.Result
			if err := json.Unmarshal(m.Body, &r); err != nil {
				t.Errorf("result: %v", err)
			}
			h.mu.Lock()
			h.results = append(h.results, r)
			h.mu.Unlock()
		}
	}()
	return h
}

func (h *harness) Open() queue.Source {
	h.hosts++
	c, _ := dial(h.t, Config{URLs: []string{h.url}, Host: fmt.Sprint("host", h.hosts), Pools: []string{queuetest.Pool}})
	h.mu.Lock()
	defer h.mu.Unlock()
	h.receiver = c
	return c.Source()
}

// Break ends the receiver's connection.
func (h *harness) Break() {
	h.mu.Lock()
	c := h.receiver
	h.mu.Unlock()
	s, err := c.receive.session(within(h.t))
	if err != nil {
		h.t.Fatal(err)
	}
	_ = s.conn.Close()
}

func (h *harness) Results() []queue.Result {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]queue.Result{}, h.results...)
}

func (h *harness) Depth() int {
	depth, err := h.Client.Depth(within(h.t))
	if err != nil {
		h.t.Fatal(err)
	}
	n := 0
	for _, d := range depth {
		n += d
	}
	return n
}

// listenFor consumes what is published to the results' exchange under a key, by a queue that ends with its consumer.
func listenFor(ch *amqp.Channel, key string) (<-chan amqp.Delivery, error) {
	q, err := ch.QueueDeclare("", false, true, true, false, nil)
	if err != nil {
		return nil, err
	}
	if err := ch.QueueBind(q.Name, key, resultsExchange, false, nil); err != nil {
		return nil, err
	}
	return ch.Consume(q.Name, "", true, true, false, false, nil)
}
