package integration

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mayfly/mayfly/integration/broker"
	"github.com/mayfly/mayfly/queue"
)

// spread is tasks that run on several hosts at once, leave a mark when they begin, and end with code 7 when they may.
type spread struct {
	t     *testing.T
	hosts []*host
	p     *producer
	marks string
	ids   []string
}

// newSpread has hosts of four cores each run so many tasks, which wait for [spread.finish].
func newSpread(t *testing.T, hosts []*host, p *producer, count int) *spread {
	t.Helper()
	s := &spread{t: t, hosts: hosts, p: p, marks: hosts[0].marks()}
	gate := filepath.Join(s.marks, "go") // a pipe: to wait at it costs the workers nothing
	if err := errors.Join(syscall.Mkfifo(gate, 0o644), os.Chmod(gate, 0o644)); err != nil {
		t.Fatal(err)
	}
	cpu := min(0.2, 0.9*4*float64(len(hosts))/float64(count)) // some for each host
	for i := range count {
		id := fmt.Sprintf("r%03d", i)
		s.ids = append(s.ids, id)
		p.publish("default", fmt.Sprintf(`{"id": %q, "resources": {"cpu": %.3f, "memory": "16MiB"},
			"shell": "umask 0; echo x >>%[3]s/%[1]s; read _ <%[3]s/go; exit 7"}`, id, cpu, s.marks))
	}
	hosts[0].until("all run", func() bool { return s.running() == count }, func() any { return s.running() })
	return s
}

func (s *spread) running() (n int) {
	for _, h := range s.hosts {
		n += h.running()
	}
	return n
}

// story is what the hosts have said about each other and the broker, for who looks for a fault.
func (s *spread) story() any {
	var all []string
	for _, h := range s.hosts {
		all = append(all, fmt.Sprintf("%s: %d run", h.name(), h.running()))
		for line := range strings.Lines(h.logged()) {
			for _, words := range []string{"RabbitMQ", "no host that lives", "does not answer", "not asked", "not answered", "not greeted", "channel"} {
				if strings.Contains(line, words) {
					all = append(all, strings.TrimSpace(line))
					break
				}
			}
		}
	}
	return strings.Join(all, "\n")
}

// finish lets the tasks end, and checks that each was begun once, has one result, and that nothing is left in any queue.
func (s *spread) finish() {
	s.t.Helper()
	// Who opens a pipe lets those go on that wait for it; where it is none, there is a file now that they look for.
	gate, err := os.OpenFile(filepath.Join(s.marks, "go"), os.O_RDWR|os.O_CREATE, 0o644)
	if err == nil {
		err = gate.Close()
	}
	if err != nil {
		s.t.Fatal(err)
	}
	s.p.waitFor("all results", func() bool { return len(s.p.results) >= len(s.ids) })
	for id, r := range s.p.once(s.ids) {
		text, _ := os.ReadFile(filepath.Join(s.marks, id))
		if r.ExitCode == nil || *r.ExitCode != 7 || len(r.Attempts) != 1 || string(text) != "x\n" {
			s.t.Errorf("%s: %+v, begun %q", id, r, text)
		}
	}
	for _, h := range s.hosts {
		h.until("it is idle", func() bool { return len(h.tasks()) == 0 }, func() any { return h.tasks() })
	}
	names := []string{"mayfly.pool.default.high", "mayfly.pool.default.normal", "mayfly.pool.default.low"}
	for _, h := range s.hosts {
		names = append(names, "mayfly.host."+h.name()+".tasks")
	}
	for _, name := range names {
		s.hosts[0].until(name+" is empty", func() bool { return s.p.depth(name) <= 0 })
	}
}

// TestFleetBrokerRestarted stops and starts the broker while three hosts run tasks: none is run twice, wherever its message comes back.
func TestFleetBrokerRestarted(t *testing.T) {
	t.Parallel()
	for _, v := range broker.Versions {
		t.Run(string(v), func(t *testing.T) {
			b := broker.Start(t, v)
			hosts := fleet(t, b.URL(), []string{"MAYFLY_CPUS=4"}, []string{"MAYFLY_CPUS=4"}, []string{"MAYFLY_CPUS=4"})
			p := newProducer(t, b.URL())
			s := newSpread(t, hosts, p, 200)
			p.conn.Close()
			if err := b.Stop(); err != nil {
				t.Fatal(err)
			}
			if err := b.Start(); err != nil {
				t.Fatal(err)
			}
			p.connect(b.URL())
			hosts[0].until("all messages are back with their workers", func() bool {
				n := 0
				for _, h := range hosts {
					n += strings.Count(h.logged(), `"msg":"task adopted"`)
				}
				return n >= len(s.ids)
			}, s.story)
			s.finish()
		})
	}
}

