package queue

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// The schemas are for producers, in whatever language; the decoder and the Result are the truth. What a schema refuses the
// decoder refuses, and but for beyondSchemas it is the same the other way round.

func compileSchema(t *testing.T, name string) *jsonschema.Schema {
	t.Helper()
	c := jsonschema.NewCompiler()
	if name == "result.schema.json" {
		c.AssertFormat()
	}
	s, err := c.Compile(filepath.Join("..", "docs", "schema", name))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// beyondSchemas lists what the decoder refuses and the schema cannot, with an example and the end of the decoder's sentence.
var beyondSchemas = []struct{ body, remedy, reason string }{
	{`{"shell":"x","stdin":"` + strings.Repeat("x", MaxBody) + `"}`, "so send a reference to large data", "a schema sees no bytes"},
	{"{\"shell\":\"a\xffb\"}", "must be UTF-8; byte 12 is 0xff", "a schema sees no bytes"},
	{`{"shell":"\ud800"}`, "half of a surrogate pair, which is no character, was written at byte 11", "parsers replace it"},
	{`{"shell":"x","shell":"x"}`, "given twice; give it once", "in a parsed object each name is there once"},
	{`{"shell":"x","params":` + strings.Repeat("[", MaxDepth) + strings.Repeat("]", MaxDepth) + `}`,
		"nested deeper than 64 begin at byte 86", "a schema does not count levels"},
	{`{"shell":"x","name":"a\u200bb"}`, nameRemedy, "portable patterns have no word for what is printable"},
	{`{"shell":"x","name":"` + strings.Repeat("ä", maxName/2+1) + `"}`, nameRemedy, "a schema counts characters, not bytes"},
	{`{"shell":"x","workdir":"/` + strings.Repeat("ä", maxPathname/2+1) + `"}`, workdirRemedy, "a schema counts characters, not bytes"},
	{`{"shell":"` + strings.Repeat("ä", maxArgument/2+1) + `"}`, "in one piece; use stdin", "a schema counts characters, not bytes"},
	{`{"shell":"x","labels":{"a":"` + strings.Repeat("ä", maxLabel/2+1) + `"}}`, "the value of a label has at most 1024", "a schema counts characters, not bytes"},
	{`{"shell":"x","environment":{"AB":"` + strings.Repeat("x", maxArgument-2) + `"}}`, "in one piece; use stdin",
		"a schema does not add the length of a name to that of its value"},
	{`{"shell":"x","deadline":"2026-02-30T00:00:00Z"}`, "must be a time of RFC 3339 since 1970, such as " + instantExample,
		"a pattern knows no calendar"},
	{`{"shell":"x","resources":{"memory":"1023KiB"}}`, "must be at least 1MiB (a plain number counts bytes)", "a pattern does not calculate"},
	{`{"shell":"x","resources":{"disk":"0.3B"}}`, "this is not a whole number of bytes", "a pattern does not calculate"},
	{`{"shell":"x","resources":{"disk":"1025PiB"}}`, tooLarge, "a pattern does not calculate"},
	{`{"shell":"x","resources":{"disk":"99999999999999999999B"}}`, sizeRemedy, "a pattern does not calculate"},
	{`{"shell":"x","resources":{"disk":9007199254740994.0}}`, "this is not a whole number of bytes, or too many of them",
		"a schema does not see how a number is written"},
	{`{"shell":"x","timeout":"8761h"}`, tooLong, "a pattern does not calculate"},
	{`{"shell":"x","timeout":"9999999999999h"}`, tooLong, "a pattern does not calculate"},
	{`{"shell":"x","timeout":0.0000000001}`, "must be more than 0", "the decoder rounds to nanoseconds"},
}

// boundaries stand at the edges of what is accepted, as members of a task that runs a shell or as whole documents. Here the
// schema and the decoder agree without exception.
var boundaries = []struct{ good, bad []string }{
	{[]string{`{"command":["x",""]}`, `{"command":["` + strings.Repeat("x", maxArgument) + `"]}`, `{"command":["x"],"shell":null}`},
		[]string{`{"command":["` + strings.Repeat("x", maxArgument+1) + `"]}`, `{"command":["x","` + strings.Repeat("x", maxArgument+1) + `"]}`,
			`{"command":["\u0000"]}`, `{"command":null,"shell":null,"type":null}`}},
	{[]string{`{"shell":"` + strings.Repeat("x", maxArgument) + `"}`}, []string{`{"shell":"` + strings.Repeat("x", maxArgument+1) + `"}`}},
	{[]string{`{"type":"` + strings.Repeat("t", maxType) + `"}`}, []string{`{"type":"` + strings.Repeat("t", maxType+1) + `"}`, `{"type":""}`}},
	{[]string{`"id":"` + strings.Repeat("a", MaxID) + `"`, `"id":"0._:@+=-"`}, []string{`"id":"` + strings.Repeat("a", MaxID+1) + `"`, `"id":"a\n"`}},
	{[]string{`"name":"` + strings.Repeat("a", maxName) + `"`, `"name":"ä b"`}, []string{`"name":"` + strings.Repeat("a", maxName+1) + `"`, `"name":""`, `"name":"\u0085"`}},
	{[]string{`"pool":"` + strings.Repeat("a", MaxPool) + `"`, `"pool":"0_-"`}, []string{`"pool":"` + strings.Repeat("a", MaxPool+1) + `"`, `"pool":"a.b"`, `"pool":""`}},
	{[]string{`"image":"a"`, `"image":"a/"`, `"image":"r:5000/a/b_c@sha256:1"`, `"image":"` + strings.Repeat("a", maxImage) + `"`},
		[]string{`"image":""`, `"image":"a//b"`, `"image":"/a"`, `"image":"` + strings.Repeat("a", maxImage+1) + `"`}},
	{[]string{`"workdir":"/"`, `"workdir":"/a\nb"`, `"workdir":"/` + strings.Repeat("a", maxPathname-1) + `"`},
		[]string{`"workdir":""`, `"workdir":"/` + strings.Repeat("a", maxPathname) + `"`}},
	{[]string{`"environment":{}`, `"environment":{"a b":"","MAYFLY":""}`, `"environment":{"A":"` + strings.Repeat("x", maxArgument-2) + `"}`},
		[]string{`"environment":{"A":"` + strings.Repeat("x", maxArgument-1) + `"}`, `"environment":{"A\u0000":""}`}},
	{[]string{`"labels":{}`, `"labels":{"a=b":"\u0000"}`, `"labels":{` + numbered(maxLabels) + `}`, `"labels":{"a":"` + strings.Repeat("x", maxLabel) + `"}`},
		[]string{`"labels":{"a":1}`, `"labels":{"a\n":""}`, `"labels":{` + numbered(maxLabels+1) + `}`, `"labels":{"a":"` + strings.Repeat("x", maxLabel+1) + `"}`}},
	{[]string{`"stdin":"\u0000"`, `"stdin":"","params":1`, `"stdin":"x","params":null`, `"stdin":null,"params":1`, `"params":false`}, []string{`"stdin":"x","params":false`}},
	{[]string{`"alternatives":[]`, `"alternatives":[{}` + strings.Repeat(",{}", maxAlternatives-1) + `]`},
		[]string{`"alternatives":[{}` + strings.Repeat(",{}", maxAlternatives) + `]`}},
	{[]string{`"timeout":1e-9`, `"timeout":31536000`, `"timeout":"8760h"`, `"timeout":"1ns"`, `"timeout":"+.5h"`, `"timeout":"1.h30m"`, `"timeout":"9µs"`, `"timeout":"9μs"`, `"timeout":"` + strings.Repeat("0", maxUnits-2) + `1h"`},
		[]string{`"timeout":31536001`, `"timeout":-0.5`, `"timeout":"` + strings.Repeat("0", maxUnits-1) + `1h"`, `"timeout":"h"`, `"timeout":".h"`, `"timeout":"0"`, `"timeout":"0.0h"`, `"timeout":"1d"`, `"timeout":""`}},
	{[]string{`"grace":0`, `"grace":-0`, `"grace":"0"`, `"grace":"-0s"`, `"grace":"-0"`, `"grace":"+0"`, `"grace":"-0.0h.0s"`, `"backoff":0`, `"backoff":31536000`},
		[]string{`"grace":"-1s"`, `"grace":"+-0"`, `"grace":"1"`, `"backoff":31536001`, `"backoff":-1`}},
	{[]string{`"max_attempts":1`, `"max_attempts":100`, `"max_attempts":1e2`, `"max_attempts":3.0`}, []string{`"max_attempts":1.5`}},
	{[]string{`"priority":0`, `"priority":9`}, []string{`"priority":"5"`, `"priority":true`}},
	{[]string{`"deadline":"1970-01-01T00:00:00Z"`, `"deadline":"9999-12-31T23:59:59.123456789-12:30"`},
		[]string{`"deadline":"1969-12-31T23:59:59Z"`, `"deadline":"2026-12-01t00:00:00Z"`, `"deadline":"2026-12-01T00:00:00"`, `"deadline":"2026-12-01T00:00:00,5Z"`, `"deadline":""`}},
	{[]string{`"resources":{}`, `"resources":{"cpu":0.001}`, `"resources":{"cpu":65536}`}, []string{`"resources":[]`, `"resources":{"cpu":0.0009}`}},
	{[]string{`"resources":{"memory":1048576}`, `"resources":{"memory":1152921504606846976}`, `"resources":{"memory":8e9}`, `"resources":{"memory":"1MiB"}`, `"resources":{"memory":"01500.5kB"}`},
		[]string{`"resources":{"memory":1048575}`, `"resources":{"memory":1152921504606846977}`, `"resources":{"memory":"1.GB"}`, `"resources":{"memory":".5GB"}`}},
	{[]string{`"resources":{"disk":1,"gpu_memory":"1B"}`, `"resources":{"disk":1152921504606846976}`, `"resources":{"disk":"` + strings.Repeat("0", maxUnits-3) + `1GB"}`},
		[]string{`"resources":{"disk":1152921504606846977}`, `"resources":{"disk":"` + strings.Repeat("0", maxUnits-2) + `1GB"}`, `"resources":{"gpu_memory":0}`, `"resources":{"disk":"0.0GB"}`}},
	{[]string{`"resources":{"gpu":0}`, `"resources":{"gpu":1024}`, `"resources":{"gpu_model":"1g.10gb"}`}, []string{`"resources":{"gpu":1025}`, `"resources":{"gpu_model":""}`}},
	{[]string{`"resources":{"pids":1}`, `"resources":{"pids":4194304}`, `"resources":{"network":true}`}, []string{`"resources":{"pids":4194305}`, `"resources":{"network":0}`}},
}

// numbered are n members of an object.
func numbered(n int) string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf(`"l%d":""`, i)
	}
	return strings.Join(list, ",")
}

