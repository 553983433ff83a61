package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/mayfly/mayfly/integration/broker"
	"github.com/mayfly/mayfly/manager"
)

// A fleet that scales to nothing: who adds hosts learns from the broker how many are needed, and a host without work leaves and says so.
func TestScaleToZero(t *testing.T) {
	t.Parallel()
	b := broker.Shared(t, broker.V40)
	url := b.Vhost(t)
	mark := filepath.Join(t.TempDir(), "left")
	h := newHost(t, "MAYFLY_AMQP_URL="+url, "MAYFLY_IDLE_EXIT=500ms", "MAYFLY_IDLE_COMMAND=echo off >"+mark)
	h.start() // declares the queues, finds nothing to do
	if err := h.wait(); err != nil {
		t.Fatalf("the manager ended with %v", err)
	}
	if text, err := os.ReadFile(mark); err != nil || string(text) != "off\n" {
		t.Errorf("the command left %q, %v", text, err)
	}
	h.nothingLeft()

	p := newProducer(t, url)
	const tasks = 10
	for i := range tasks {
		p.publish("default", fmt.Sprintf(`{"id": "t%d", "command": ["true"]}`, i))
	}
	var asked struct {
		Pools []manager.PoolDemand `json:"pools"`
	}
	// The queues that the example for KEDA looks at are those that there are.
	example, err := os.ReadFile("../deploy/kubernetes/keda.yaml")
	if err != nil {
		t.Fatal(err)
	}
	looked := 0
	for _, found := range regexp.MustCompile(`queueName: ([^}\s]+)`).FindAllSubmatch(example, -1) {
		looked += p.depth(string(found[1]))
	}
	if looked != tasks {
		t.Errorf("KEDA would see %d tasks, want %d", looked, tasks)
	}
	// With nobody there, only the broker can be asked.
	out, errs, code := h.mayfly("", "demand", "--broker", "--per-host", "4", "--json")
	if err := json.Unmarshal([]byte(out), &asked); err != nil || code != 0 || len(asked.Pools) != 1 {
		t.Fatalf("demand: %d, %s, %s, %v", code, out, errs, err)
	}
	if d := asked.Pools[0]; d.Pool != "default" || d.Queued != tasks || d.Hosts != 3 {
		t.Errorf("demand: %+v", d)
	}
	// The example says how many more to start: not more than there may be.
	for most, want := range map[string]string{"10": "start 2\n", "2": "start 1\n", "1": ""} {
		cmd := exec.Command("../deploy/autoscale.sh")
		cmd.Env = append(h.environ(), "PATH="+filepath.Dir(binary)+":"+os.Getenv("PATH"), "PER_HOST=5", "MOST="+most, "PAUSE=0", "COUNT=echo 1", "START=echo start $N")
		if out, err := cmd.CombinedOutput(); err != nil || string(out) != want {
			t.Errorf("the autoscaler, %s hosts at most: %q, %v, want %q", most, out, err, want)
		}
	}
	// Nor more because those that were started at the last look have not come up yet.
	cmd := exec.Command("../deploy/autoscale.sh")
	cmd.Env = append(h.environ(), "PATH="+filepath.Dir(binary)+":"+os.Getenv("PATH"), "PER_HOST=5", "PAUSE=0", "COUNT=echo 3", "COMING=echo 2", "START=echo start $N")
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("the autoscaler, two hosts on their way: %q, %v", out, err)
	}
	if err := os.Remove(mark); err != nil {
		t.Fatal(err)
	}
	h.start() // as whoever adds hosts would
	for i := range tasks {
		p.wait(fmt.Sprint("t", i))
	}
	if err := h.wait(); err != nil {
		t.Fatalf("the manager ended with %v", err)
	}
	if _, err := os.Stat(mark); err != nil {
		t.Error(err)
	}
	if log := h.logged(); !strings.Contains(log, "nothing to do: leaving") || !strings.Contains(log, "ran MAYFLY_IDLE_COMMAND") {
		t.Errorf("log:\n%s", log)
	}
}

// A host says how much work there is.
func TestDemandOfHost(t *testing.T) {
	t.Parallel()
	h := newHost(t, "MAYFLY_CPUS=2", "MAYFLY_WINDOW=1")
	h.start()
	gate := filepath.Join(h.marks(), "gate")
	for i := range 6 {
		h.submit(fmt.Sprintf(`{"id": "t%d", "shell": "while ! test -e %s; do sleep 0.05; done", "resources": {"cpu": 1, "memory": "10MiB"}}`, i, gate))
	}
	var d manager.Demand
	h.until("two run", func() bool {
		out, _, code := h.mayfly("", "demand", "--json")
		return code == 0 && json.Unmarshal([]byte(out), &d) == nil && len(d.Pools) == 1 && d.Pools[0].Running == 2 && d.Pools[0].Waiting == 1
	}, func() any { return d })
	if p := d.Pools[0]; p.Queued != 3 || p.PerHost != 2 || p.Hosts != 2 || p.Needs == nil || *p.Needs != (manager.Needs{Tasks: 4, CPU: 4, Memory: 4 * 10 << 20}) {
		t.Errorf("%+v, %+v", p, p.Needs)
	}
	if out, _, _ := h.mayfly("", "demand"); !strings.Contains(out, "default") || !strings.Contains(strings.ToLower(out), "per host") {
		t.Errorf("%s", out)
	}
	if err := os.WriteFile(gate, nil, 0o644); err != nil {
		t.Fatal(err)
	}
}
