package rabbit

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/mayfly/mayfly/integration/broker"
)

// A node that goes on with its clients and confirms nothing is left for the next one, and its host takes itself for cut off meanwhile. What it held comes
// again by the other.
func TestPulse(t *testing.T) {
	t.Parallel()
	b := broker.Shared(t, broker.V40)
	url := b.Vhost(t)
	other := strings.Replace(url, "127.0.0.1", "localhost", 1)
	cl, log := dial(t, Config{URLs: []string{url, other}, Host: "h", Pools: []string{"p"}})
	s := cl.Source()
	s.Demand(1)
	publish(t, cl, task(1))
	held := receive(t, s)
	ch := channel(t, url)
	for deadline := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		if m, ok, err := ch.Get(pulseQueue, true); ok {
			if m.RoutingKey != pulseKey {
				t.Fatalf("the queue has %+v", m)
			}
			break
		} else if err != nil {
			ch = channel(t, url) // there is no such queue yet
		}
		if time.Now().After(deadline) {
			t.Fatal("a host that holds something has no pulse")
		}
	}
	// The process that is the queue stands still, as it does without a majority.
	eval := func(do string) {
		t.Helper()
		if out, err := b.Eval(fmt.Sprintf("sys:%s('%s_%s').", do, broker.VhostName(url), pulseQueue)); err != nil || !strings.Contains(out, "ok") {
			t.Fatal(out, err)
		}
	}
	eval("suspend")
	log.await(t, "level=WARN", "lost RabbitMQ", "has not confirmed a message for 30s")
	if silence := time.Since(cl.Heard()); silence < CutOff {
		t.Errorf("the host takes itself for well: heard the broker %s ago", silence)
	}
	awaitLost(t, held)
	eval("resume")
	log.await(t, "reached RabbitMQ", "localhost")
	settle(t, receive(t, s), done("t1"))
	for deadline := time.Now().Add(patience); time.Since(cl.Heard()) >= CutOff; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the host still takes itself for cut off")
		}
	}
}

// One node is not left: there is no other.
func TestPulseOfOne(t *testing.T) {
	t.Parallel()
	url := broker.Shared(t, broker.V40).Vhost(t)
	cl, _ := dial(t, Config{URLs: []string{url}, Host: "h", Pools: []string{"p"}})
	awaitCancel(t, cl, cl)
	if _, err := channel(t, url).QueueDeclarePassive(pulseQueue, true, false, false, false, nil); err == nil {
		t.Error("there is a queue for pulses")
	}
}