// documents lists bodies of all kinds: the tables of the decoder's tests, the finds of its fuzz test, the boundaries.
func documents(t *testing.T) []string {
	t.Helper()
	list := []string{
		everyField,
		`{"id": "job_456", "type": "process_data", "params": {"dataset": "report_Q3"}}`,
		`{"shell": "echo \ud83d\ude00", "stdin": "\u0000", "resources": {"memory": "1.5GiB"}}`,
	}
	// Each field with a value of each kind.
	for _, v := range []string{"null", "true", "1", "0.5", `"x"`, `""`, `[]`, `["x"]`, `[null]`, `{}`, `{"x":"x"}`, `{"x":null}`} {
		for _, f := range names(taskFields) {
			list = append(list, `{"`+f+`":`+v+`}`, `{"command":["x"],"`+f+`":`+v+`}`, `{"shell":"x","`+f+`":`+v+`}`)
		}
		for _, f := range names(resourceFields) {
			list = append(list, `{"shell":"x","resources":{"`+f+`":`+v+`}}`, `{"shell":"x","alternatives":[{"`+f+`":`+v+`}]}`)
		}
	}
	for _, c := range refused {
		list = append(list, c.body)
	}
	for _, row := range boundaries {
		for _, text := range slices.Concat(row.good, row.bad) {
			list = append(list, document(text))
		}
	}
	files, err := filepath.Glob("testdata/fuzz/FuzzDecode/*")
	if err != nil || len(files) == 0 {
		t.Fatalf("cannot find the corpus: %v", err)
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(text), "[]byte(")
		quoted, _, _ := strings.Cut(rest, ")\nstring(")
		body, err := strconv.Unquote(quoted)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		list = append(list, body)
	}
	return list
}

