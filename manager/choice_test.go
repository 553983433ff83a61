package manager

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mayfly/mayfly/gpu"
	"github.com/mayfly/mayfly/queue"
	"github.com/mayfly/mayfly/worker"
)

// gpuDriver tells of GPUs that are always well.
type gpuDriver struct{ devices []gpu.Device }

func (d gpuDriver) Inventory(context.Context) (*gpu.Inventory, error) {
	return &gpu.Inventory{Devices: d.devices}, nil
}

func (d gpuDriver) States(_ context.Context, gpus []string, _ bool) (list []gpu.State, err error) {
	for _, uuid := range gpus {
		list = append(list, gpu.State{UUID: uuid, At: time.Now()})
	}
	return list, nil
}

func (d gpuDriver) Watch(func(gpu.Fault)) {}

// withGPUs returns a ledger of a host with so many GPUs: the first half beside node 0, the others beside node 1.
func withGPUs(t *testing.T, n int) *ledger {
	t.Helper()
	var d gpuDriver
	for i := range n {
		d.devices = append(d.devices, gpu.Device{UUID: fmt.Sprint("GPU-", i), Index: i, Model: "NVIDIA H100", Memory: 80 << 30, Node: i * 2 / n})
	}
	host, err := gpu.Open(t.Context(), gpu.Config{Driver: d, Clean: time.Minute, FormatSize: queue.FormatSize, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(host.Close)
	host.Start()
	for end := time.Now().Add(10 * time.Second); host.Lacks(gpu.Request{Count: n}) != ""; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the GPUs are not free")
		}
	}
	return &ledger{total: Capacity{MilliCPU: 8000, Memory: 8 << 30, Disk: 1 << 30}, gpus: host, defaultMilliCPU: 1000, defaultPIDs: 10,
		cores: newCorePool([]Core{{0, 0}, {1, 0}, {2, 0}, {3, 0}, {4, 1}, {5, 1}, {6, 1}, {7, 1}})}
}

// decoded is a task as a producer writes it.
func decoded(t *testing.T, body string) *queue.Task {
	t.Helper()
	task, err := queue.Decode(queue.Message{Body: []byte(body), MessageID: "x", Pool: "default"})
	if err != nil {
		t.Fatal(err)
	}
	return &task
}

// sentence is what a refusal says; nothing where there is none.
func sentence(r *queue.Refusal) string {
	if r == nil {
		return ""
	}
	return r.Error()
}

// TestAlternatives holds which of a task's ways is taken.
func TestAlternatives(t *testing.T) {
	t.Parallel()
	l := withGPUs(t, 2)
	for _, tt := range []struct {
		body string
		want string // the cores and GPUs of the lease, or why there is none
	}{
		{`{"shell": "x", "resources": {"gpu": 3, "cpu": 4}, "alternatives": [{"gpu": 2, "gpu_model": "A100"}, {"gpu": 1}, {"cpu": 1}]}`, "4 cores, 1 GPUs"},
		{`{"shell": "x", "resources": {"gpu": 1, "gpu_model": "A100"}, "alternatives": [{"cpu": 8}, {"gpu": 0, "cpu": 2}]}`, "2 cores, 0 GPUs"},
		{`{"shell": "x", "resources": {"gpu": 0}, "alternatives": [{"gpu": 1}]}`, "1 core, 0 GPUs"},
		{`{"shell": "x", "resources": {"gpu_memory": "40GB"}}`, "1 core, 1 GPUs"},
		{`{"shell": "x", "resources": {"gpu": 3}}`, "resources.gpu is 3: this host lends 2 such"},
		{`{"shell": "x", "resources": {"gpu": 3}, "alternatives": [{"cpu": 9}]}`, "resources.gpu is 3: this host lends 2 such; none of the alternatives can be had either"},
		{`{"shell": "x", "resources": {"gpu_memory": "100GB", "gpu_model": "H100"}}`, `resources.gpu_model is "H100" and resources.gpu_memory is 100GB: this host lends 2 NVIDIA H100 with`},
		{`{"shell": "x", "resources": {"cpu": 9}, "alternatives": [{"cpu": 8}]}`, "8 cores, 0 GPUs"},
	} {
		list, refusal := l.choices(decoded(t, tt.body))
		got := sentence(refusal)
		if len(list) > 0 {
			taken, lease, why := l.lend("x.1", list, nil)
			if taken == nil {
				t.Errorf("%s: %s", tt.body, why)
				continue
			}
			got = fmt.Sprintf("%s, %d GPUs", cores(lease.MilliCPU), len(lease.GPUs))
			l.gpus.Take("x.1", lease.GPUs)
			l.giveBack("x.1", lease)
		}
		if !strings.HasPrefix(got, tt.want) {
			t.Errorf("%s: %q, want %q", tt.body, got, tt.want)
		}
		for end := time.Now().Add(10 * time.Second); l.gpus.Lacks(gpu.Request{Count: 2}) != "" && time.Now().Before(end); {
			time.Sleep(time.Millisecond)
		}
	}
}

