package rabbit

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/mayfly/mayfly/integration/broker"
	"github.com/mayfly/mayfly/queue"
)

// settleMany publishes n tasks with their reply addresses, settles them together, and returns the longest time that this took.
func settleMany(t *testing.T, cl *Client, n int, replyTo func(int) string) time.Duration {
	t.Helper()
	var mu sync.Mutex
	var all sync.WaitGroup
	var longest time.Duration
	for i := range n {
		m := task(i)
		m.ReplyTo = replyTo(i)
		publish(t, cl, m)
	}
	for range n {
		d := receive(t, cl.Source())
		all.Go(func() {
			began := time.Now()
			if err := d.Settle(within(t), done(d.Message().MessageID), nil); err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			longest = max(longest, time.Since(began))
		})
	}
	all.Wait()
	return longest
}

func to(name string) func(int) string { return func(int) string { return name } }

// awaitGood waits until a queue is waited for again that was not, which takes a reply that it confirms.
func awaitGood(t *testing.T, cl *Client, name string) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		r := &cl.publish.replies
		r.mu.Lock()
		good := r.lanes[name] != nil && !r.lanes[name].bad && r.lanes[name].owed == 0
		r.mu.Unlock()
		if good {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("it is not waited for again")
		}
	}
}

// A producer's queue that is without a leader confirms nothing. Its tasks are settled all the same after a while, nobody else's wait for it, and once it has one again, its replies are
// waited for.
func TestReplyNotConfirmed(t *testing.T) {
	onAll(t, func(t *testing.T, b *broker.Broker, url string) {
		for _, known := range []bool{true, false} { // to the channel by which replies go there
			cl, log := dial(t, Config{URLs: []string{url}, Host: "h", Pools: []string{"p"}})
			cl.publish.replyLimit = time.Second
			cl.Source().Demand(100)
			ch := channel(t, url)
			name := fmt.Sprint("replies-", known)
			if _, err := ch.QueueDeclare(name, true, false, false, false, amqp.Table{"x-queue-type": "quorum"}); err != nil {
				t.Fatal(err)
			}
			// The process that is the queue stands still, as it does without a majority.
			eval := func(do string) {
				t.Helper()
				if out, err := b.Eval(fmt.Sprintf("sys:%s('%s_%s').", do, broker.VhostName(url), name)); err != nil || !strings.Contains(out, "ok") {
					t.Fatal(out, err)
				}
			}
			if known {
				settleMany(t, cl, 10, to(name))
			}
			eval("suspend")
			if took := settleMany(t, cl, 100, to(name)); took < 2*cl.publish.replyLimit || took > 15*time.Second {
				t.Errorf("replies are given up after %s", took)
			}
			log.await(t, "level=WARN", "reply not waited for", "queue="+name)
			for i := range 6 { // more than the broker takes from a connection of which a queue owes too much
				if took := settleMany(t, cl, 100, func(i int) string { return []string{name, ""}[i%2] }); took > 10*time.Second {
					t.Errorf("round %d: a queue that confirms nothing is waited for: %s", i, took)
				}
			}
			if strings.Contains(log.String(), "lost RabbitMQ") {
				t.Error("the connection is given up for it")
			}
			eval("resume")
			awaitGood(t, cl, name)
			if _, err := ch.QueuePurge(name, false); err != nil {
				t.Fatal(err)
			}
			settleMany(t, cl, 60, to(name))
			if q, err := ch.QueueDeclarePassive(name, true, false, false, false, nil); err != nil || q.Messages != 60 {
				t.Errorf("%d replies came, %v", q.Messages, err)
			}
			_ = cl.Close()
		}
	})
}

// A producer's queue that is full holds its tasks up for a while only; and what is said to all hosts need not reach each.
func TestRefusedByOne(t *testing.T) {
	t.Parallel()
	url := broker.Shared(t, broker.V40).Vhost(t)
	cl, log := dial(t, Config{URLs: []string{url}, Host: "h", Pools: []string{"p"}})
	cl.publish.replyLimit = time.Second
	cl.Source().Demand(100)
	publish(t, cl, task(0))
	settle(t, receive(t, cl.Source()), done("t0"))
	ch := channel(t, url)
	if _, err := ch.QueueDeclare("full", true, false, false, false, amqp.Table{"x-max-length": int64(1), "x-overflow": "reject-publish"}); err != nil {
		t.Fatal(err)
	}
	if err := ch.QueueBind("full", toHostPrefix+"o", controlExchange, false, nil); err != nil {
		t.Fatal(err)
	}
	if took := settleMany(t, cl, 1, to("full")); took > cl.publish.replyLimit {
		t.Errorf("a reply takes %s", took)
	}
	if took := settleMany(t, cl, 20, to("full")); took < cl.publish.replyLimit {
		t.Errorf("a reply is given up after %s", took)
	}
	log.await(t, "level=WARN", "reply not waited for", "queue=full")
	if took := settleMany(t, cl, 20, to("full")); took > cl.publish.replyLimit {
		t.Errorf("a full queue is waited for: %s", took)
	}
	began := time.Now()
	if err := cl.Ask(within(t), queue.Question{ID: "1", Pool: "p"}, "o"); err != nil || time.Since(began) > 10*time.Second {
		t.Errorf("a question that one queue does not take: %v after %s", err, time.Since(began))
	}
	if _, err := ch.QueuePurge("full", false); err != nil {
		t.Fatal(err)
	}
	settleMany(t, cl, 1, to("full"))
	awaitGood(t, cl, "full")
}

// The channel to a queue that nobody replies to any more is closed.
func TestReplyIdle(t *testing.T) {
	t.Parallel()
	url := broker.Shared(t, broker.V43).Vhost(t)
	cl, _ := dial(t, Config{URLs: []string{url}, Pools: []string{"p"}})
	cl.Source().Demand(1)
	settleMany(t, cl, 1, to("gone"))
	r := &cl.publish.replies
	awaitGood(t, cl, "gone")
	r.mu.Lock()
	l := r.lanes["gone"]
	r.mu.Unlock()
	r.tidy(l)
	for deadline := time.Now().Add(patience); !l.o.ch.IsClosed(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("its channel is not closed")
		}
	}
	settleMany(t, cl, 1, to("gone"))
	cl.Source().Demand(16)
	settleMany(t, cl, 3*replyWays, func(i int) string { return fmt.Sprint("gone", i) })
	r.mu.Lock()
	defer r.mu.Unlock()
	if n := len(r.lanes); n > replyWays+16 {
		t.Errorf("there are channels to %d queues", n)
	}
}
