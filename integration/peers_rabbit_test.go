package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/mayfly/mayfly/integration/broker"
	"github.com/mayfly/mayfly/integration/need"
)

// peersBroker is the version of RabbitMQ that others are measured with.
const peersBroker = broker.V40

// consumed publishes tasks to a queue, starts consumers, and returns how long they take. What they hold unacknowledged is the same when a twentieth of the
// queue is gone and when all is, so the time between is that of what was ready in between.
func consumed(b *testing.B, url, queue string, arguments amqp.Table, tasks int, message func(i int) amqp.Publishing, start func() (stop []func() string)) time.Duration {
	b.Helper()
	conn, err := amqp.Dial(url)
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	ch, err := conn.Channel()
	if err == nil {
		err = ch.Confirm(false)
	}
	if err == nil {
		_, err = ch.QueueDeclare(queue, true, false, false, false, arguments)
	}
	if err != nil {
		b.Fatal(err)
	}
	publishAll(b, ch, "", queue, tasks, message)
	stop := start()
	took := steady(b, queue, tasks, func() int {
		q, err := ch.QueueDeclarePassive(queue, true, false, false, false, nil)
		if err != nil {
			b.Fatal(err)
		}
		return q.Messages
	})
	for _, f := range stop {
		if text := f(); strings.Contains(text, "ERROR") || strings.Contains(text, "Error: ") { // what fails, or is no task, takes less time
			b.Fatal(tail(text, 3000))
		}
	}
	return took
}

// cliConsumer is four processes of rabbitmq-cli-consumer, for each runs one task at a time.
func cliConsumer(kind string) func(*testing.B) func(int) time.Duration {
	return func(b *testing.B) func(int) time.Duration {
		path := filepath.Join(need.Cache(), "rabbitmq-cli-consumer")
		if _, err := os.Stat(path); err != nil {
			absent(b, "rabbitmq-cli-consumer is not installed: run make setup-peers")
		}
		br := broker.Shared(b, peersBroker)
		settings := filepath.Join(b.TempDir(), "settings")
		if err := os.WriteFile(settings, []byte("[prefetch]\ncount = 16\n[logs]\ninfo = /dev/null\nerror = /dev/stderr\n"), 0o644); err != nil {
			b.Fatal(err)
		}
		message := func(int) amqp.Publishing { return amqp.Publishing{Body: []byte("task")} } // it becomes an argument
		return func(tasks int) time.Duration {
			url := br.Vhost(b)
			return consumed(b, url, "in", amqp.Table{"x-queue-type": kind}, tasks, message, func() (stop []func() string) {
				for range 4 {
					stop = append(stop, background(b, "", nil, path, "--url", url, "--queue-name", "in", "--no-declare", "--configuration", settings,
						"--executable", "/bin/true"))
				}
				return stop
			})
		}
	}
}

// celery is a worker of Celery with four processes, which live on, or are each for one task. It can consume classic queues only (before 5.5).
func celery(fresh bool) func(*testing.B) func(int) time.Duration {
	return func(b *testing.B) func(int) time.Duration {
		const python = "/usr/bin/python3" // the distribution's, whose package it is
		if err := exec.Command(python, "-c", "import celery").Run(); err != nil {
			absent(b, "python3-celery is not installed: run make setup-peers")
		}
		dir, err := filepath.Abs("testdata/celery")
		if err != nil {
			b.Fatal(err)
		}
		br := broker.Shared(b, peersBroker)
		perChild := "0"
		if fresh {
			perChild = "1"
		}
		message := func(i int) amqp.Publishing { // of its protocol's second version
			id := fmt.Sprint("t", i)
			return amqp.Publishing{CorrelationId: id, ContentType: "application/json", ContentEncoding: "utf-8", Body: []byte(`[[], {}, {}]`),
				Headers: amqp.Table{"lang": "py", "task": "run", "id": id, "root_id": id}}
		}
		return func(tasks int) time.Duration {
			url := br.Vhost(b)
			return consumed(b, url, "celery", nil, tasks, message, func() []func() string {
				return []func() string{background(b, dir, []string{"BROKER=" + url, "TASKS_PER_CHILD=" + perChild, "PYTHONDONTWRITEBYTECODE=1"},
					python, "-m", "celery", "-A", "tasks", "worker", "--pool", "prefork", "--concurrency", "4", "--loglevel", "ERROR",
					"--without-gossip", "--without-mingle", "--without-heartbeat")}
			})
		}
	}
}
