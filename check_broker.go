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

const (
	// brokerPatience is how long the check waits for a broker to answer.
	brokerPatience = 5 * time.Second
	// nodePatience is for each node that is tried before: a host that is down does not say so.
	nodePatience = 10 * time.Second
)

// patience is how long the check waits for one of the broker's nodes to answer.
func patience(c *config) time.Duration {
	return brokerPatience + time.Duration(len(splitURLs(c.AMQPURL))-1)*nodePatience
}

// checkBroker tries to log in to the broker and finds out what it lacks, or looks at the embedded queue.
func checkBroker(ctx context.Context, c *config) []finding {
	const what = "queue"
	if c.AMQPURL == "" {
		return []finding{{What: what, OK: true, Detail: "embedded, " + filepath.Join(c.StateDir, "queue.db") + " (set MAYFLY_AMQP_URL for RabbitMQ)"}}
	}
	list := []finding{}
	if left, err := leftBehind(c); err != nil {
		list = append(list, finding{What: "embedded queue", Detail: err.Error(), Remedy: "move it away, if nothing in it is wanted"})
	} else if left != "" {
		list = append(list, finding{What: "embedded queue", Detail: left, Remedy: "unset MAYFLY_AMQP_URL until they have run, or move the file away, if nothing in it is wanted"})
	}
	ctx, cancel := context.WithTimeout(ctx, patience(c))
	defer cancel()
	const remedy = "check MAYFLY_AMQP_URL, and that the broker runs: rabbitmq-diagnostics check_running"
	client, err := lookAtBroker(ctx, c)
	if err != nil {
		return append(list, finding{What: what, Detail: err.Error(), Remedy: remedy})
	}
	defer client.Close()
	depth, err := client.Depth(ctx)
	f := finding{What: what, OK: true, Detail: client.State()}
	switch {
	case err == nil:
		f.Detail += fmt.Sprintf("; %d of %d pool queues are declared", len(depth), len(c.Pools)*len(queue.Bands))
	case client.Version() == "" || ctx.Err() != nil:
		return append(list, finding{What: what, Detail: f.Detail, Remedy: remedy})
	default: // the rights to look are among those that are looked at below
	}
	list = append(list, f)
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
	m, managed := checkManagement(ctx, c, client)
	f, _ = ackTimeout(c, client, m)
	return append(append(list, managed...), f)
}

// clockLeeway is how far apart the clocks of host and broker may be. Waits, deadlines and what is told of a task's times are by either of them.
const clockLeeway = 5 * time.Second

// checkManagement looks at what the broker's management API shows; m is nil where nothing is known.
func checkManagement(ctx context.Context, c *config, client *rabbit.Client) (m *rabbit.Management, list []finding) {
	const policies, clock = "broker's policies", "broker's clock"
	if c.Management == "" {
		const unseen = "cannot be seen by AMQP: set MAYFLY_MANAGEMENT_URL to have them looked at"
		return nil, []finding{{What: policies, OK: true, Detail: unseen}}
	}
	m, err := client.Management(ctx, c.Management, c.Host)
	if err != nil {
		return nil, []finding{{What: policies, Detail: err.Error(), Remedy: "check MAYFLY_MANAGEMENT_URL, and that the broker has its management: rabbitmq-plugins enable rabbitmq_management"}}
	}
	for _, l := range m.Lacks {
		list = append(list, finding{What: policies, Detail: l.Err.Error(), Remedy: l.Remedy})
	}
	if len(m.Lacks) == 0 {
		list = append(list, finding{What: policies, OK: true, Detail: "none by which a task would get lost"})
	}
	f := finding{What: clock, OK: true, Detail: "within seconds of this host's"}
	if m.Ahead.Abs() > clockLeeway {
		f = finding{What: clock, Detail: fmt.Sprintf("the broker's clock and this host's are %s apart", m.Ahead.Abs().Round(time.Second)), Remedy: "timedatectl set-ntp true, there and here"}
	}
	return m, append(list, f)
}

// lookAtBroker connects to the broker as one who is no host and declares nothing.
func lookAtBroker(ctx context.Context, c *config) (*rabbit.Client, error) {
	client, err := rabbit.Dial(ctx, rabbit.Config{URLs: splitURLs(c.AMQPURL), CA: c.AMQPCA, Cert: c.AMQPCert, Key: c.AMQPKey, Pools: c.Pools,
		Declare: rabbit.Passive, Log: slog.New(slog.DiscardHandler)})
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("cannot reach RabbitMQ: it did not answer within %s", patience(c))
	}
	return client, err
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
	ctx, cancel := context.WithTimeout(ctx, patience(c))
	defer cancel()
	client, err := lookAtBroker(ctx, c)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	return client.Depth(ctx)
}
