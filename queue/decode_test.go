package queue

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
)

const everyField = `{
	"id": "job_456", "name": "simulation-task", "command": ["python3", "sim.py", ""],
	"params": {"dataset": "report_Q3", "deep": [1, 2.5e3, {"a": null}]},
	"image": "registry:5000/app/sim:1@sha256:abc", "environment": {"KEY": "value", "EMPTY": ""}, "workdir": "/data/run1",
	"resources": {"cpu": 0.5, "memory": "8GB", "gpu": 1, "gpu_memory": "20GB", "gpu_model": "H200", "disk": 1e10,
		"network": false, "pids": 512},
	"alternatives": [{"gpu": 2, "gpu_model": "A100"}, {}],
	"timeout": "2h", "grace": 1.5, "max_attempts": 3, "backoff": "0s",
	"priority": 0, "deadline": "2026-12-01T00:00:00+01:00", "labels": {"zone": "a"}, "pool": "gpu-pool"
}`

func TestDecodeReadsEveryField(t *testing.T) {
	t.Parallel()
	no := false
	want := Task{
		ID: "job_456", Name: "simulation-task", Command: []string{"python3", "sim.py", ""},
		Params:      []byte(`{"dataset": "report_Q3", "deep": [1, 2.5e3, {"a": null}]}`),
		Image:       "registry:5000/app/sim:1@sha256:abc",
		Environment: map[string]string{"KEY": "value", "EMPTY": ""},
		Workdir:     "/data/run1",
		Resources: Resources{CPU: 0.5, Memory: 8e9, GPU: 1, GPUMemory: 20e9, GPUModel: "H200", Disk: 1e10, Network: &no,
			PIDs: 512},
		Alternatives: []Resources{{GPU: 2, GPUModel: "A100"}, {}},
		Timeout:      2 * time.Hour, Grace: 1500 * time.Millisecond, MaxAttempts: 3,
		Deadline: time.Date(2026, 12, 1, 0, 0, 0, 0, time.FixedZone("", 3600)),
		Labels:   map[string]string{"zone": "a"}, Pool: "gpu-pool",
	}
	got := decode(t, Message{Body: []byte(everyField), Pool: "gpu-pool"})
	if !got.Deadline.Equal(want.Deadline) {
		t.Errorf("deadline is %v, want %v", got.Deadline, want.Deadline)
	}
	got.Deadline = want.Deadline
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestDecodeSaysWhatWasNotGiven(t *testing.T) {
	t.Parallel()
	bodies := []string{`{"id": "a", "shell": "exit 0"}`}
	all := `{"id": "a", "shell": "exit 0"`
	for _, f := range taskFields {
		if f.name != "id" && f.name != "shell" {
			all += `, "` + f.name + `": null`
		}
	}
	bodies = append(bodies, all+"}")
	want := Task{ID: "a", Shell: "exit 0", Grace: -1, Backoff: -1, Priority: DefaultPriority, NoPriority: true, Pool: DefaultPool}
	for _, body := range bodies {
		if got := decode(t, Message{Body: []byte(body)}); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got  %+v\nwant %+v", body, got, want)
		}
	}
}

func TestDecodeResolvesEscapes(t *testing.T) {
	t.Parallel()
	got := decode(t, Message{Body: []byte(`{"shell":"\"\\\/\b\f\n\r\tA\u00e9\ud83d\ude00é","\u0069d":"x"}`)})
	if want := "\"\\/\b\f\n\r\tAé😀é"; got.Shell != want || got.ID != "x" {
		t.Errorf("got %q and id %q, want %q and id x", got.Shell, got.ID, want)
	}
}

