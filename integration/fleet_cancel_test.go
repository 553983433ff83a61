package integration

import (
	"fmt"
	"testing"

	"github.com/mayfly/mayfly/integration/broker"
	"github.com/mayfly/mayfly/manager"
	"github.com/mayfly/mayfly/queue"
)

// TestCancelAnywhere cancels tasks wherever they can be, by id and by label, from a host that has none of them.
func TestCancelAnywhere(t *testing.T) {
	t.Parallel()
	eachVersion(t, func(t *testing.T, _ *broker.Broker, url string) {
		far := newHost(t, "MAYFLY_AMQP_URL="+url, "MAYFLY_POOLS=other")
		h := newHost(t, "MAYFLY_AMQP_URL="+url, "MAYFLY_CPUS=2")
		far.start()
		h.start()
		p := newProducer(t, url)
		publish := func(id, label, rest string) {
			p.publish("default", fmt.Sprintf(`{"id": %q, "labels": {"batch": %q}, %s}`, id, label, rest))
		}
		const forever = `"command": ["sleep", "1000"], "resources": {"memory": "16MiB"}`
		publish("running", "", forever)
		publish("running-label", "first", forever)
		h.until("both run", func() bool { return h.running() == 2 })
		publish("waiting", "", forever)
		publish("waiting-label", "first", forever)
		publish("parked", "", `"command": ["true"], "resources": {"cpu": 64}`)
		publish("parked-label", "first", `"command": ["true"], "resources": {"cpu": 64}`)
		h.until("all are there", func() bool {
			return h.statusOf("waiting") == manager.Waiting && h.statusOf("waiting-label") == manager.Waiting &&
				h.statusOf("parked") == manager.Parked && h.statusOf("parked-label") == manager.Parked
		})
		gone := func(ids ...string) {
			t.Helper()
			for _, id := range ids {
				if r := p.wait(id); r.State != queue.Cancelled || r.Cause != queue.CauseCancelled {
					t.Errorf("%s: %+v", id, r)
				}
			}
		}
		far.expect(0, "all hosts were told", "", "cancel", "waiting", "parked", "running")
		gone("waiting", "parked", "running")
		far.expect(0, "all hosts were told", "", "cancel", "--label", "batch=first")
		gone("waiting-label", "parked-label", "running-label")
		far.expect(2, "", "KEY=VALUE", "cancel", "--label", "batch")

		publish("failing", "", `"command": ["false"], "max_attempts": 2, "backoff": "3s"`)
		h.until("it backs off", func() bool {
			var v manager.View
			return h.get("/v1/tasks/failing", &v) == nil && v.Status == manager.BackingOff
		})
		far.expect(0, "all hosts were told", "", "cancel", "failing")
		gone("failing")

		// The manager is away, its worker is not; other tasks have not been seen by any host.
		publish("orphan", "", forever)
		publish("orphan-label", "second", forever)
		h.until("both run", func() bool { return h.running() == 2 })
		h.kill()
		publish("unseen", "", forever)
		publish("unseen-label", "second", forever)
		far.expect(0, "all hosts were told", "", "cancel", "orphan", "unseen")
		far.expect(0, "all hosts were told", "", "cancel", "--label", "batch=second")
		h.start()
		gone("orphan", "orphan-label", "unseen", "unseen-label")
		// What is published afterwards is another task.
		p.publish("default", `{"id": "after", "labels": {"batch": "third"}, "command": ["true"]}`)
		if r := p.wait("after"); r.State != queue.Succeeded {
			t.Errorf("after: %+v", r)
		}
		h.until("it is idle", func() bool { return len(h.tasks()) == 0 })
	})
}