// document completes a text of boundaries.
func document(text string) string {
	if strings.HasPrefix(text, "{") {
		return text
	}
	return `{"shell":"x",` + text + `}`
}

// takes reports whether the schema takes the body, as a producer's validator would see it.
func takes(s *jsonschema.Schema, body string) error {
	v, err := jsonschema.UnmarshalJSON(strings.NewReader(body))
	if err != nil {
		return err
	}
	return s.Validate(v)
}

func TestSchemaAgreesWithDecode(t *testing.T) {
	t.Parallel()
	schema := compileSchema(t, "task.schema.json")
	accepted := 0
	for _, body := range documents(t) {
		_, refusal := Decode(Message{Body: []byte(body)})
		complaint := takes(schema, body)
		switch {
		case refusal == nil && complaint != nil:
			t.Errorf("%s: the decoder takes it, and the schema does not: %v", firstRunes(body), complaint)
		case refusal != nil && complaint == nil && !excused(refusal):
			t.Errorf("%s: the schema takes it, and the decoder does not: %v", firstRunes(body), refusal)
		case refusal == nil:
			accepted++
		}
	}
	if accepted < 60 {
		t.Errorf("only %d documents were accepted", accepted)
	}
	for _, row := range boundaries {
		for _, text := range row.good {
			decode(t, Message{Body: []byte(document(text))})
		}
		for _, text := range row.bad {
			refusal(t, Message{Body: []byte(document(text))})
			if takes(schema, document(text)) == nil {
				t.Errorf("%s: the schema takes it", firstRunes(document(text)))
			}
		}
	}
}

