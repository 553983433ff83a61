package rabbit

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/mayfly/mayfly/integration/broker"
	"github.com/mayfly/mayfly/queue"
)

// An outage of the broker loses the deliveries and nothing else, whether the broker ends in order or not.
func TestOutage(t *testing.T) {
	t.Parallel()
	for _, v := range broker.Versions {
		t.Run(string(v), func(t *testing.T) {
			t.Parallel()
			b := broker.Start(t, v)
			url := b.Vhost(t)
			t.Run("stop", func(t *testing.T) {
				outage(t, b, url, func() {
					if err := b.Stop(); err != nil {
						t.Fatal(err)
					}
				})
			})
			t.Run("kill", func(t *testing.T) { outage(t, b, url, b.Kill) })
		})
	}
}

func outage(t *testing.T, b *broker.Broker, url string, end func()) {
	cl, log := dial(t, Config{URLs: []string{url}, Host: "h", Pools: []string{"p"}})
	s := cl.Source()
	s.Demand(10)
	publish(t, cl, task(1))
	held := receive(t, s)

	// Publishers in the middle of their work, and a settle that cannot be confirmed.
	const many = 200
	failed := make(chan error, many)
	for i := range many {
		go func() { failed <- cl.Publish(t.Context(), task(100+i)) }()
	}
	if err := cl.Prove(within(t)); err != nil {
		t.Fatalf("no sign of life: %v", err)
	}
	end()
	awaitLost(t, held)
	if err := held.Settle(within(t), done("t1"), nil); !errors.Is(err, queue.ErrLost) {
		t.Fatalf("settling a lost delivery: %v", err)
	}
	log.await(t, "level=WARN", "lost RabbitMQ")
	if state := cl.State(); !strings.Contains(state, "out of reach since") {
		t.Fatalf("State() = %q", state)
	}
	short, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, err := s.Receive(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("Receive during the outage: %v", err)
	}
	if err := cl.Prove(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("a sign of life during the outage: %v", err)
	}
	if err := b.Start(); err != nil {
		t.Fatal(err)
	}
	limit := time.After(patience) // from when the broker is there again, which may take as long on a slow machine
	for range many {
		select {
		case err := <-failed:
			if err != nil {
				t.Fatalf("a publication did not survive: %v", err)
			}
		case <-limit:
			t.Fatal("publications did not end")
		}
	}
	seen := map[string]int{}
	for len(seen) < many+1 {
		d := receive(t, s)
		seen[d.Message().MessageID]++
		settle(t, d, done(d.Message().MessageID))
	}
	if seen["t1"] != 1 {
		t.Fatalf("the delivery that was lost came again %d times", seen["t1"])
	}
	log.await(t, "reached RabbitMQ")

	// A broker that stands still gives no sign of life, though the connection is there.
	if err := b.Pause(); err != nil {
		t.Fatal(err)
	}
	brief, cancelBrief := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancelBrief()
	if err := cl.Prove(brief); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a sign of life of a broker that stands still: %v", err)
	}
	if err := b.Resume(); err != nil {
		t.Fatal(err)
	}
	if err := cl.Prove(within(t)); err != nil {
		t.Errorf("no sign of life: %v", err)
	}
}

// A broker that is away at the start is waited for.
func TestStartWithoutBroker(t *testing.T) {
	t.Parallel()
	b := broker.Start(t, broker.V310)
	b.Kill()
	cl, log := dial(t, Config{URLs: []string{b.URL()}, Host: "h", Pools: []string{"p"}})
	log.await(t, "could not reach RabbitMQ", b.Addr())
	if err := b.Start(); err != nil {
		t.Fatal(err)
	}
	cl.Source().Demand(1)
	publish(t, cl, task(1))
	settle(t, receive(t, cl.Source()), done("t1"))
}

// A task beyond the acknowledgement timeout loses its delivery with a line that says what to do; the others of its lane
// come again too, and work goes on.
func TestAcknowledgementTimeout(t *testing.T) {
	t.Parallel()
	for _, v := range broker.Versions {
		t.Run(string(v), func(t *testing.T) {
			t.Parallel()
			b := broker.StartWith(t, v, broker.Options{Config: "consumer_timeout = 2000\n"})
			// By default the broker looks once a minute.
			if _, err := b.Eval("application:set_env(rabbit, channel_tick_interval, 500), " +
				"application:set_env(rabbit, quorum_tick_interval, 500)."); err != nil {
				t.Fatal(err)
			}
			cl, log := dial(t, Config{URLs: []string{b.URL()}, Host: "h", Pools: []string{"p"}})
			s := cl.Source()
			s.Demand(2)
			high := task(2)
			high.Band = queue.High
			// A line that still fetches, and one that was retired.
			publish(t, cl, task(0))
			awaitLost(t, receive(t, s))
			settle(t, receive(t, s), done("t0"))
			publish(t, cl, task(1))
			held := receive(t, s)
			retire(t, cl)
			awaitTimeOut(t, b, held)
			remedy := "set_policy"
			if v == broker.V310 {
				remedy = "rabbitmq.conf"
			}
			log.await(t, "level=ERROR", "acknowledgement timeout", "remedy=", remedy)
			if err := held.Settle(within(t), done("t1"), nil); !errors.Is(err, queue.ErrLost) {
				t.Fatalf("settling a lost delivery: %v", err)
			}
			again := receive(t, s)
			if !again.Message().Redelivered || again.Message().MessageID != "t1" {
				t.Fatalf("message = %+v", again.Message())
			}
			settle(t, again, done("t1"))
			publish(t, cl, high)
			settle(t, receive(t, s), done("t2"))
		})
	}
}

