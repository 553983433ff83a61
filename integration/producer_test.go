package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/mayfly/mayfly/queue"
)

// producer is a client of RabbitMQ that knows Mayfly's outside contract and nothing else: it publishes to mayfly.tasks and
// listens to mayfly.results and to a reply queue.
type producer struct {
	tb   testing.TB
	dial func(network, address string) (net.Conn, error) // nil is the usual one
	conn *amqp.Connection
	ch   *amqp.Channel
	// returned are the messages that no queue takes; sending is held while one is sent, so that they belong to it.
	returned chan amqp.Return
	sending  sync.Mutex

	mu      sync.Mutex
	results map[string][]queue.Result // by task id, as they came
	came    chan struct{}             // closed at each arrival
	total   int
}

// newProducer connects, and binds a durable queue to all results, which outlives a restart of the broker.
func newProducer(tb testing.TB, url string) *producer {
	tb.Helper()
	return newProducerBy(tb, url, nil)
}

// newProducerBy is newProducer for one who dials in a way of its own.
func newProducerBy(tb testing.TB, url string, dial func(network, address string) (net.Conn, error)) *producer {
	tb.Helper()
	p := &producer{tb: tb, dial: dial, results: map[string][]queue.Result{}, came: make(chan struct{})}
	p.connect(url)
	tb.Cleanup(func() { p.conn.Close() })
	return p
}

// connect (again) opens the connection and consumes the results.
func (p *producer) connect(url string) {
	p.tb.Helper()
	var err error
	for limit := time.Now().Add(patienceLimit); ; time.Sleep(50 * time.Millisecond) {
		if p.conn, err = amqp.DialConfig(url, amqp.Config{Locale: "en_US", Dial: p.dial}); err == nil {
			break
		}
		if time.Now().After(limit) {
			p.tb.Fatal(err)
		}
	}
	must := func(err error) {
		if err != nil {
			p.tb.Fatal(err)
		}
	}
	p.ch, err = p.conn.Channel()
	must(err)
	must(p.ch.Confirm(false))
	p.returned = p.ch.NotifyReturn(make(chan amqp.Return, 100))
	must(p.ch.ExchangeDeclare("mayfly.results", "topic", true, false, false, false, nil))
	_, err = p.ch.QueueDeclare("test.results", true, false, false, false, amqp.Table{"x-queue-type": "quorum"})
	must(err)
	must(p.ch.QueueBind("test.results", "#", "mayfly.results", false, nil))
	results, err := p.ch.Consume("test.results", "", false, false, false, false, nil)
	must(err)
	go func() {
		for d := range results {
			p.arrived(d)
		}
	}()
}

func (p *producer) arrived(d amqp.Delivery) {
	var r queue.Result
	if err := json.Unmarshal(d.Body, &r); err != nil {
		p.tb.Errorf("a result is no JSON: %v: %s", err, d.Body)
	}
	if want := r.Pool + "." + r.ID; d.RoutingKey != want {
		p.tb.Errorf("routing key %q of a result, want %q", d.RoutingKey, want)
	}
	p.mu.Lock()
	p.results[r.ID] = append(p.results[r.ID], r)
	p.total++
	close(p.came)
	p.came = make(chan struct{})
	p.mu.Unlock()
	d.Ack(false)
}

// publish sends a task document, confirmed. A host that is starting may not have made its queues yet: then it is sent again.
func (p *producer) publish(key, body string) { p.publishWith(key, amqp.Publishing{Body: []byte(body)}) }

// publishID sends a task with a message id.
func (p *producer) publishID(key, id string, body []byte) {
	p.tb.Helper()
	p.publishWith(key, amqp.Publishing{MessageId: id, Body: body})
}

func (p *producer) publishWith(key string, m amqp.Publishing) {
	p.tb.Helper()
	p.sending.Lock()
	defer p.sending.Unlock()
	m.DeliveryMode = amqp.Persistent
	for limit := time.Now().Add(patienceLimit); ; time.Sleep(20 * time.Millisecond) { // nobody tells a producer of a queue
		p.confirmed(key, m)
		select { // what no queue takes comes back before it is confirmed
		case r := <-p.returned:
			if time.Now().After(limit) {
				p.tb.Fatalf("no queue takes a task for %s: %s", key, r.ReplyText)
			}
		default:
			return
		}
	}
}

// confirmed publishes a message once and returns when the broker has confirmed it.
func (p *producer) confirmed(key string, m amqp.Publishing) {
	p.tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patienceLimit)
	defer cancel()
	c, err := p.ch.PublishWithDeferredConfirmWithContext(ctx, "mayfly.tasks", key, true, false, m)
	if err != nil {
		p.tb.Fatal(err)
	}
	if ok, err := c.WaitContext(ctx); err != nil || !ok {
		p.tb.Fatalf("not confirmed: %v", err)
	}
}

// wait returns the first result of a task.
func (p *producer) wait(id string) queue.Result {
	p.tb.Helper()
	p.waitFor(fmt.Sprintf("result of %s", id), func() bool { return len(p.results[id]) > 0 })
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.results[id][0]
}

// waitFor waits for a condition on the results, which is called with the lock held.
func (p *producer) waitFor(what string, ok func() bool) {
	p.tb.Helper()
	limit := time.After(3 * patienceLimit)
	for {
		p.mu.Lock()
		done, came, total := ok(), p.came, p.total
		p.mu.Unlock()
		if done {
			return
		}
		select {
		case <-came:
		case <-limit:
			p.tb.Fatalf("waited in vain for %s; %d results came", what, total)
		}
	}
}

// once checks that each of the tasks has exactly one result, and returns them.
func (p *producer) once(ids []string) map[string]queue.Result {
	p.tb.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	all := map[string]queue.Result{}
	for _, id := range ids {
		if n := len(p.results[id]); n != 1 {
			p.tb.Errorf("task %s has %d results, want one", id, n)
			continue
		}
		all[id] = p.results[id][0]
	}
	return all
}

// depth is the number of messages in a queue, ready ones only; -1 where there is no such queue.
func (p *producer) depth(name string) int {
	p.tb.Helper()
	ch, err := p.conn.Channel()
	if err != nil {
		p.tb.Fatal(err)
	}
	defer ch.Close()
	q, err := ch.QueueDeclarePassive(name, true, false, false, false, nil)
	if err != nil {
		return -1
	}
	return q.Messages
}