// excused reports whether a refusal is of those that a schema cannot say.
func excused(refusal error) bool {
	for _, e := range beyondSchemas {
		sentence := e.remedy
		if i := strings.Index(sentence, "byte "); i >= 0 {
			sentence = sentence[:i] // at another place, it is the same
		}
		if strings.Contains(refusal.Error(), sentence) {
			return true
		}
	}
	return false
}

// An exception that is none any more has no place in the list.
func TestSchemaExceptionsAreNeeded(t *testing.T) {
	t.Parallel()
	schema := compileSchema(t, "task.schema.json")
	for _, e := range beyondSchemas {
		if got := refusal(t, Message{Body: []byte(e.body)}); !strings.HasSuffix(got, e.remedy) {
			t.Errorf("%s: %s; want %s", firstRunes(e.body), got, e.remedy)
		}
		if err := takes(schema, e.body); err != nil {
			t.Errorf("%s: the schema can say it, although %q: %v", firstRunes(e.body), e.reason, err)
		}
	}
}

// node is a part of a schema.
type node struct {
	Properties map[string]node `json:"properties"`
	Required   []string        `json:"required"`
	Enum       []string        `json:"enum"`
	Defs       map[string]node `json:"$defs"`
}

func readSchema(t *testing.T, name string) node {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "docs", "schema", name))
	if err != nil {
		t.Fatal(err)
	}
	var s node
	if err := json.Unmarshal(text, &s); err != nil {
		t.Fatal(err)
	}
	return s
}

func (n node) names() []string {
	var list []string
	for name := range n.Properties {
		list = append(list, name)
	}
	return list
}

// same compares two lists as sets.
func same(t *testing.T, what string, got, want []string) {
	t.Helper()
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("%s: the schema has %v, the code %v", what, got, want)
	}
}