// TestLend has the second choice taken while the first is in use, and cores beside GPUs.
func TestLend(t *testing.T) {
	t.Parallel()
	l := withGPUs(t, 2)
	list, _ := l.choices(decoded(t, `{"shell": "x", "resources": {"gpu": 2, "cpu": 2}, "alternatives": [{"gpu": 1, "cpu": 2}]}`))
	_, first, _ := l.lend("a.1", list[1:], nil)
	if first.GPUs[0].UUID != "GPU-0" || !maps.Equal(first.Cores, map[int]int64{0: 1000, 1: 1000}) {
		t.Errorf("first: %+v", first)
	}
	taken, second, _ := l.lend("b.1", list, nil)
	if taken != &list[1] || len(second.GPUs) != 1 || second.GPUs[0].UUID != "GPU-1" || !maps.Equal(second.Cores, map[int]int64{4: 1000, 5: 1000}) {
		t.Errorf("second: %+v", second)
	}
	if taken, lease, why := l.lend("c.1", list, nil); taken != nil || lease.GPUs != nil || !strings.HasPrefix(why, "waits for 2 GPUs: 0 of 2 are free") {
		t.Errorf("third: %+v, %q", lease, why)
	}
	if l.lent.MilliCPU != 4000 {
		t.Errorf("%d thousandths are lent", l.lent.MilliCPU)
	}
	// Without GPUs, nothing is near.
	if _, lease, _ := l.lend("d.1", []choice{{lease: worker.Lease{MilliCPU: 500}}}, nil); len(lease.Cores) != 1 {
		t.Errorf("%+v", lease)
	}
}

