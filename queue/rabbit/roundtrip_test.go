package rabbit

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/mayfly/mayfly/integration/broker"
	"github.com/mayfly/mayfly/queue"
)

// A producer's message comes with all that it said, survives a retry whole, and its result reaches all who listen.
func TestRoundTrip(t *testing.T) {
	onAll(t, func(t *testing.T, _ *broker.Broker, url string) {
		cl, _ := dial(t, Config{URLs: []string{url}, Host: "h", Pools: []string{"p"}})
		s := cl.Source()
		s.Demand(2)
		ch := channel(t, url)
		if _, err := cl.Depth(within(t)); err != nil { // the topology stands
			t.Fatal(err)
		}
		reply, err := ch.QueueDeclare("", false, true, true, false, nil)
		if err != nil {
			t.Fatal(err)
		}
		replies, err := ch.Consume(reply.Name, "", true, true, false, false, nil)
		if err != nil {
			t.Fatal(err)
		}
		results, err := listenFor(channel(t, url), "p.t1")
		if err != nil {
			t.Fatal(err)
		}
		sent := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
		err = ch.PublishWithContext(within(t), tasksExchange, "p.high", true, false, amqp.Publishing{
			Headers:       amqp.Table{"traceparent": "00-1", "n": int64(1) << 40, "deep": amqp.Table{"a": []any{int32(1), "b"}}},
			CorrelationId: "c1", ReplyTo: reply.Name, MessageId: "t1", Timestamp: sent, UserId: "guest", Expiration: "60000",
			Priority: 7, Type: "kind", AppId: "app", Body: []byte(`{"command":["true"]}`),
		})
		if err != nil {
			t.Fatal(err)
		}
		check := func(m queue.Message) {
			t.Helper()
			if m.MessageID != "t1" || m.CorrelationID != "c1" || m.ReplyTo != reply.Name || m.UserID != "guest" || m.Pool != "p" ||
				m.Band != queue.High || !m.QueuedAt.Equal(sent) || string(m.Body) != `{"command":["true"]}` {
				t.Fatalf("message = %+v", m)
			}
			if len(m.Headers) != 3 || m.Headers["traceparent"] != "00-1" || m.Headers["n"] != int64(1)<<40 {
				t.Fatalf("headers = %v", m.Headers)
			}
		}
		d := receive(t, s)
		check(d.Message())
		past := []queue.Past{{Attempt: 1, Host: "h", Cause: queue.CauseExit}}
		settle(t, d, queue.Verdict{Action: queue.Retry, Delay: 150 * time.Millisecond, History: past})
		d = receive(t, s)
		check(d.Message())
		if h := d.Message().History; len(h) != 1 || h[0] != past[0] {
			t.Fatalf("history = %+v", h)
		}
		raw := d.(*delivery).raw
		if raw.Priority != 7 || raw.Type != "kind" || raw.AppId != "app" || raw.Expiration != "" || raw.DeliveryMode != amqp.Persistent {
			t.Fatalf("properties of the copy = %+v", raw)
		}
		settle(t, d, done("t1"))
		select {
		case m := <-results:
			var r queue.Result
			if err := json.Unmarshal(m.Body, &r); err != nil || r.ID != "t1" || r.State != queue.Succeeded || m.CorrelationId != "c1" {
				t.Fatalf("result = %+v, %v", m, err)
			}
		case <-time.After(patience):
			t.Fatal("no result")
		}
		select {
		case m := <-replies:
			var r queue.Result
			if err := json.Unmarshal(m.Body, &r); err != nil || r.ID != "t1" || m.CorrelationId != "c1" || m.MessageId != "t1" ||
				number(m.Headers, headerAttempt) != 1 {
				t.Fatalf("reply = %+v, %v", m, err)
			}
		case <-time.After(patience):
			t.Fatal("no reply")
		}
		if state := cl.State(); !strings.HasSuffix(state, ", connected") || !strings.HasPrefix(state, "RabbitMQ ") {
			t.Fatalf("State() = %q", state)
		}
	})
}

// A reply that nobody waits for any more does not keep the task from being settled.
func TestReplyQueueGone(t *testing.T) {
	onAll(t, func(t *testing.T, _ *broker.Broker, url string) {
		cl, log := dial(t, Config{URLs: []string{url}, Host: "h", Pools: []string{"p"}})
		cl.Source().Demand(1)
		m := task(1)
		m.ReplyTo = "gone"
		publish(t, cl, m)
		settle(t, receive(t, cl.Source()), done("t1"))
		log.await(t, "level=DEBUG", "reply_to is gone", "queue=gone")
		publish(t, cl, task(2))
		settle(t, receive(t, cl.Source()), done("t2"))
	})
}

func TestCancel(t *testing.T) {
	onAll(t, func(t *testing.T, _ *broker.Broker, url string) {
		a, _ := dial(t, Config{URLs: []string{url}, Host: "a"})
		b, _ := dial(t, Config{URLs: []string{url}})
		awaitCancel(t, b, a)
	})
}

// TestCopyIsKnown has a message copied for its next try: wherever its producer has put the id, host and copy's host speak of the same message. One that was given no id gets
// one that stays.
func TestCopyIsKnown(t *testing.T) {
	t.Parallel()
	url := broker.Shared(t, broker.V43).Vhost(t)
	cl, log := dial(t, Config{URLs: []string{url}, Host: "h", Pools: []string{"p"}})
	log.await(t, "connected to RabbitMQ")
	s := cl.Source()
	s.Demand(1)
	ch := channel(t, url)
	for name, sent := range map[string]amqp.Publishing{
		"in the body":        {Body: []byte(`{"id": "a", "shell": "true"}`)},
		"of the message":     {MessageId: "a", Body: []byte(`{"shell": "true"}`)},
		"none":               {Body: []byte(`{"shell": "true"}`)},
		"two":                {MessageId: "b", Body: []byte(`{"id": "a", "shell": "true"}`)},
		"of what is no task": {Body: []byte(`{"id": "a", "shell": `)},
	} {
		if err := ch.PublishWithContext(within(t), tasksExchange, "p", true, false, sent); err != nil {
			t.Fatal(err)
		}
		d := receive(t, s)
		first := d.Message()
		settle(t, d, queue.Verdict{Action: queue.Retry, TaskID: "a", History: []queue.Past{{Attempt: 1, Host: "h", Cause: queue.CauseExit}}})
		d = receive(t, s)
		copied := d.Message()
		settle(t, d, done("a"))
		if first.Copied || !copied.Copied {
			t.Errorf("%s: copied %t, then %t", name, first.Copied, copied.Copied)
		}
		if name == "none" {
			if copied.MessageID != "a" {
				t.Errorf("%s: %q", name, copied.MessageID)
			}
		} else if copied.Fingerprint() != first.Fingerprint() || queue.GivenID(copied) != "a" {
			t.Errorf("%s: the copy of %+v is %+v", name, first, copied)
		}
	}
}