func TestSchemasNameEveryField(t *testing.T) {
	t.Parallel()
	task, result := readSchema(t, "task.schema.json"), readSchema(t, "result.schema.json")
	same(t, "task", task.names(), names(taskFields))
	same(t, "resources", task.Defs["resources"].names(), names(resourceFields))
	for _, c := range []struct {
		what string
		of   node
		like any
	}{
		{"result", result, Result{}}, {"attempt", result.Defs["attempt"], Past{}}, {"usage", result.Properties["usage"], Usage{}},
	} {
		var all, always []string
		for f := range reflect.TypeOf(c.like).Fields() {
			name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
			all = append(all, name)
			if options == "" {
				always = append(always, name)
			}
		}
		same(t, c.what, c.of.names(), all)
		same(t, c.what+", required", c.of.Required, always)
	}
	same(t, "states", result.Properties["state"].Enum, constants(t, "State"))
	same(t, "causes", result.Defs["cause"].Enum, constants(t, "Cause"))
}

// constants lists the values of the constants of a type in outcome.go.
func constants(t *testing.T, of string) (values []string) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "outcome.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if kind, ok := spec.Type.(*ast.Ident); ok && kind.Name == of {
			value, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			values = append(values, value)
		}
		return true
	})
	return values
}

func TestResultsSatisfyTheSchema(t *testing.T) {
	t.Parallel()
	schema := compileSchema(t, "result.schema.json")
	check := func(r any) error {
		text, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		return takes(schema, string(text))
	}
	now := time.Date(2026, 12, 1, 0, 0, 0, 5, time.FixedZone("", -3600))
	bare := Result{ID: "a", Pool: "default", State: Rejected, Cause: CauseRejected, Attempts: []Past{}, Host: "h", GPUs: []string{}}
	full := Result{
		ID: "job_456", Name: "n", Pool: "default", State: Failed, Cause: CauseExit, Message: "m", ExitCode: new(255), Attempt: 2,
		Attempts: []Past{
			{Attempt: 1, Host: "h", Cause: CauseSignal, Signal: "SIGKILL", Message: "m", StartedAt: now, FinishedAt: now},
			{Attempt: 2, Host: "h", Cause: CauseExit, ExitCode: new(255), StartedAt: now, FinishedAt: now},
		},
		Host: "h", GPUs: []string{"GPU-1"}, QueuedAt: &now, StartedAt: &now, FinishedAt: &now,
		Usage:  Usage{WallSeconds: 1.5, CPUSeconds: 1, MemoryPeakBytes: 1, GPUMemoryPeakBytes: 1, GPUEnergyJoules: 1, GPUUtilization: 1},
		Result: json.RawMessage(`{"answer": 42}`), StdoutTail: "out", StderrTail: "err",
	}
	for _, r := range []Result{bare, full} {
		if err := check(r); err != nil {
			t.Error(err)
		}
	}
	// Each state with each cause: which go together?
	for _, state := range constants(t, "State") {
		for _, cause := range constants(t, "Cause") {
			r := full
			r.State, r.Cause = State(state), Cause(cause)
			want := r.State == Failed
			switch r.Cause {
			case CauseNone:
				want = r.State == Succeeded
			case CauseCancelled:
				want = r.State == Cancelled
			case CauseRejected:
				want = r.State == Rejected
			}
			if err := check(r); (err == nil) != want {
				t.Errorf("%s for the cause %s: %v", state, cause, err)
			}
		}
	}
	// Fields with other values: nothing but what is listed here is open.
	for _, c := range []struct {
		path      string
		good, bad []any
	}{
		{"id", []any{strings.Repeat("a", MaxID)}, []any{nil, 1, "", "a/b"}},
		{"name", []any{"", strings.Repeat("a", maxName)}, []any{nil, 1, strings.Repeat("a", maxName+1)}},
		{"pool", []any{"p", strings.Repeat("P", MaxPool)}, []any{nil, 1, "", strings.Repeat("a", MaxPool+1)}},
		{"cause", nil, []any{nil, "bad luck"}},
		{"message", []any{""}, []any{nil, 1}},
		{"exit_code", []any{nil, 0}, []any{-1, 256, 0.5, "0"}},
		{"signal", []any{"", "SIG64"}, []any{nil, "9", "KILL"}},
		{"attempt", []any{0, 1000}, []any{nil, -1, 0.5, "1"}},
		{"attempts", []any{[]any{}}, []any{nil, map[string]any{}}},
		{"host", nil, []any{nil, 1, ""}},
		{"gpus", []any{[]any{}, []any{"G"}}, []any{nil, []any{""}, []any{nil}, "G"}},
		{"queued_at", []any{nil, "2026-12-01T00:00:00.000000001+01:00"}, []any{1, "", "2026-12-01"}},
		{"started_at", []any{nil}, []any{1, "", "2026-12-01"}},
		{"finished_at", []any{nil}, []any{1, "", "2026-12-01"}},
		{"usage", nil, []any{nil, 1}},
		{"usage.wall_seconds", []any{0, 1e9}, []any{nil, -0.5, "1"}},
		{"usage.cpu_seconds", []any{0, 1e9}, []any{nil, -0.5, "1"}},
		{"usage.memory_peak_bytes", []any{0, int64(maxSize)}, []any{nil, -1, 0.5, "1"}},
		{"usage.gpu_memory_peak_bytes", []any{0, int64(maxSize)}, []any{nil, -1, 0.5, "1"}},
		{"usage.gpu_energy_joules", []any{0, 1e9}, []any{nil, -0.5, "1"}},
		{"usage.gpu_utilization", []any{0, 0.5}, []any{nil, -0.5, 1.5, "1"}},
		{"result", []any{nil, 1, "", []any{}}, nil},
		{"stdout_tail", []any{""}, []any{nil, 1}},
		{"stderr_tail", []any{""}, []any{nil, 1}},
		{"attempts.0", nil, []any{nil, 1}},
		{"attempts.0.attempt", []any{1000}, []any{nil, 0, 0.5, "1"}},
		{"attempts.0.host", nil, []any{nil, 1}},
		{"attempts.0.cause", nil, []any{nil, "bad luck"}},
		{"attempts.0.exit_code", []any{nil, 0}, []any{256, "0"}},
		{"attempts.0.signal", nil, []any{nil, "9"}},
		{"attempts.0.message", nil, []any{nil, 1}},
		{"attempts.0.started_at", nil, []any{nil, 1, ""}},
		{"attempts.0.finished_at", nil, []any{nil, 1, ""}},
		{"more", nil, []any{1}}, {"usage.more", nil, []any{1}}, {"attempts.0.more", nil, []any{1}},
	} {
		for _, v := range c.good {
			if err := check(changed(t, full, c.path, v)); err != nil {
				t.Error(err)
			}
		}
		for _, v := range c.bad {
			if check(changed(t, full, c.path, v)) == nil {
				t.Errorf("%s = %v was accepted", c.path, v)
			}
		}
	}
	for _, name := range readSchema(t, "result.schema.json").Required {
		without := changed(t, full, name, nil)
		delete(without, name)
		if check(without) == nil {
			t.Errorf("a result without %s was accepted", name)
		}
	}
}

// changed returns the result's document with another value at the path.
func changed(t *testing.T, r Result, path string, value any) map[string]any {
	t.Helper()
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var doc map[string]any
	if err := json.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	switch parts := strings.Split(path, "."); {
	case len(parts) == 1:
		doc[path] = value
	case len(parts) == 2 && parts[0] == "attempts":
		doc["attempts"].([]any)[0] = value
	case parts[0] == "attempts":
		doc["attempts"].([]any)[0].(map[string]any)[parts[2]] = value
	default:
		doc[parts[0]].(map[string]any)[parts[1]] = value
	}
	return doc
}

// A validator's sentence names the field, as the decoder's does.
func TestSchemaSaysWhere(t *testing.T) {
	t.Parallel()
	err := takes(compileSchema(t, "task.schema.json"), `{"shell":"x","resources":{"memory":8}}`)
	invalid := (*jsonschema.ValidationError)(nil)
	if !errors.As(err, &invalid) || !strings.Contains(fmt.Sprint(invalid), "/resources/memory") {
		t.Errorf("error = %v", err)
	}
}
