package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/mayfly/mayfly/queue"
)

// simShape is what a host lends, or a task needs; weight is how many are so.
type simShape struct {
	weight           int
	milliCPU, memory int64
}

const gigabyte = 1_000_000_000

// simHosts are the hosts' shapes, simTasks the tasks'. The last three of these do not fit on every host, the very last on large ones only.
var (
	simHosts = []simShape{{5, 4000, 16 * gigabyte}, {3, 8000, 64 * gigabyte}, {2, 16000, 64 * gigabyte}}
	simTasks = []simShape{{55, 1000, 2 * gigabyte}, {15, 500, 1 * gigabyte}, {15, 2000, 6 * gigabyte}, {8, 4000, 8 * gigabyte},
		{4, 8000, 16 * gigabyte}, {2, 1000, 24 * gigabyte}, {1, 12000, 24 * gigabyte}}
)

// pick draws one of the shapes by their weights.
func pick(rng *rand.Rand, shapes []simShape) simShape {
	n := 0
	for _, s := range shapes {
		n += s.weight
	}
	n = rng.IntN(n)
	for _, s := range shapes {
		if n -= s.weight; n < 0 {
			return s
		}
	}
	panic("no weights")
}

// simTask is one task, and what became of it. Times are since the story's beginning; what has not happened is negative.
type simTask struct {
	shape                   simShape
	lasts                   time.Duration
	published, begun, ended time.Duration
	host                    int
	runs, results           int
}

// simPlan draws tasks that, published at a rate (tasks a second), keep a share of so many cores busy. Their lengths have a heavy tail (Pareto, 1.3),
// which ends at twenty times the shortest.
func simPlan(rng *rand.Rand, tasks int, rate, share, cores float64) []simTask {
	plan := make([]simTask, tasks)
	lengths, total := make([]float64, tasks), 0.0
	for i := range plan {
		plan[i] = simTask{shape: pick(rng, simTasks), published: -1, begun: -1, ended: -1}
		lengths[i] = min(20, math.Pow(1-rng.Float64(), -1/1.3))
		total += lengths[i] * float64(plan[i].shape.milliCPU) / 1000
	}
	unit := share * cores * float64(tasks) / rate / total
	for i := range plan {
		plan[i].lasts = time.Duration(lengths[i] * unit * float64(time.Second)).Round(time.Millisecond)
	}
	return plan
}

// document is the task as producers write it. They say how long it takes at most: twice as long as it will.
func (t *simTask) document(n int) []byte {
	return fmt.Appendf(nil, `{"id": "t%d", "command": ["sleep", "%.3f"], "resources": {"cpu": %g, "memory": %d}, "timeout": "%.1fs"}`,
		n, t.lasts.Seconds(), float64(t.shape.milliCPU)/1000, t.shape.memory, 2*t.lasts.Seconds()+1)
}

// simNumber is the number of the task with an id.
func simNumber(id string) (int, error) {
	n, err := strconv.Atoi(strings.TrimPrefix(id, "t"))
	if err != nil {
		return 0, fmt.Errorf("cannot know a task by its id %q", id)
	}
	return n, nil
}

// simStory is what happens to all tasks.
type simStory struct {
	began time.Time
	mu    sync.Mutex
	tasks []simTask
	left  int           // without a result
	done  chan struct{} // closed when none is
	wrong []string
}

func newSimStory(plan []simTask) *simStory {
	return &simStory{began: time.Now(), tasks: plan, left: len(plan), done: make(chan struct{})}
}

// change tells of a task, if there is one with this number.
func (s *simStory) change(n int, what func(t *simTask)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n < 0 || n >= len(s.tasks) {
		s.wrong = append(s.wrong, fmt.Sprintf("a task %d that nobody has published", n))
		return
	}
	what(&s.tasks[n])
}

func (s *simStory) publish(n int, at time.Time) {
	s.change(n, func(t *simTask) { t.published = at.Sub(s.began) })
}

func (s *simStory) begin(n, host int, at time.Time) {
	s.change(n, func(t *simTask) { t.begun, t.host, t.runs = at.Sub(s.began), host, t.runs+1 })
}

func (s *simStory) end(n int, at time.Time) {
	s.change(n, func(t *simTask) { t.ended = at.Sub(s.began) })
}

// result takes one.
func (s *simStory) result(body []byte) {
	var r queue.Result
	n, err := 0, json.Unmarshal(body, &r)
	if err == nil {
		n, err = simNumber(r.ID)
	}
	if err != nil || r.State != queue.Succeeded {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.wrong = append(s.wrong, fmt.Sprintf("%v: %s", err, body))
		return
	}
	s.change(n, func(t *simTask) {
		if t.results++; t.results == 1 {
			if s.left--; s.left == 0 {
				close(s.done)
			}
		}
	})
}

// simProducer publishes the tasks of a story and takes their results, by a connection that is not counted.
type simProducer struct {
	story *simStory
	conn  *amqp.Connection
	ch    *amqp.Channel
	group sync.WaitGroup
}

func newSimProducer(url string, story *simStory) (*simProducer, error) {
	conn, err := amqp.Dial(url)
	if err != nil {
		return nil, err
	}
	p := &simProducer{story: story, conn: conn}
	if err := p.listen(); err != nil {
		conn.Close()
		return nil, err
	}
	return p, nil
}

// listen takes the results. Hosts have made the exchange.
func (p *simProducer) listen() (err error) {
	if p.ch, err = p.conn.Channel(); err != nil {
		return err
	}
	if err := p.ch.Confirm(false); err != nil {
		return err
	}
	q, err := p.ch.QueueDeclare("", false, true, true, false, nil)
	if err != nil {
		return err
	}
	if err := p.ch.QueueBind(q.Name, "#", "mayfly.results", false, nil); err != nil {
		return err
	}
	results, err := p.ch.Consume(q.Name, "", true, true, false, false, nil)
	if err != nil {
		return err
	}
	p.group.Go(func() {
		for d := range results {
			p.story.result(d.Body)
		}
	})
	return nil
}

// publish sends the tasks at a steady rate, and returns when all are confirmed.
func (p *simProducer) publish(ctx context.Context, documents [][]byte, rate float64) error {
	confirms := make([]*amqp.DeferredConfirmation, 0, len(documents))
	began := time.Now()
	for n, body := range documents {
		if wait := time.Until(began.Add(time.Duration(float64(n) / rate * float64(time.Second)))); wait > 0 {
			select {
			case <-time.After(wait):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		p.story.publish(n, time.Now())
		c, err := p.ch.PublishWithDeferredConfirm("mayfly.tasks", queue.DefaultPool, true, false, amqp.Publishing{Body: body, DeliveryMode: amqp.Persistent})
		if err != nil {
			return err
		}
		confirms = append(confirms, c)
	}
	for n, c := range confirms {
		if ok, err := c.WaitContext(ctx); err != nil || !ok {
			return fmt.Errorf("cannot publish task %d: %w", n, err)
		}
	}
	return nil
}

func (p *simProducer) close() {
	p.conn.Close()
	p.group.Wait()
}