// TestFleetDrain restarts the broker while a host drains: its tasks run on there, and nowhere else, and their results are told before it ends.
func TestFleetDrain(t *testing.T) {
	t.Parallel()
	b := broker.Start(t, broker.V43)
	hosts := fleet(t, b.URL(), []string{"MAYFLY_CPUS=4"}, []string{"MAYFLY_CPUS=4"})
	p := newProducer(t, b.URL())
	s := newSpread(t, hosts, p, 20)
	drains := hosts[0]
	s.hosts = hosts[1:]
	drains.expect(0, "", "", "drain", "--timeout", "1h")
	drains.until("it drains", func() bool { info, err := drains.info(); return err == nil && info.State == "draining" })
	p.conn.Close()
	if err := errors.Join(b.Stop(), b.Start()); err != nil {
		t.Fatal(err)
	}
	p.connect(b.URL())
	drains.until("all messages are back with their workers", func() bool {
		n := 0
		for _, h := range hosts {
			n += strings.Count(h.logged(), `"msg":"task adopted"`)
		}
		return n >= len(s.ids)
	}, func() any { s.hosts = hosts; return s.story() })
	s.finish()
	if err := drains.wait(); err != nil {
		t.Errorf("the manager that drains ended with %v", err)
	}
}

// TestFleetAcknowledgementTimeout has the broker time out the acknowledgements of tasks on two hosts again and again: each is adopted where it runs.
func TestFleetAcknowledgementTimeout(t *testing.T) {
	t.Parallel()
	for _, v := range broker.Versions {
		t.Run(string(v), func(t *testing.T) {
			b := broker.StartWith(t, v, broker.Options{Config: "consumer_timeout = 4000\n"})
			// By default the broker looks once a minute.
			if _, err := b.Eval("application:set_env(rabbit, channel_tick_interval, 500), ok."); err != nil {
				t.Fatal(err)
			}
			hosts := fleet(t, b.URL(), nil, nil)
			p := newProducer(t, b.URL())
			s := newSpread(t, hosts, p, 8)
			hosts[0].until("both hosts have lost deliveries, and got all back", func() bool {
				if err := b.TimeOut("mayfly.pool.default.normal"); err != nil {
					t.Fatal(err)
				}
				adopted := 0
				for _, h := range hosts {
					if !strings.Contains(h.logged(), "lost deliveries") {
						return false
					}
					adopted += strings.Count(h.logged(), `"msg":"task adopted"`)
				}
				return adopted >= 2*len(s.ids)
			})
			s.finish()
		})
	}
}

// TestMinutesOfTimeouts has tasks of five minutes, and a broker that does not wait for more than one: what it does by itself, without the hurry of the test above.
func TestMinutesOfTimeouts(t *testing.T) {
	if os.Getenv("MAYFLY_TEST_CHAOS") == "" {
		t.Skip("it takes six minutes: make chaos runs it")
	}
	t.Parallel()
	for _, v := range broker.Versions {
		t.Run(string(v), func(t *testing.T) {
			t.Parallel()
			b := broker.StartWith(t, v, broker.Options{Config: "consumer_timeout = 60000\n"})
			hosts := fleet(t, b.URL(), nil, nil)
			s := newSpread(t, hosts, newProducer(t, b.URL()), 8)
			time.Sleep(5 * time.Minute)
			s.finish()
			adopted := 0
			for _, h := range hosts {
				adopted += strings.Count(h.logged(), `"msg":"task adopted"`)
			}
			if t.Logf("%d adoptions of %d tasks", adopted, len(s.ids)); adopted < len(s.ids) {
				t.Error("the broker has hardly timed anything out")
			}
		})
	}
}

// TestFleetManagerKilled kills the manager of one of two hosts, and starts it again: what comes back to the other host belongs to the keeper's workers,
// also what one host had handed to the other.
func TestFleetManagerKilled(t *testing.T) {
	t.Parallel()
	eachVersion(t, func(t *testing.T, _ *broker.Broker, url string) {
		hosts := fleet(t, url, []string{"MAYFLY_CPUS=1"}, []string{"MAYFLY_CPUS=8"})
		p := newProducer(t, url)
		marks := hosts[0].marks()
		const count = 4
		ids := []string{}
		for i := range count { // the first host cannot run them
			id := fmt.Sprintf("k%d", i)
			ids = append(ids, id)
			p.publish("default", fmt.Sprintf(`{"id": %q, "resources": {"cpu": 2, "memory": "16MiB"},
				"shell": "umask 0; echo x >>%[2]s/%[1]s; while ! test -e %[2]s/go; do sleep 0.1; done; exit 7"}`, id, marks))
		}
		hosts[1].until("all run", func() bool { return hosts[1].running() == count })
		hosts[1].kill()
		hosts[1].start()
		s := &spread{t: t, hosts: hosts, p: p, marks: marks, ids: ids}
		s.finish()
	})
}

