package integration

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/mayfly/mayfly/integration/broker"
	"github.com/mayfly/mayfly/queue"
)

// TestEvents listens to what becomes of tasks, as others would: by a queue of its own.
func TestEvents(t *testing.T) {
	t.Parallel()
	url := broker.Shared(t, broker.V40).Vhost(t)
	h := newHost(t, "MAYFLY_AMQP_URL="+url, "MAYFLY_CPUS=1")
	h.start()
	h.connected()
	p := newProducer(t, url)
	q, err := p.ch.QueueDeclare("", false, true, true, false, nil)
	if err == nil {
		err = p.ch.QueueBind(q.Name, "default.#", "mayfly.events", false, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	events, err := p.ch.Consume(q.Name, "", true, true, false, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	p.publish("default", `{"id": "twice", "name": "n", "labels": {"k": "v"}, "shell": "test $MAYFLY_ATTEMPT = 2", "max_attempts": 2, "backoff": "100ms"}`)
	p.publish("default", `{"id": "wrong", "command": "x"}`)
	p.publish("default", `{"id": "large", "command": ["true"], "resources": {"cpu": 2}}`)
	want := map[string][]string{
		"twice": {"running 1", "waiting 1 exit", "running 2", "succeeded 2 none"},
		"wrong": {"rejected 0 rejected"},
		"large": {"parked 0"},
	}
	got := map[string][]string{}
	for limit := time.After(patienceLimit); !slices.Equal(got["twice"], want["twice"]) || len(got["wrong"]) == 0 || len(got["large"]) == 0; {
		select {
		case d := <-events:
			var e queue.Event
			if err := json.Unmarshal(d.Body, &e); err != nil || d.RoutingKey != "default."+e.State+"."+e.ID || e.Host != h.name() || e.At.IsZero() {
				t.Errorf("%s: %s (%v)", d.RoutingKey, d.Body, err)
			}
			if e.ID == "twice" && (e.Name != "n" || e.Labels["k"] != "v") || e.ID == "large" && e.Message == "" {
				t.Errorf("%s", d.Body)
			}
			text := fmt.Sprint(e.State, " ", e.Attempt)
			if e.Cause != "" {
				text += " " + string(e.Cause)
			}
			got[e.ID] = append(got[e.ID], text)
		case <-limit:
			t.Fatalf("%v, want %v", got, want)
		}
	}
	for id := range got {
		if !slices.Equal(got[id], want[id]) {
			t.Errorf("%s: %v, want %v", id, got[id], want[id])
		}
	}
}
