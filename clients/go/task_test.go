package mayfly_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	mayfly "github.com/mayfly/mayfly/clients/go"
	"github.com/mayfly/mayfly/queue"
)

var full = mayfly.Task{
	ID: "job_456", Name: "simulation-task", Command: []string{"python3", "sim.py", "<&>"}, Params: map[string]any{"dataset": "report_Q3"},
	Image: "registry/app:1", Environment: map[string]string{"KEY": "value"}, Workdir: "/data/run1",
	Resources:    mayfly.Resources{CPU: 0.5, Memory: 8e9, GPU: new(1), GPUMemory: 20e9, GPUModel: "H200", Disk: 10 << 30, Network: new(false), PIDs: 512},
	Alternatives: []mayfly.Resources{{GPU: new(2), GPUModel: "A100"}, {GPU: new(0)}}, Timeout: 2 * time.Hour, Grace: new(time.Duration(0)), MaxAttempts: 3,
	Backoff: new(1500 * time.Microsecond), Priority: new(0), Deadline: time.Date(2026, 12, 1, 0, 0, 0, 5, time.FixedZone("", 3600)),
	Labels: map[string]string{"zone": "a"}, Pool: "gpu",
}

// What a host makes of a task is what was given, and nothing else.
func TestTaskIsWhatTheHostReads(t *testing.T) {
	t.Parallel()
	schema, err := jsonschema.NewCompiler().Compile("../../docs/schema/task.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	read := func(task mayfly.Task) queue.Task {
		t.Helper()
		body, err := json.Marshal(task)
		if err != nil {
			t.Fatal(err)
		}
		document, err := jsonschema.UnmarshalJSON(strings.NewReader(string(body)))
		if err != nil {
			t.Fatal(err)
		}
		if err := schema.Validate(document); err != nil {
			t.Errorf("%s: %v", body, err)
		}
		got, err := queue.Decode(queue.Message{Body: body})
		if err != nil {
			t.Fatalf("%s: %v", body, err)
		}
		return got
	}
	got := read(full)
	want := queue.Task{
		ID: "job_456", Name: "simulation-task", Command: []string{"python3", "sim.py", "<&>"}, Params: json.RawMessage(`{"dataset":"report_Q3"}`),
		Image: "registry/app:1", Environment: map[string]string{"KEY": "value"}, Workdir: "/data/run1",
		Resources:    queue.Resources{CPU: 0.5, Memory: 8e9, GPU: 1, GPUMemory: 20e9, GPUModel: "H200", Disk: 10 << 30, Network: new(false), PIDs: 512},
		Alternatives: []queue.Resources{{GPU: 2, GPUModel: "A100"}, {NoGPU: true}}, Timeout: 2 * time.Hour, MaxAttempts: 3,
		Backoff: 1500 * time.Microsecond, Labels: map[string]string{"zone": "a"}, Pool: "gpu",
	}
	if !got.Deadline.Equal(full.Deadline) {
		t.Errorf("deadline %s, want %s", got.Deadline, full.Deadline)
	}
	got.Deadline = want.Deadline
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	got = read(mayfly.Task{ID: "a", Shell: "true"})
	want = queue.Task{ID: "a", Shell: "true", Grace: -1, Backoff: -1, Priority: queue.DefaultPriority, NoPriority: true, Pool: queue.DefaultPool}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if got := read(mayfly.Task{Type: "t", Stdin: "x", Timeout: time.Nanosecond, Grace: new(time.Hour)}); got.Type != "t" || got.Stdin != "x" || got.Timeout != 1 || got.Grace != time.Hour {
		t.Errorf("got %+v", got)
	}
}

