package broker

import (
	"context"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// TestCluster parts a node from the others: it takes nothing until it may rejoin, while they go on. (For one version that has
// it stay there is TestFleetCluster.)
func TestCluster(t *testing.T) {
	t.Parallel()
	for _, v := range []Version{V310} {
		t.Run(string(v), func(t *testing.T) {
			c := StartCluster(t, v, 3)
			put(t, c.Nodes[0].URL())
			if _, err := channel(t, c.Nodes[0].URL()).QueueDeclare("more", true, false, false, false, amqp.Table{"x-queue-type": "quorum"}); err != nil {
				t.Fatal(err)
			}
			if err := c.Part(2); err != nil {
				t.Fatal(err)
			}
			for limit := time.Now().Add(4 * tick); takes(c.Nodes[2]); time.Sleep(100 * time.Millisecond) {
				if time.Now().After(limit) {
					t.Fatalf("the node takes messages though it sees no other one:\n%s", c.Nodes[2].Log())
				}
			}
			if !holds(t, c.Nodes[1].URL()) {
				t.Error("the others do not hold the message")
			}
			if err := c.Rejoin(2); err != nil {
				t.Fatal(err)
			}
			if err := c.Whole(); err != nil {
				t.Fatal(err)
			}
			c.Nodes[0].Kill()
			if !holds(t, c.Nodes[2].URL()) {
				t.Error("the others do not hold the message without the node that took it")
			}
			if err := c.Nodes[0].Start(); err != nil {
				t.Fatal(err)
			}
			if err := c.Whole(); err != nil {
				t.Fatal(err)
			}
			if urls := c.URL(1); !strings.HasPrefix(urls, c.Nodes[1].URL()+",") || !strings.HasSuffix(urls, ","+c.Nodes[0].URL()) {
				t.Errorf("URL is %s", urls)
			}
		})
	}
}

// takes says whether a node confirms a message within a second.
func takes(b *Broker) bool {
	conn, err := amqp.DialConfig(b.URL(), amqp.Config{Dial: amqp.DefaultDial(time.Second)})
	if err != nil {
		return false
	}
	defer conn.Close()
	ch, err := conn.Channel()
	if err != nil || ch.Confirm(false) != nil {
		return false
	}
	dc, err := ch.PublishWithDeferredConfirm("", "more", false, false, amqp.Publishing{DeliveryMode: amqp.Persistent})
	if err != nil {
		return false
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	confirmed, err := dc.WaitContext(ctx)
	return confirmed && err == nil
}

// holds says whether the queue has a message, once it has a leader.
func holds(t *testing.T, url string) bool {
	t.Helper()
	for limit := time.Now().Add(4 * tick); ; time.Sleep(100 * time.Millisecond) {
		m, ok, err := channel(t, url).Get("q", false)
		if ok {
			err = m.Nack(false, true)
		}
		if err == nil || time.Now().After(limit) {
			return ok && err == nil
		}
	}
}