func TestTooDeep(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		"": false, "null": false, `"[[["`: false, "17": false,
		strings.Repeat("[", MaxDepth) + strings.Repeat("]", MaxDepth):                                 false,
		strings.Repeat("[", MaxDepth+1) + strings.Repeat("]", MaxDepth+1):                             true,
		strings.Repeat(`{"a": `, MaxDepth+1) + "1" + strings.Repeat("}", MaxDepth+1):                  true,
		"[" + strings.Repeat(`[{"a":1}],`, 9999) + "1]":                                               false,
		`["` + strings.Repeat("[", 9999) + `\\\"", "\\"]`:                                             false,
		`{"\ud800":1,"\ud800":` + strings.Repeat("[", MaxDepth) + strings.Repeat("]", MaxDepth) + "}": true,
	} {
		if text != "" && !json.Valid([]byte(text)) {
			t.Errorf("%.60s is no JSON", text)
		}
		if got := TooDeep([]byte(text)); got != want {
			t.Errorf("%.60s: %t, want %t", text, got, want)
		}
	}
}

func TestDecodeNamesTheTask(t *testing.T) {
	t.Parallel()
	withID, without := []byte(`{"id":"body","shell":"x"}`), []byte(`{"shell":"x"}`)
	if got := decode(t, Message{Body: withID, MessageID: "not valid"}).ID; got != "body" {
		t.Errorf("with both ids it is %q, want the one of the body", got)
	}
	if got := decode(t, Message{Body: without, MessageID: "amqp"}).ID; got != "amqp" {
		t.Errorf("with a message id it is %q, want that", got)
	}
	a, b := decode(t, Message{Body: without}).ID, decode(t, Message{Body: without}).ID
	if _, err := ulid.ParseStrict(a); err != nil || a == b {
		t.Errorf("without ids they are %q and %q, want two ULIDs", a, b)
	}
}

func TestDecodeChoosesThePool(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ body, message, want string }{
		{`{"shell":"x"}`, "", DefaultPool},
		{`{"shell":"x"}`, "gpu", "gpu"},
		{`{"shell":"x","pool":"gpu"}`, "", "gpu"},
		{`{"shell":"x","pool":"gpu"}`, "gpu", "gpu"},
	} {
		if got := decode(t, Message{Body: []byte(c.body), Pool: c.message}).Pool; got != c.want {
			t.Errorf("%s through %q: pool %q, want %q", c.body, c.message, got, c.want)
		}
	}
}

func TestDecodeLeavesTheBodyToItsOwner(t *testing.T) {
	t.Parallel()
	body := []byte(`{"shell":"echo","params":{"a":1}}`)
	got := decode(t, Message{Body: body})
	for i := range body {
		body[i] = 'X'
	}
	if got.Shell != "echo" || string(got.Params) != `{"a":1}` {
		t.Errorf("the task changed with the body: %q, %s", got.Shell, got.Params)
	}
}

func TestPeekID(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, body, messageID, want string }{
		{"in a body with another fault", `{"comand":["x"],"id":"a"}`, "m", "a"},
		{"before a syntax error", `{"id":"a",,`, "m", "a"},
		{"behind nested values", `{"params":{"id":"no","x":[{"id":"no"}]},"id":"a"}`, "m", "a"},
		{"behind duplicates", `{"x":1,"x":2,"id":"a"}`, "m", "a"},
		{"behind bytes that are not UTF-8", "{\"x\":\"\xff\",\"id\":\"a\"}", "m", "a"},
		{"behind a syntax error", `{,"id":"a"}`, "m", "m"},
		{"invalid in the body", `{"id":"../a"}`, "m", "m"},
		{"of a wrong type", `{"id":7}`, "m", "m"},
		{"too deep", strings.Repeat(`{"x":`, MaxDepth+1) + `{"id":"a"}`, "m", "m"},
		{"no body", ``, "m", "m"},
		{"not an object", `["id","a"]`, "m", "m"},
	} {
		if got := PeekID(Message{Body: []byte(c.body), MessageID: c.messageID}); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
	huge := Message{Body: []byte(`{"id":"a","x":"` + strings.Repeat("x", MaxBody) + `"}`), MessageID: "not valid"}
	if _, err := ulid.ParseStrict(PeekID(huge)); err != nil {
		t.Errorf("without any id: %v, want a ULID", err)
	}
}

func decode(t *testing.T, m Message) Task {
	t.Helper()
	got, err := Decode(m)
	if err != nil {
		t.Fatalf("%s was refused: %v", firstRunes(string(m.Body)), err)
	}
	return got
}