// TestOnLost has the broker fall silent: the task that must not go on is stopped and tried again, the other one is none the worse.
func TestOnLost(t *testing.T) {
	t.Parallel()
	b := broker.Start(t, broker.V43)
	hosts := fleet(t, b.URL(), []string{"MAYFLY_ON_LOST=kill"}, []string{"MAYFLY_ON_LOST=kill"})
	p := newProducer(t, b.URL())
	marks := hosts[0].marks()
	for _, onLost := range []string{"keep", "kill"} {
		field := ""
		if onLost == "keep" {
			field = `"on_lost": "keep", `
		}
		p.publish("default", fmt.Sprintf(`{"id": %q, %s"resources": {"memory": "16MiB"},
			"shell": "umask 0; echo x >>%[3]s/%[1]s; while ! test -e %[3]s/go; do sleep 0.1; done; exit 7"}`, onLost, field, marks))
	}
	running := func() int { return hosts[0].running() + hosts[1].running() }
	hosts[0].until("both run", func() bool { return running() == 2 })
	if err := b.Pause(); err != nil {
		t.Fatal(err)
	}
	hosts[0].until("one was stopped", func() bool { return running() == 1 })
	if err := b.Resume(); err != nil {
		t.Fatal(err)
	}
	hosts[0].until("it runs again", func() bool {
		text, _ := os.ReadFile(filepath.Join(marks, "kill"))
		return string(text) == "x\nx\n"
	})
	if err := os.WriteFile(filepath.Join(marks, "go"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if r := p.wait("keep"); len(r.Attempts) != 1 || r.Cause != queue.CauseExit {
		t.Errorf("%+v", r)
	}
	if r := p.wait("kill"); len(r.Attempts) != 2 || r.Attempts[0].Cause != queue.CauseHostLost || r.Cause != queue.CauseExit {
		t.Errorf("%+v", r)
	}
}

// TestUnfit takes from a host what its workers need: it stops taking tasks, says so, and the other host runs them; when it has that back, it takes tasks
// again.
func TestUnfit(t *testing.T) {
	t.Parallel()
	eachVersion(t, func(t *testing.T, _ *broker.Broker, url string) {
		hosts := fleet(t, url, nil, nil)
		p := newProducer(t, url)
		attempts := filepath.Join(hosts[0].dir, "state/attempts")
		if err := os.Rename(attempts, attempts+".away"); err != nil {
			t.Fatal(err)
		}
		unfit := func() string {
			info, err := hosts[0].info()
			if err != nil {
				t.Fatal(err)
			}
			return info.Unfit
		}
		const count = 20
		for i := range count {
			p.publish("default", fmt.Sprintf(`{"id": "u%02d", "resources": {"memory": "16MiB"}, "command": ["true"]}`, i))
		}
		for i := range count {
			r := p.wait(fmt.Sprintf("u%02d", i))
			if r.State != queue.Succeeded || r.Host != hosts[1].name() {
				t.Errorf("%s: %s on %s", r.ID, r.State, r.Host)
			}
			for _, past := range r.Attempts[:len(r.Attempts)-1] {
				if past.Cause != queue.CauseHostLost || past.Host != hosts[0].name() {
					t.Errorf("%s: %+v", r.ID, past)
				}
			}
		}
		if !strings.Contains(unfit(), "cannot make the attempt's directory") {
			t.Errorf("unfit is %q", unfit())
		}
		hosts[1].expect(0, "takes no tasks: 3 workers", "", "hosts")
		if err := os.Rename(attempts+".away", attempts); err != nil {
			t.Fatal(err)
		}
		hosts[0].until("it is fit again", func() bool { return unfit() == "" })
		hosts[1].stop()
		p.publish("default", `{"id": "after", "resources": {"memory": "16MiB"}, "command": ["true"]}`)
		if r := p.wait("after"); r.Host != hosts[0].name() {
			t.Errorf("after: %+v", r)
		}
		if left, _ := filepath.Glob(filepath.Join(attempts, "_probe*")); len(left) > 0 {
			t.Errorf("probes left %v", left)
		}
	})
}
