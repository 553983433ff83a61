package integration

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/mayfly/mayfly/integration/broker"
	"github.com/mayfly/mayfly/integration/docker"
	"github.com/mayfly/mayfly/integration/need"
	"github.com/mayfly/mayfly/queue"
)

// TestContainers sends fifty tasks with an image, of all kinds, to a host that runs four at a time, kills Docker half way, and then the
// manager: each is accounted for with its true cause, and nothing is left.
func TestContainers(t *testing.T) {
	t.Parallel()
	engine := docker.Start(t)
	version, err := engine.Command("version", "--format", "{{.Server.Version}}")
	if err != nil {
		t.Fatal(err)
	}
	need.Exercised(t, "Docker "+strings.TrimSpace(version))
	b := broker.Shared(t, broker.V43)
	url := b.Vhost(t)
	h := newHost(t, "MAYFLY_AMQP_URL="+url, "MAYFLY_CONTAINERS=on", "MAYFLY_DOCKER="+engine.Host, "MAYFLY_CONTAINER_NETWORK=host", "MAYFLY_PULL=never", "MAYFLY_LOG_LEVEL=info")
	h.start()
	p := newProducer(t, url)
	const count = 50
	want := map[string]queue.Cause{}
	ids := make([]string, count)
	for i := range count {
		id := fmt.Sprintf("c%02d", i)
		ids[i] = id
		task := map[string]any{"id": id, "image": docker.Image, "resources": map[string]any{"cpu": 1, "memory": "64MiB"},
			"shell": "cat >/dev/null; echo $MAYFLY_TASK_ID; echo '{\"n\": 1}' >$MAYFLY_RESULT; sleep 0.2", "params": map[string]any{"i": i}}
		want[id] = queue.CauseNone
		switch i % 10 {
		case 3:
			task["shell"], want[id] = "exit 9", queue.CauseExit
		case 4:
			task["shell"], want[id] = "exec dd if=/dev/zero of=/dev/null bs=200M count=1", queue.CauseOOM
		case 5:
			task["shell"], task["timeout"], task["grace"], want[id] = "sleep 600", "300ms", "300ms", queue.CauseTimeout
		case 6:
			delete(task, "shell")
			task["command"], want[id] = []string{"/bin/nothing"}, queue.CauseStartError
		case 7:
			task["image"], want[id] = "mayfly-nothing:1", queue.CauseStartError
		case 8:
			task["shell"], want[id] = "head -c 60000000 /dev/zero >$MAYFLY_SCRATCH/x", queue.CauseDiskFull
		}
		body, err := json.Marshal(task)
		if err != nil {
			t.Fatal(err)
		}
		p.publish("default", string(body))
	}
	p.waitFor("half of the results", func() bool { return len(p.results) >= count/2 })
	engine.Kill()
	engine.Up()
	p.waitFor("some more", func() bool { return len(p.results) >= count*3/4 })
	h.kill()
	h.start()
	p.waitFor("all results", func() bool { return len(p.results) >= count })
	for _, id := range ids {
		// A manager that is killed between a result's confirm and its record says it again.
		r := p.wait(id)
		if r.Cause != want[id] {
			t.Errorf("%s: %s (%s), want %s", id, r.Cause, r.Message, want[id])
		}
		if want[id] == queue.CauseNone && (r.StdoutTail != id+"\n" || string(r.Result) != `{"n":1}`) {
			t.Errorf("%s: %q, %s", id, r.StdoutTail, r.Result)
		}
	}
	h.until("no container is left", func() bool { return len(engine.Containers()) == 0 })
}
