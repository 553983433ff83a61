package tasktype

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/mayfly/mayfly/queue"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var all = Allow{Commands: true, Types: true, Images: true}

const processData = `# how reports are made
description: Turns a data set into a report.
command: [/opt/process/run, --fast]
environment: {MODE: batch, LEVEL: "1"}
workdir: /opt/process
resources: {cpu: 2, memory: 4GB, network: false}
alternatives: [{cpu: 1, memory: 8GB}]
timeout: 1h
grace: 5
max_attempts: 4
backoff: 1m
priority: 7
labels: {team: reports}
override: [timeout, resources.memory, environment, alternatives, grace, image]
max: {cpu: 8, memory: 32GB, timeout: 6h}
`

func TestATypeAndItsParamsAreEnough(t *testing.T) {
	t.Parallel()
	c := load(t, map[string]string{"process_data.yaml": processData})
	got, err := c.Resolve(task(t, `{"id": "job_456", "type": "process_data", "params": {"dataset": "report_Q3"}}`), Allow{Types: true})
	if err != nil {
		t.Fatal(err)
	}
	no := false
	want := queue.Task{
		ID: "job_456", Type: "process_data", Params: []byte(`{"dataset": "report_Q3"}`), Pool: "default",
		Command:      []string{"/opt/process/run", "--fast"},
		Environment:  map[string]string{"MODE": "batch", "LEVEL": "1"},
		Workdir:      "/opt/process",
		Resources:    queue.Resources{CPU: 2, Memory: 4e9, Network: &no},
		Alternatives: []queue.Resources{{CPU: 1, Memory: 8e9}},
		Timeout:      time.Hour, Grace: 5 * time.Second, MaxAttempts: 4, Backoff: time.Minute, Priority: 7,
		Labels: map[string]string{"team": "reports"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if want := []Type{{"process_data", "Turns a data set into a report."}}; !reflect.DeepEqual(c.Types(), want) {
		t.Errorf("the types are %v, want %v", c.Types(), want)
	}
}

func TestAMessageOverridesWhatItMay(t *testing.T) {
	t.Parallel()
	c := load(t, map[string]string{"process_data.yml": processData})
	message := task(t, `{"id": "a", "type": "process_data", "name": "n", "stdin": "text", "environment": {"LEVEL": "2", "X": ""},
		"resources": {"memory": "32GB"}, "alternatives": [{"cpu": 8}], "timeout": "6h", "grace": 0, "max_attempts": 1, "backoff": 0,
		"priority": 0, "labels": {"zone": "a"}, "deadline": "2026-12-01T00:00:00Z", "image": "app:1"}`)
	before := message
	got, err := c.Resolve(message, all)
	if err != nil {
		t.Fatal(err)
	}
	want := message
	want.Command = []string{"/opt/process/run", "--fast"}
	want.Environment = map[string]string{"MODE": "batch", "LEVEL": "2", "X": ""}
	want.Labels = map[string]string{"team": "reports", "zone": "a"}
	want.Workdir = "/opt/process"
	no := false
	want.Resources = queue.Resources{CPU: 2, Memory: 32e9, Network: &no}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if !reflect.DeepEqual(message, before) || len(message.Environment) != 2 || len(message.Labels) != 1 {
		t.Errorf("the message was written to: %+v", message)
	}
	if again, err := c.Resolve(task(t, `{"id": "b", "type": "process_data"}`), all); err != nil || len(again.Environment) != 2 {
		t.Errorf("the type was written to: %+v, %v", again, err)
	}
}

func TestTheLimitOnTheTimeoutIsTheTimeoutOfATypeWithout(t *testing.T) {
	t.Parallel()
	c := load(t, map[string]string{"t.json": `{"shell": "sleep 1", "max": {"timeout": "10m"}}`})
	got, err := c.Resolve(task(t, `{"type": "t"}`), all)
	if err != nil || got.Timeout != 10*time.Minute {
		t.Errorf("the timeout is %v, %v; want 10m", got.Timeout, err)
	}
}

func TestResolveRefusesWithOneSentence(t *testing.T) {
	t.Parallel()
	c := load(t, map[string]string{
		"process_data.yaml": processData,
		"strict.json":       `{"image": "app:1"}`,
		"whole.yaml":        "shell: exit 0\noverride: [resources, alternatives]\nmax: {gpu: 1, gpu_memory: 20GiB, disk: 1GB, pids: 9}\n",
	})
	const strict = "task type strict does not let a message set this; leave it out"
	for _, x := range []struct {
		body  string
		allow Allow
		want  string
	}{
		{`{"type": "nope"}`, all, `type is "nope": this host has no such task type; it has process_data, strict, whole`},
		{`{"type": "strict", "image": "b"}`, all, `image is "b": ` + strict},
		{`{"type": "strict", "environment": {"B": "", "A": ""}}`, all, `environment is "A B": ` + strict},
		{`{"type": "strict", "workdir": "/x"}`, all, `workdir is "/x": ` + strict},
		{`{"type": "strict", "timeout": "1h"}`, all, `timeout is "1h0m0s": ` + strict},
		{`{"type": "strict", "grace": 0}`, all, `grace is "0s": ` + strict},
		{`{"type": "strict", "alternatives": [{}]}`, all, `alternatives is "1 alternatives": ` + strict},
		{`{"type": "strict", "resources": {"cpu": 0.5}}`, all, `resources.cpu is "0.5": ` + strict},
		{`{"type": "strict", "resources": {"network": false}}`, all, `resources.network is "false": ` + strict},
		{`{"type": "strict", "resources": {"gpu_model": "H200"}}`, all, `resources.gpu_model is "H200": ` + strict},
		{`{"type": "process_data", "resources": {"cpu": 1}}`, all,
			`resources.cpu is "1": task type process_data does not let a message set this; leave it out`},
		{`{"type": "process_data", "resources": {"memory": "33GB"}}`, all,
			`resources.memory is "33GB": task type process_data allows at most 32GB`},
		{`{"type": "process_data", "timeout": "7h"}`, all, `timeout is "7h0m0s": task type process_data allows at most 6h0m0s`},
		{`{"type": "process_data", "alternatives": [{"cpu": 1}, {"cpu": 8.5}]}`, all,
			`alternatives[1].cpu is "8.5": task type process_data allows at most 8`},
		{`{"type": "whole", "resources": {"gpu": 2}}`, all, `resources.gpu is "2": task type whole allows at most 1`},
		{`{"type": "whole", "resources": {"gpu_memory": "21GiB"}}`, all,
			`resources.gpu_memory is "21GiB": task type whole allows at most 20GiB`},
		{`{"type": "whole", "resources": {"disk": "2GB"}}`, all, `resources.disk is "2GB": task type whole allows at most 1GB`},
		{`{"type": "whole", "resources": {"pids": 10}}`, all, `resources.pids is "10": task type whole allows at most 9`},

		{`{"command": ["a", "b"]}`, Allow{Types: true, Images: true},
			`command is "a b": this host runs no commands that a message names; it allows types, images`},
		{`{"shell": "a"}`, Allow{Types: true}, `shell is "a": this host runs no commands that a message names; it allows types`},
		{`{"shell": "a", "image": "app:1"}`, Allow{Commands: true},
			`image is "app:1": this host runs no images that a message names; it allows commands`},
		{`{"type": "process_data", "image": "b"}`, Allow{Types: true},
			`image is "b": this host runs no images that a message names; it allows types`},
		{`{"type": "strict"}`, Allow{Commands: true, Images: true},
			`type is "strict": this host runs no task types; it allows commands, images`},
		{`{"shell": "a"}`, Allow{}, `shell is "a": this host runs no commands that a message names; it allows nothing`},
	} {
		got, err := c.Resolve(task(t, x.body), x.allow)
		if r := (*queue.Refusal)(nil); !errors.As(err, &r) || err.Error() != x.want {
			t.Errorf("%s\n got %v (%+v)\nwant %s", x.body, err, got, x.want)
		}
	}
	for _, x := range []struct {
		body  string
		allow Allow
	}{
		{`{"command": ["a"]}`, Allow{Commands: true}},
		{`{"command": ["a"], "image": "app:1"}`, Allow{Images: true}},
		{`{"type": "strict"}`, Allow{Types: true}},
	} {
		if _, err := c.Resolve(task(t, x.body), x.allow); err != nil {
			t.Errorf("%s with %s: %v", x.body, x.allow, err)
		}
	}
}

func TestWithoutADirectoryThereAreNoTypes(t *testing.T) {
	t.Parallel()
	c, err := Load("")
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Resolve(task(t, `{"type": "a"}`), all)
	want := `type is "a": this host has no task types; send command or shell, or give it a directory of types`
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

func TestParseAllow(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Allow{
		"commands,types,images": all, "types": {Types: true}, " images , commands": {Commands: true, Images: true},
	} {
		got, err := ParseAllow(text)
		if err != nil || got != want {
			t.Errorf("%q is %+v, %v; want %+v", text, got, err, want)
		}
		if back, err := ParseAllow(got.String()); err != nil || back != got {
			t.Errorf("%q is read back as %+v, %v", got, back, err)
		}
	}
	for _, text := range []string{"", "commands,", "command", "types;images"} {
		if _, err := ParseAllow(text); err == nil || !strings.HasPrefix(err.Error(), "cannot read ") {
			t.Errorf("%q: %v, want an error", text, err)
		}
	}
}

// load writes the files into a directory and loads it.
func load(t *testing.T, files map[string]string) *Catalog {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		write(t, dir, name, text)
	}
	c, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func task(t *testing.T, body string) queue.Task {
	t.Helper()
	decoded, err := queue.Decode(queue.Message{Body: []byte(body)})
	if err != nil {
		t.Fatal(err)
	}
	return decoded
}

// TestWhatAMessageSaysAsItIs has values that are the same as if nothing was said.
func TestWhatAMessageSaysAsItIs(t *testing.T) {
	t.Parallel()
	c := load(t, map[string]string{
		"gpus.yaml":   "shell: exit 0\nresources: {gpu: 2}\npriority: 7\n",
		"choice.yaml": "shell: exit 0\nresources: {gpu: 2}\noverride: [resources.gpu]\n",
		"cores.yaml":  "shell: exit 0\n",
	})
	if got, err := c.Resolve(task(t, `{"type": "gpus", "resources": {"gpu": 0}}`), all); err == nil ||
		err.Error() != `resources.gpu is "0": task type gpus does not let a message set this; leave it out` {
		t.Errorf("the type's GPUs are taken from it: %+v, %v", got.Resources, err)
	}
	if got, err := c.Resolve(task(t, `{"type": "choice", "resources": {"gpu": 0}}`), all); err != nil || got.Resources.GPU != 0 {
		t.Errorf("%+v, %v", got.Resources, err)
	}
	if _, err := c.Resolve(task(t, `{"type": "cores", "resources": {"gpu": 0}}`), all); err != nil {
		t.Errorf("none of none: %v", err)
	}
	for body, want := range map[string]int{`{"type": "gpus", "priority": 5}`: 5, `{"type": "gpus", "priority": null}`: 7, `{"type": "gpus"}`: 7, `{"type": "cores"}`: 5} {
		if got, err := c.Resolve(task(t, body), all); err != nil || got.Priority != want {
			t.Errorf("%s: priority %d, %v", body, got.Priority, err)
		}
	}
	if got, err := c.Resolve(task(t, `{"type": "cores", "on_lost": "kill"}`), all); err != nil || got.OnLost != queue.KillOnLost {
		t.Errorf("%+v, %v", got, err)
	}
}