// The types have the fields of the schemas, which the decoder's tests hold to the decoder.
func TestTypesHaveTheSchemasFields(t *testing.T) {
	t.Parallel()
	type part struct {
		Properties map[string]part `json:"properties"`
		Defs       map[string]part `json:"$defs"`
		Enum       []string        `json:"enum"`
	}
	read := func(name string) (p part) {
		text, err := os.ReadFile(filepath.Join("../../docs/schema", name))
		if err == nil {
			err = json.Unmarshal(text, &p)
		}
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	task, result := read("task.schema.json"), read("result.schema.json")
	for _, c := range []struct {
		of   part
		like any
	}{
		{task, mayfly.Task{}}, {task.Defs["resources"], mayfly.Resources{}},
		{result, mayfly.Result{}}, {result.Defs["attempt"], mayfly.Attempt{}}, {result.Properties["usage"], mayfly.Usage{}},
	} {
		var has, want []string
		for f := range reflect.TypeOf(c.like).Fields() {
			if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "-" {
				has = append(has, name)
			}
		}
		for name := range c.of.Properties {
			want = append(want, name)
		}
		slices.Sort(has)
		slices.Sort(want)
		if !slices.Equal(has, want) {
			t.Errorf("%T has %v, its schema %v", c.like, has, want)
		}
	}
	states := []mayfly.State{mayfly.Succeeded, mayfly.Failed, mayfly.Cancelled, mayfly.Rejected}
	causes := []mayfly.Cause{mayfly.CauseNone, mayfly.CauseExit, mayfly.CauseSignal, mayfly.CauseTimeout, mayfly.CauseDeadline, mayfly.CauseOOM,
		mayfly.CauseGPUOOM, mayfly.CauseGPUFault, mayfly.CauseDiskFull, mayfly.CauseStartError, mayfly.CauseHostLost, mayfly.CauseCancelled, mayfly.CauseRejected}
	for i, name := range result.Properties["state"].Enum {
		if len(states) <= i || string(states[i]) != name {
			t.Errorf("states %v, the schema's %v", states, result.Properties["state"].Enum)
			break
		}
	}
	for i, name := range result.Defs["cause"].Enum {
		if len(causes) <= i || string(causes[i]) != name {
			t.Errorf("causes %v, the schema's %v", causes, result.Defs["cause"].Enum)
			break
		}
	}
}

func TestResultOfAHost(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 12, 1, 0, 0, 0, 5, time.UTC)
	sent := queue.Result{
		ID: "a", Name: "n", Pool: "p", State: queue.Failed, Cause: queue.CauseExit, Message: "m", ExitCode: new(7), Signal: "SIGKILL", Attempt: 2,
		Attempts: []queue.Past{{Attempt: 1, Host: "h", Cause: queue.CauseOOM, ExitCode: new(1), Signal: "s", Message: "m", StartedAt: now, FinishedAt: now}},
		Host:     "h", GPUs: []string{"GPU-1"}, QueuedAt: &now, StartedAt: &now, FinishedAt: &now,
		Usage:  queue.Usage{WallSeconds: 1, CPUSeconds: 2, MemoryPeakBytes: 3, GPUMemoryPeakBytes: 4, GPUEnergyJoules: 5, GPUUtilization: 0.6},
		Result: json.RawMessage(`{"answer":42}`), StdoutTail: "out", StderrTail: "err",
	}
	body, err := json.Marshal(sent)
	if err != nil {
		t.Fatal(err)
	}
	var got mayfly.Result
	if err := json.Unmarshal(body, &got); err != nil {
		t.Fatal(err)
	}
	back, err := json.Marshal(got)
	if err != nil || string(back) != string(body) {
		t.Errorf("got  %s\nwant %s, %v", back, body, err)
	}
}

func TestSubmitRefusesWhatCannotBeSent(t *testing.T) {
	url := one(t)
	cl := dial(t, url)
	long := strings.Repeat("x", 129)
	for _, c := range []struct {
		task mayfly.Task
		want string
	}{
		{mayfly.Task{ID: long}, `cannot submit task "` + long[:128] + `": its id has 129 bytes: at most 128 are accepted`},
		{mayfly.Task{ID: "a", Pool: long}, `cannot submit task "a": its pool's name has 129 bytes: at most 64 are accepted`},
		{mayfly.Task{ID: "a", Command: []string{"x", "\xff"}}, `cannot submit task "a": its command[1] is not UTF-8: send other bytes encoded, or in a file`},
		{mayfly.Task{ID: "a", Shell: "\xff"}, `cannot submit task "a": its shell is not UTF-8: send other bytes encoded, or in a file`},
		{mayfly.Task{ID: "a", Environment: map[string]string{"A": "\xff"}}, `cannot submit task "a": its environment."A" is not UTF-8: send other bytes encoded, or in a file`},
		{mayfly.Task{ID: "a", Labels: map[string]string{"\xff": ""}}, `cannot submit task "a": its labels."\xff" is not UTF-8: send other bytes encoded, or in a file`},
		{mayfly.Task{ID: "a", Alternatives: []mayfly.Resources{{GPUModel: "\xff"}}}, `cannot submit task "a": its alternatives[0].gpu_model is not UTF-8: send other bytes encoded, or in a file`},
		{mayfly.Task{ID: "a", Stdin: strings.Repeat("x", mayfly.MaxTask)}, `cannot submit task "a": it has 16777237 bytes: at most 16777216 are accepted, so send a reference to large data`},
		{mayfly.Task{ID: "a", Headers: map[string]string{strings.Repeat("x", 256): ""}}, `cannot submit task "a": a header's name has 256 bytes: at most 255 are accepted`},
		{mayfly.Task{ID: "a", Headers: map[string]string{"x": strings.Repeat("x", 1<<16)}}, `cannot submit task "a": its headers have 65543 bytes: at most 65536 are accepted`},
		{mayfly.Task{ID: "a", Params: func() {}}, `cannot submit task "a": json: error calling MarshalJSON for type *mayfly.Task: json: unsupported type: func()`},
	} {
		if _, err := cl.Submit(within(t), c.task); err == nil || err.Error() != c.want {
			t.Errorf("%v, want %s", err, c.want)
		}
	}
}
