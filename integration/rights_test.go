package integration

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"

	mayfly "github.com/mayfly/mayfly/clients/go"
	"github.com/mayfly/mayfly/integration/broker"
)

// TestLeastRights has deploy/rabbitmq/setup.sh prepare a virtual host of a broker for two hosts and a producer with the least rights. All goes on as it does with all rights,
// and nothing else goes.
func TestLeastRights(t *testing.T) {
	t.Parallel()
	for _, v := range broker.Versions {
		t.Run(string(v), func(t *testing.T) {
			t.Parallel()
			b := broker.Start(t, v)
			ctl := b.CtlScript(t)
			setup := func(input string, args ...string) {
				t.Helper()
				cmd := exec.Command("../deploy/rabbitmq/setup.sh", args...)
				cmd.Env = append(os.Environ(), "RABBITMQCTL="+ctl, "VHOST=mayfly")
				cmd.Stdin = strings.NewReader(input)
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Fatalf("setup.sh %v: %v\n%s", args, err, out)
				}
			}
			setup("", "queues", "default")
			setup("", "queues", "default") // with all there already
			setup("secret\n", "producer", "alice", "default")
			url := func(user string) string { return strings.Replace(b.URL(), "guest:guest", user+":secret", 1) + "mayfly" }
			var hosts []*host
			for _, cpus := range []string{"1", "4"} {
				h := newHost(t, "MAYFLY_DECLARE=passive", "MAYFLY_CPUS="+cpus)
				setup("secret\n", "host", h.name(), "default")
				h.env = append(h.env, "MAYFLY_AMQP_URL="+url(h.name()))
				h.start()
				hosts = append(hosts, h)
			}
			for _, h := range hosts {
				h.until("it hears of the other", func() bool { return len(h.fleet()) == 2 }, func() any { return h.fleet() })
			}
			if out, _, _ := hosts[0].mayfly("", "check"); !strings.Contains(out, "enough for a host with MAYFLY_DECLARE=passive") { // what else is wrong here is no matter
				t.Errorf("mayfly check finds rights lacking:\n%s", out)
			}
			c, err := mayfly.Dial(t.Context(), url("alice"))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			submit := func(task mayfly.Task) *mayfly.Handle {
				t.Helper()
				handle, err := c.Submit(t.Context(), task)
				if err != nil {
					t.Fatal(err)
				}
				return handle
			}
			wait := func(handle *mayfly.Handle, state string) {
				t.Helper()
				if r, err := handle.Wait(t.Context()); err != nil || string(r.State) != state {
					t.Errorf("%s: %+v, %v", handle.ID, r, err)
				}
			}
			// One that only the second host can run, one that is tried again, one that is buried and requeued, one that is cancelled.
			wait(submit(mayfly.Task{ID: "large", Command: []string{"true"}, Resources: mayfly.Resources{CPU: 3}}), "succeeded")
			wait(submit(mayfly.Task{ID: "again", Shell: "test $MAYFLY_ATTEMPT = 2", MaxAttempts: 2}), "succeeded")
			wait(submit(mayfly.Task{ID: "fails", Command: []string{"false"}}), "failed")
			hosts[0].expect(0, "exited with code 1", "", "dead", "list")
			sleeper := submit(mayfly.Task{ID: "sleeps", Command: []string{"sleep", "1000"}})
			hosts[0].until("it runs", func() bool { return hosts[0].running()+hosts[1].running() == 1 })
			if err := sleeper.Cancel(t.Context()); err != nil {
				t.Error(err)
			}
			wait(sleeper, "cancelled")
			for _, h := range hosts {
				if log := h.logged(); strings.Contains(log, "ACCESS_REFUSED") || strings.Contains(log, "lacks something") {
					t.Errorf("the host lacks rights:\n%s", tail(log, 3000))
				}
			}

			other := "mayfly.host." + hosts[1].name() + ".tasks"
			for who, all := range map[string]map[string]func(*amqp.Channel) error{
				hosts[0].name(): {
					"another host's queue": func(ch *amqp.Channel) error { _, _, err := ch.Get(other, false); return err },
					"a queue of its own making": func(ch *amqp.Channel) error {
						_, err := ch.QueueDeclare("own", true, false, false, false, nil)
						return err
					},
					"the end of a pool's queue": func(ch *amqp.Channel) error {
						_, err := ch.QueueDelete("mayfly.pool.default.normal", false, false, false)
						return err
					},
					"the reading of all results": func(ch *amqp.Channel) error { _, _, err := ch.Get("mayfly.wait.1s", false); return err },
					"tasks for another pool":     publishing("mayfly.tasks", "other"),
				},
				"alice": {
					"tasks of others":        func(ch *amqp.Channel) error { _, _, err := ch.Get("mayfly.pool.default.normal", false); return err },
					"dead letters":           func(ch *amqp.Channel) error { _, _, err := ch.Get("mayfly.dead", false); return err },
					"forged results":         publishing("mayfly.results", "default.x"),
					"tasks for another pool": publishing("mayfly.tasks", "other"),
					"what hosts say":         publishing("mayfly.control", "hello.default"),
					"tasks for one host":     publishing(other, ""),
				},
			} {
				conn, err := amqp.Dial(url(who))
				if err != nil {
					t.Fatal(err)
				}
				for what, try := range all {
					ch, err := conn.Channel()
					if err == nil {
						err = try(ch)
					}
					if fault, ok := err.(*amqp.Error); !ok || fault.Code != amqp.AccessRefused { //nolint:errorlint // as the library returns it
						t.Errorf("%s may have %s: %v", who, what, err)
					}
				}
				conn.Close()
			}
			// What is added to a key that is allowed: an old broker lets it pass, and hosts do not listen.
			conn, err := amqp.Dial(url("alice"))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			ch, err := conn.Channel()
			if err == nil {
				err = publishing("mayfly.control", "cancel", "hello.default")(ch)
			}
			if fault, ok := err.(*amqp.Error); v != broker.V310 && (!ok || fault.Code != amqp.AccessRefused) { //nolint:errorlint // as the library returns it
				t.Errorf("alice may say what hosts say: %v", err)
			}
			if v == broker.V310 {
				hosts[0].until("it says that it has not listened", func() bool { return strings.Contains(hosts[0].logged(), `no host may have sent`) })
			}
		})
	}
}

// publishing tries to publish something, by a key and maybe others.
func publishing(exchange, key string, copies ...any) func(*amqp.Channel) error {
	return func(ch *amqp.Channel) error {
		closed := ch.NotifyClose(make(chan *amqp.Error, 1))
		if err := ch.Confirm(false); err != nil {
			return err
		}
		c, err := ch.PublishWithDeferredConfirm(exchange, key, false, false, amqp.Publishing{Type: "mayfly.hello", Body: []byte("{}"), Headers: amqp.Table{"CC": copies}})
		if err != nil {
			return err
		}
		<-c.Done()
		if c.Acked() {
			return nil
		}
		// A channel that the broker closes names the fault before it gives up what is unconfirmed.
		select {
		case fault := <-closed:
			return fault
		default:
			return errors.New("the broker did not take the message")
		}
	}
}
