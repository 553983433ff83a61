package rabbit

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/mayfly/mayfly/queue"
)

var update = flag.Bool("update", false, "write deploy/rabbitmq/definitions.json anew")

// TestDefinitions holds deploy/rabbitmq/definitions.json to what is declared: that of the pool "default" in the virtual host "/".
func TestDefinitions(t *testing.T) {
	t.Parallel()
	type thing map[string]any
	var exchanges, queues, bindings []thing
	exchange := func(name, kind string) {
		exchanges = append(exchanges, thing{"name": name, "vhost": "/", "type": kind, "durable": true, "auto_delete": false, "internal": false, "arguments": thing{}})
	}
	add := func(name, exchange string, args amqp.Table, keys ...string) {
		if args == nil {
			args = amqp.Table{}
		}
		if args["x-queue-type"] == nil {
			args["x-queue-type"] = "quorum"
		}
		queues = append(queues, thing{"name": name, "vhost": "/", "durable": true, "auto_delete": false, "arguments": args})
		for _, key := range keys {
			bindings = append(bindings, thing{"source": exchange, "vhost": "/", "destination": name, "destination_type": "queue", "routing_key": key, "arguments": thing{}})
		}
	}
	for _, name := range []string{tasksExchange, resultsExchange, eventsExchange, controlExchange} {
		exchange(name, amqp.ExchangeTopic)
	}
	exchange(dead, amqp.ExchangeFanout)
	add(dead, dead, nil, "")
	add(pulseQueue, controlExchange, pulseArguments(), pulseKey)
	add(cancelStream, controlExchange, cancelArguments(), cancelKey)
	for _, band := range queue.Bands {
		add(poolQueue("default", band), tasksExchange, nil, bindingKeys("default", band)...)
	}
	for _, r := range ladder {
		exchange(waitName(r), amqp.ExchangeFanout)
		add(waitName(r), waitName(r), waitArguments(r), "")
	}
	text, err := json.MarshalIndent(thing{"exchanges": exchanges, "queues": queues, "bindings": bindings}, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	text = append(text, '\n')
	const file = "../../deploy/rabbitmq/definitions.json"
	if *update {
		if err := os.WriteFile(file, text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(file)
	if err != nil || !bytes.Equal(have, text) {
		t.Errorf("%s is not what is declared (%v): go test ./queue/rabbit -run TestDefinitions -update", file, err)
	}
}
