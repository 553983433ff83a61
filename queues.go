package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/mayfly/mayfly/internal/logkey"
	"github.com/mayfly/mayfly/manager"
	"github.com/mayfly/mayfly/queue"
	"github.com/mayfly/mayfly/queue/local"
	"github.com/mayfly/mayfly/queue/rabbit"
)

// openQueue opens the queue that the configuration names, and says how the manager is to use it.
func openQueue(ctx context.Context, c *config, log *slog.Logger) (*opened, error) {
	if c.AMQPURL == "" {
		return openLocal(c, log)
	}
	if left, err := leftBehind(c); err != nil {
		log.Warn("embedded queue of before not looked into", logkey.Err, err)
	} else if left != "" {
		log.Warn("tasks left behind", logkey.Reason, left)
	}
	return openRabbit(ctx, c, log)
}

// leftBehind says what lies in the embedded queue of a host that takes its tasks from RabbitMQ now; nobody serves it meanwhile.
func leftBehind(c *config) (string, error) {
	path := filepath.Join(c.StateDir, "queue.db")
	tasks, dead, err := local.Left(path)
	if err != nil || tasks+dead == 0 {
		return "", err
	}
	return fmt.Sprintf("%d tasks and %d dead letters lie in the embedded queue %s, which is not served while MAYFLY_AMQP_URL is set", tasks, dead, path), nil
}

// opened is a queue and what the manager needs of it.
type opened struct {
	source    queue.Source
	publisher queue.Publisher
	cemetery  queue.Cemetery
	backlog   manager.Backlog
	state     func() string
	broadcast func(context.Context, queue.Cancellation) error
	replyTo   func() string
	// broker says whether the broker is in reach, and how often it was reached again; nil where there is none.
	broker func() (up bool, reconnects uint64)
	// holds says whether it holds tasks that nobody else will get; nil where others do.
	holds func() bool
	// inReach says whether the queue is; nil where it always is.
	inReach func() bool
	fleet   queue.Fleet
	heard   func() time.Time
	prove   func(ctx context.Context) error
	// announce tells those who listen of changes of tasks; nil where nobody can.
	announce func(queue.Event)
	// news is what other hosts say; nil where there are none.
	news  manager.News
	close func() error
}

func openLocal(c *config, log *slog.Logger) (*opened, error) {
	q, err := local.Open(filepath.Join(c.StateDir, "queue.db"), local.Options{Pools: c.Pools, Log: log})
	if err != nil {
		return nil, err
	}
	return &opened{source: q.Source(), publisher: q, cemetery: q, state: q.State, close: q.Close, holds: q.Holds,
		backlog: manager.Backlog{Depth: q.Depth, Peek: q.Waiting, Find: q.Find, Pick: func(ctx context.Context, id string) (queue.Delivery, error) {
			d, err := q.Pick(ctx, id)
			if errors.Is(err, local.ErrNotFound) {
				err = manager.ErrUnknownTask
			}
			return d, err
		}},
	}, nil
}

// splitURLs takes a list of URLs apart.
func splitURLs(list string) []string {
	urls := strings.Split(list, ",")
	for i := range urls {
		urls[i] = strings.TrimSpace(urls[i])
	}
	return urls
}

// depthPatience is how long a look at the depth of the queues may wait for a broker that is out of reach.
const depthPatience = time.Second

func openRabbit(ctx context.Context, c *config, log *slog.Logger) (*opened, error) {
	client, err := rabbit.Dial(ctx, rabbit.Config{URLs: splitURLs(c.AMQPURL), CA: c.AMQPCA, Cert: c.AMQPCert, Key: c.AMQPKey,
		Host: c.Host, Pools: c.Pools, Declare: rabbit.Declare(c.Declare), Log: log})
	if err != nil {
		return nil, err
	}
	looking, stop := context.WithCancel(ctx)
	var look sync.WaitGroup
	look.Go(func() { warnOfAckTimeout(looking, c, client, log) })
	end := func() error {
		stop()
		defer look.Wait()
		return client.Close()
	}
	return &opened{source: client.Source(), publisher: client, cemetery: client, state: client.State, close: end,
		broadcast: client.Cancel, replyTo: client.ReplyTo, broker: client.Connection, fleet: client, heard: client.Heard, prove: client.Prove, announce: client.Announce,
		inReach: func() bool { up, _ := client.Connection(); return up },
		backlog: manager.Backlog{Depth: func(ctx context.Context) (map[string]int, error) {
			ctx, cancel := context.WithTimeout(ctx, depthPatience)
			defer cancel()
			return client.Depth(ctx)
		}},
		news: client,
	}, nil
}

// listen hands on what other hosts say until the returned function is called.
func (o *opened) listen(m *manager.Manager) (stop func()) {
	if o.news == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	group.Go(func() { m.Listen(ctx, o.news) })
	return func() { cancel(); group.Wait() }
}
