package rabbit

import (
	"encoding/json"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/mayfly/mayfly/integration/broker"
	"github.com/mayfly/mayfly/queue"
)

// TestEvents announces events while nobody listens, then while somebody does.
func TestEvents(t *testing.T) {
	onAll(t, func(t *testing.T, _ *broker.Broker, url string) {
		c, _ := dial(t, Config{URLs: []string{url}, Host: "a", Pools: []string{"p"}})
		publish(t, c, queue.Message{Pool: "p", MessageID: "m", Body: []byte(`{}`)}) // it can publish
		c.Announce(queue.Event{ID: "unheard", Pool: "p", State: queue.EventRunning})
		for limit := time.Now().Add(10 * time.Second); !c.announcer.silent(); time.Sleep(time.Millisecond) {
			if time.Now().After(limit) {
				t.Fatal("it does not hear that nobody listens")
			}
		}
		conn, err := amqp.Dial(url)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		ch, err := conn.Channel()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ch.QueueDeclare("events", false, false, true, false, nil); err != nil {
			t.Fatal(err)
		}
		if err := ch.QueueBind("events", "p.*.#", eventsExchange, false, nil); err != nil {
			t.Fatal(err)
		}
		heard, err := ch.Consume("events", "", true, true, false, false, nil)
		if err != nil {
			t.Fatal(err)
		}
		for c.announcer.silent() {
			time.Sleep(time.Millisecond)
		}
		want := queue.Event{ID: "with.dots", Pool: "p", State: queue.EventWaiting, Cause: queue.CauseExit, Message: "no", Attempt: 1, DelaySeconds: 2, Host: "a",
			Labels: map[string]string{"k": "v"}, At: time.Unix(1, 0).UTC()}
		c.Announce(want)
		d := next(t, heard)
		var got queue.Event
		if err := json.Unmarshal(d.Body, &got); err != nil || d.RoutingKey != "p.waiting.with.dots" || got.ID != want.ID || got.State != want.State || got.DelaySeconds != 2 ||
			got.Labels["k"] != "v" || !got.At.Equal(want.At) || d.DeliveryMode == amqp.Persistent || d.ContentType != "application/json" {
			t.Errorf("%s: %s (%v)", d.RoutingKey, d.Body, err)
		}
		if err := ch.ExchangeDelete(eventsExchange, false, false); err != nil {
			t.Fatal(err)
		}
		c.Announce(want)
		for limit := time.Now().Add(10 * time.Second); time.Until(time.Unix(0, c.announcer.quiet.Load())) < forbidden/2; time.Sleep(time.Millisecond) {
			if time.Now().After(limit) {
				t.Fatal("it goes on though it is refused")
			}
		}
		publish(t, c, queue.Message{Pool: "p", MessageID: "n", Body: []byte(`{}`)}) // results have another channel
	})
}
