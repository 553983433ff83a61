package rabbit

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/mayfly/mayfly/integration/broker"
	"github.com/mayfly/mayfly/queue"
)

// TestYoung kills a broker of one node just after a queue was made there, which loses what that has confirmed: the message is still in the queue from which it came.
func TestYoung(t *testing.T) {
	t.Parallel()
	for _, v := range broker.Versions {
		t.Run(string(v), func(t *testing.T) {
			t.Parallel()
			b := broker.Start(t, v)
			one, log := dial(t, Config{URLs: []string{b.URL()}, Host: "one", Pools: []string{"p"}})
			<-one.Joined()
			one.Source().Demand(2)
			publish(t, one, task(1))
			grow := func(name string) {
				t.Helper()
				one.topology.known.saw(name, false)
				for wait := one.topology.known.young(name); wait > 0; wait = one.topology.known.young(name) {
					time.Sleep(wait)
				}
			}
			grow(poolQueue("p", queue.Normal)) // nor would the message be safe before
			again := func() {
				t.Helper()
				b.Kill()
				if err := b.Start(); err != nil {
					t.Fatal(err)
				}
			}

			// A wait queue.
			d := receive(t, one.Source())
			ended := make(chan error, 1)
			go func() {
				ended <- d.Settle(t.Context(), queue.Verdict{Action: queue.Retry, Delay: 2 * time.Second}, nil)
			}()
			ch := channel(t, b.URL())
			for {
				if _, err := ch.QueueDeclarePassive("mayfly.wait.2s", true, false, false, false, nil); err == nil {
					break
				}
				ch = channel(t, b.URL())
			}
			select {
			case err := <-ended:
				t.Fatalf("settled while the wait queue is young: %v", err)
			case <-time.After(300 * time.Millisecond): // far longer than publishing takes
			}
			again()
			if err := <-ended; !errors.Is(err, queue.ErrLost) {
				t.Errorf("settled: %v", err)
			}
			d = receive(t, one.Source())
			began := time.Now()
			settle(t, d, queue.Verdict{Action: queue.Retry, Delay: time.Second})
			d = receive(t, one.Source())
			if waited := time.Since(began); waited < time.Second {
				t.Errorf("came again after %v", waited)
			}

			// The queue of another host.
			two, _ := dial(t, Config{URLs: []string{b.URL()}, Host: "two", Pools: []string{"q"}})
			<-two.Joined()
			if err := two.Answer(within(t), queue.Question{ID: "1", From: "one"}, queue.Offer{}); err != nil {
				t.Fatal(err)
			}
			o := next(t, one.Offers())
			if o.Young <= 0 || o.Young > youth {
				t.Errorf("the queue is young for %v", o.Young)
			}
			go func() {
				ended <- d.Settle(t.Context(), queue.Verdict{Action: queue.Forward, Host: "two", Keep: o.Young}, nil)
			}()
			two.Source().Demand(1)
			receive(t, two.Source())
			again()
			if err := <-ended; !errors.Is(err, queue.ErrLost) {
				t.Errorf("settled: %v", err)
			}
			d = receive(t, one.Source())

			// The first wait queue may have no leader (3.10, 4.0): the message waits here.
			one.publish.limit = 2 * time.Second
			grow("mayfly.wait.2s")
			settle(t, d, queue.Verdict{Action: queue.Retry, Delay: 2 * time.Second})
			d = receive(t, one.Source())
			members, err := b.Eval("ra:members({'%2F_mayfly.wait.2s', node()}, 1000).")
			if err != nil {
				t.Fatal(err)
			}
			leaderless := strings.Contains(members, "timeout")
			if missed := strings.Contains(log.String(), "RabbitMQ did not take a message for a wait queue"); missed != leaderless {
				t.Errorf("the wait queue was missed: %v, and its members are %s", missed, members)
			} else if missed != d.Message().Redelivered {
				t.Errorf("doubtful: %v", d.Message().Redelivered)
			}

			// What is older is used at once.
			grow(waitName(time.Minute))
			settle(t, d, queue.Verdict{Action: queue.Retry, Delay: time.Minute})
			if n, err := channel(t, b.URL()).QueueDeclarePassive("mayfly.wait.1m", true, false, false, false, nil); err != nil || n.Messages != 1 {
				t.Errorf("%d wait, %v", n.Messages, err)
			}
		})
	}
}

// What cannot wait in its own wait queue waits in the next one.
func TestMutes(t *testing.T) {
	k := newKnown()
	for _, step := range []struct{ delay, want time.Duration }{{time.Second, time.Second}, {time.Second, 2 * time.Second}, {time.Second, 3 * time.Second}, {2 * time.Second, 5 * time.Second},
		{time.Hour, time.Hour}, {59 * time.Minute, 45 * time.Minute}, {2 * time.Hour, 30 * time.Minute}} {
		if r := k.rung(step.delay); r != step.want {
			t.Errorf("%s waits in %s, want %s", step.delay, r, step.want)
		}
		k.silent(waitName(step.want))
	}
	for _, r := range ladder {
		k.silent(waitName(r))
	}
	if r := k.rung(time.Minute); r != time.Minute {
		t.Errorf("where none answers: %s", r)
	}
	k.mute[waitName(time.Minute)] = time.Now().Add(-muteTime)
	if r := k.rung(time.Second); r != time.Minute {
		t.Errorf("after a while: %s", r)
	}
}