// awaitTimeOut has the broker look for what is late until it finds the delivery.
func awaitTimeOut(t *testing.T, b *broker.Broker, d queue.Delivery) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; {
		if err := b.TimeOut(poolQueue("p", queue.Normal)); err != nil {
			t.Fatal(err)
		}
		select {
		case <-d.Lost():
			return
		case <-time.After(100 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatal("the delivery was not lost")
		}
	}
}

// awaitNoneFetched waits until no line that holds something would fetch more. What is done with such a line beforehand may hasten that.
func awaitNoneFetched(t *testing.T, cl *Client, first func(*line)) {
	t.Helper()
	s := cl.source
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		s.mu.Lock()
		fetching := 0
		for _, l := range s.lanes {
			for _, ln := range l.lines {
				if len(ln.unsettled) > 0 && ln.prefetch > 0 {
					first(ln)
					fetching++
				}
			}
		}
		s.mu.Unlock()
		if fetching == 0 {
			return
		}
		signal(s.kick)
		if time.Now().After(deadline) {
			t.Fatal("a line holds something and still fetches")
		}
	}
}

// retire makes the lines that hold something so old that they are retired, and waits for that.
func retire(t *testing.T, cl *Client) {
	t.Helper()
	awaitNoneFetched(t, cl, func(ln *line) { ln.since = time.Now().Add(-lineAge) })
}

// Without the right to declare, what is missing is named, and used as soon as somebody has made it.
func TestPassive(t *testing.T) {
	onAll(t, func(t *testing.T, _ *broker.Broker, url string) {
		passive, log := dial(t, Config{URLs: []string{url}, Host: "h", Pools: []string{"p"}, Declare: Passive})
		for _, name := range []string{"mayfly.tasks", "mayfly.results", "mayfly.dead", "mayfly.pool.p.high"} {
			log.await(t, "level=ERROR", name, "MAYFLY_DECLARE=auto")
		}
		auto, _ := dial(t, Config{URLs: []string{url}, Pools: []string{"p"}})
		publish(t, auto, task(1))
		s := passive.Source()
		s.Demand(1)
		d := receive(t, s)
		var unroutable missing
		if err := passive.Publish(within(t), queue.Message{Pool: "other", Body: []byte("{}")}); !errors.As(err, &unroutable) {
			t.Fatalf("publishing to a pool without queues: %v", err)
		}
		// A retry needs a wait queue that does not exist: it says so and goes on trying.
		settled := make(chan error, 1)
		go func() {
			settled <- d.Settle(within(t), queue.Verdict{Action: queue.Retry, Delay: time.Second}, nil)
		}()
		log.await(t, "could not settle", "mayfly.wait.1s")
		sess, err := auto.receive.session(within(t))
		if err != nil {
			t.Fatal(err)
		}
		if err := auto.topology.wait(sess, time.Second); err != nil {
			t.Fatal(err)
		}
		if err := <-settled; err != nil {
			t.Fatal(err)
		}
		settle(t, receive(t, s), done("t1"))
	})
}

// What trying again does not mend is an error of Dial, and no error holds the password.
func TestRefused(t *testing.T) {
	onAll(t, func(t *testing.T, b *broker.Broker, _ string) {
		for _, c := range []struct{ name, url, want string }{
			{"password", "amqp://guest:hunter2@" + b.Addr() + "/", "cannot log in to RabbitMQ at " + b.Addr() + " as guest"},
			{"vhost", "amqp://guest:guest@" + b.Addr() + "/none", `cannot use the virtual host "none"`},
			{"scheme", "http://guest:hunter2@" + b.Addr() + "/", "cannot read the RabbitMQ URL"},
			{"syntax", "amqp://guest:hun%ter2@" + b.Addr() + "/", "cannot read the RabbitMQ URL"},
			{"TLS", "amqps://guest:hunter2@" + b.Addr() + "/", "there is no TLS listener"},
		} {
			_, log := newJournal()
			cl, err := Dial(within(t), Config{URLs: []string{c.url}, Log: log})
			if err == nil {
				_ = cl.Close()
				t.Errorf("%s: no error", c.name)
				continue
			}
			if !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "hun%") {
				t.Errorf("%s: %v", c.name, err)
			}
		}
	})
}

// A queue or an exchange that somebody deletes is made anew.
func TestDeleted(t *testing.T) {
	onAll(t, func(t *testing.T, _ *broker.Broker, url string) {
		cl, log := dial(t, Config{URLs: []string{url}, Host: "h", Pools: []string{"p"}})
		s := cl.Source()
		s.Demand(1)
		publish(t, cl, task(1))
		settle(t, receive(t, s), done("t1"))
		ch := channel(t, url)
		if _, err := ch.QueueDelete(poolQueue("p", queue.Normal), false, false, false); err != nil {
			t.Fatal(err)
		}
		log.await(t, "queue was deleted", "mayfly.pool.p.normal")
		if err := ch.ExchangeDelete(resultsExchange, false, false); err != nil {
			t.Fatal(err)
		}
		for i := range 3 {
			publish(t, cl, task(2+i))
			settle(t, receive(t, s), done(fmt.Sprint("t", 2+i)))
		}
	})
}