// TestGPUsKept has a task that waits for GPUs kept just as many as it needs, those that come first.
func TestGPUsKept(t *testing.T) {
	t.Parallel()
	l := withGPUs(t, 4)
	m := &Manager{ledger: *l, active: map[string]*entry{}}
	now := time.Now()
	entryOf := func(body string) *entry {
		e := newEntry(worker.Attempt{Task: *decoded(t, body), Number: 1}, nil)
		e.choices, _ = l.choices(&e.attempt.Task)
		return e
	}
	run := func(body string, kept *reservation) *entry {
		e := entryOf(body)
		var taken *choice
		var why string
		if taken, e.attempt.Lease, why = m.ledger.lend(e.attempt.ID(), e.choices, kept); taken == nil {
			t.Logf("%s: %s", body, why)
			return nil
		}
		e.status, e.startedAt = Running, now
		m.active[e.attempt.Task.ID] = e
		return e
	}
	run(`{"id": "two", "shell": "x", "grace": 0, "timeout": "1h", "resources": {"gpu": 2, "cpu": 1}}`, nil)
	head := entryOf(`{"id": "head", "shell": "x", "resources": {"gpu": 3, "cpu": 1}}`)
	r := m.reserve(head, now)
	if r == nil || len(r.gpus) != 3 || !r.at.Equal(now.Add(time.Hour)) {
		t.Fatalf("reserved: %+v", r)
	}
	if run(`{"id": "a", "shell": "x", "resources": {"gpu": 2, "cpu": 1}}`, r) != nil {
		t.Error("two GPUs were taken, though only one is left over")
	}
	if a := run(`{"id": "b", "shell": "x", "resources": {"gpu": 1, "cpu": 1}}`, r); a == nil || slices.Contains(r.gpus, a.attempt.Lease.GPUs[0].UUID) {
		t.Errorf("the GPU that is left over: %+v", a)
	}
	if run(`{"id": "c", "shell": "x", "resources": {"gpu": 1, "cpu": 1}}`, r) != nil {
		t.Error("a GPU was taken that is kept")
	}
	if run(`{"id": "d", "shell": "x", "resources": {"cpu": 4}}`, r) == nil {
		t.Error("cores beside are kept, too")
	}
	if a := run(`{"id": "e", "shell": "x", "resources": {"gpu": 1, "cpu": 1}}`, nil); a == nil {
		t.Error("what ends in time was not let pass")
	}
	// What no end of a task here frees is not waited for.
	never := entryOf(`{"id": "never", "shell": "x", "resources": {"gpu": 4, "cpu": 1}}`)
	m.ledger.lent.MilliCPU += 8000
	if r := m.reserve(never, now); r != nil {
		t.Errorf("reserved: %+v", r)
	}
}

// TestNear holds that cores are of the nodes that are asked for, as far as those have room.
func TestNear(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		before []int64
		milli  int64
		near   []int
		want   map[int]int64
	}{
		"beside":                    {nil, 2000, []int{1}, map[int]int64{2: 1000, 3: 1000}},
		"a fraction":                {[]int64{500}, 500, []int{1}, map[int]int64{2: 500}},
		"beside two nodes":          {nil, 4000, []int{1, 0}, map[int]int64{0: 1000, 1: 1000, 2: 1000, 3: 1000}},
		"no room there":             {[]int64{3000}, 2000, []int{0}, nil},
		"no such node":              {nil, 1000, []int{-1}, map[int]int64{0: 1000}},
		"whole elsewhere, not bits": {[]int64{1000, 500}, 1000, []int{0}, map[int]int64{2: 1000}},
	} {
		c := fourCores()
		for _, milli := range tt.before {
			c.mark(c.pick(milli))
		}
		got := c.pick(tt.milli, tt.near...)
		if tt.want == nil {
			tt.want = c.pick(tt.milli)
		}
		if !maps.Equal(got, tt.want) {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
		}
	}
}

// TestRefusalsField holds that a host that is alone names the field of what it cannot run.
func TestRefusalsField(t *testing.T) {
	t.Parallel()
	b := newBenchWith(t, func(c *Config, _ *Services) { c.Alone = true })
	for field, x := range map[string]struct{ body, says string }{
		"resources.cpu":    {`{"command":["true"],"resources":{"cpu":3}}`, "resources.cpu is 3 cores: this host lends 1 core"},
		"resources.memory": {`{"command":["true"],"resources":{"memory":"2GiB"}}`, "resources.memory is 2GiB: this host lends 1GiB"},
		"resources.gpu": {`{"command":["true"],"resources":{"gpu":2,"gpu_model":"A: B"},"alternatives":[{"cpu":9}]}`,
			`resources.gpu is 2 and resources.gpu_model is "A: B": this host lends no GPU; none of the alternatives can be had either`},
	} {
		_, err := b.Submit(t.Context(), []byte(x.body), "")
		var r *queue.Refusal
		if !errors.As(err, &r) || r.Field != field || r.Error() != x.says {
			t.Errorf("%s: %+v, want %s", field, err, x.says)
		}
	}
}
