package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/mayfly/mayfly/queue"
	"github.com/mayfly/mayfly/queue/rabbit"
)

// brokerPatience is how long the check waits for a broker to answer.
const brokerPatience = 5 * time.Second

// checkBroker tries to log in to the broker and finds out what it lacks, or looks at the embedded queue.
func checkBroker(ctx context.Context, c *config) []finding {
	const what = "queue"
	if c.AMQPURL == "" {
		return []finding{{What: what, OK: true, Detail: "embedded, " + filepath.Join(c.StateDir, "queue.db") + " (set MAYFLY_AMQP_URL for RabbitMQ)"}}
	}
	ctx, cancel := context.WithTimeout(ctx, brokerPatience)
	defer cancel()
	const remedy = "check MAYFLY_AMQP_URL, and that the broker runs: rabbitmq-diagnostics check_running"
	client, err := lookAtBroker(ctx, c)
	if err != nil {
		return []finding{{What: what, Detail: err.Error(), Remedy: remedy}}
	}
	defer client.Close()
	depth, err := client.Depth(ctx)
	f := finding{What: what, OK: true, Detail: client.State()}
	switch {
	case err == nil:
		f.Detail += fmt.Sprintf("; %d of %d pool queues are declared", len(depth), len(c.Pools)*len(queue.Bands))
	case client.Version() == "" || ctx.Err() != nil:
		return []finding{{What: what, Detail: f.Detail, Remedy: remedy}}
	default: // the rights to look are among those that are looked at below
	}
	list := []finding{f}
	if !client.Supported() {
		list = append(list, finding{What: "broker's version", Detail: "Mayfly needs RabbitMQ 3.10 or later, this is " + client.Version(), Remedy: "upgrade RabbitMQ"})
	}
	lacks, err := client.Inspect(ctx, c.Host, c.Declare == "passive")
	if err != nil {
		list = append(list, finding{What: "broker's rights", Detail: err.Error(), Remedy: remedy})
	}
	for _, l := range lacks {
		list = append(list, finding{What: "broker's rights", Detail: l.Err.Error(), Remedy: l.Remedy})
	}
	if err == nil && len(lacks) == 0 {
		list = append(list, finding{What: "broker's rights", OK: true, Detail: "enough for a host with MAYFLY_DECLARE=" + c.Declare})
	}
	timeout := finding{What: "ack timeout", OK: true, Detail: "cannot be seen from here; RabbitMQ's own is 30 minutes, and tasks here are bounded to " + time.Duration(c.Timeout).String() + " unless they say otherwise"}
	if c.Timeout == 0 || time.Duration(c.Timeout) > 25*time.Minute {
		timeout.Detail = "cannot be seen from here; RabbitMQ's own is 30 minutes, and tasks here may take longer: raise it, if that is not done"
		timeout.Remedy = client.TimeoutRemedy()
	}
	return append(list, timeout)
}

// lookAtBroker connects to the broker as one who is no host and declares nothing.
func lookAtBroker(ctx context.Context, c *config) (*rabbit.Client, error) {
	return rabbit.Dial(ctx, rabbit.Config{URLs: splitURLs(c.AMQPURL), CA: c.AMQPCA, Cert: c.AMQPCert, Key: c.AMQPKey, Pools: c.Pools,
		Declare: rabbit.Passive, Log: slog.New(slog.DiscardHandler)})
}

// brokerDepth asks the broker itself how much is queued, for where no host runs.
func brokerDepth(ctx context.Context) (map[string]int, error) {
	c, err := readConfig()
	if err != nil {
		return nil, err
	}
	if c.AMQPURL == "" {
		return nil, errors.New("cannot ask the broker: MAYFLY_AMQP_URL is not set")
	}
	ctx, cancel := context.WithTimeout(ctx, brokerPatience)
	defer cancel()
	client, err := lookAtBroker(ctx, c)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	return client.Depth(ctx)
}
