package api

import (
	"bytes"
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.uber.org/goleak"

	"github.com/mayfly/mayfly/gpu"
	"github.com/mayfly/mayfly/manager"
	"github.com/mayfly/mayfly/queue"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// parameter is one of an operation's in the description.
type parameter struct {
	Name        string `json:"name"`
	In          string `json:"in"`
	Required    bool   `json:"required"`
	Description string `json:"description"`
}

// operation is one in the description.
type operation struct {
	OperationID string                     `json:"operationId"`
	Parameters  []parameter                `json:"parameters"`
	Responses   map[string]json.RawMessage `json:"responses"`
}

// TestDescribedRoutes holds that the description has the routes that the server has, with the parameters that it takes, and no others.
func TestDescribedRoutes(t *testing.T) {
	t.Parallel()
	var doc struct {
		OpenAPI string                          `json:"openapi"`
		Paths   map[string]map[string]operation `json:"paths"`
	}
	if err := json.Unmarshal(description, &doc); err != nil {
		t.Fatal(err)
	}
	if doc.OpenAPI != "3.1.0" {
		t.Errorf("it is of version %q", doc.OpenAPI)
	}
	described := map[string]operation{}
	names := map[string]bool{}
	for path, operations := range doc.Paths {
		for method, o := range operations {
			described[strings.ToUpper(method)+" "+path] = o
			if o.OperationID == "" || names[o.OperationID] || len(o.Responses) < 3 {
				t.Errorf("%s %s: its name is missing or not its own, or it lacks answers", method, path)
			}
			names[o.OperationID] = true
		}
	}
	server := New(Config{})
	want := []string{"GET /metrics"}
	for _, r := range server.routes() {
		want = append(want, r.pattern)
		var query, path []string
		for _, p := range described[r.pattern].Parameters {
			switch p.In {
			case "query":
				query = append(query, p.Name)
			case "path":
				path = append(path, "{"+p.Name+"}")
				if !p.Required {
					t.Errorf("%s: %s is in the path and not required", r.pattern, p.Name)
				}
			}
			if p.Description == "" {
				t.Errorf("%s: nothing is said of %s", r.pattern, p.Name)
			}
		}
		if known := strings.Fields(r.parameters); !slices.Equal(slices.Sorted(slices.Values(query)), slices.Sorted(slices.Values(known))) {
			t.Errorf("%s: the server takes %q, described are %q", r.pattern, known, query)
		}
		for _, name := range path {
			if !strings.Contains(r.pattern, name) {
				t.Errorf("%s has no %s", r.pattern, name)
			}
		}
		if n := strings.Count(r.pattern, "{"); n != len(path) {
			t.Errorf("%s: %d parameters of the path are described", r.pattern, len(path))
		}
	}
	if have := slices.Sorted(maps.Keys(described)); !slices.Equal(have, slices.Sorted(slices.Values(want))) {
		t.Errorf("described are %q, the server has %q", have, want)
	}
}

// TestDescribedTypes holds that each schema of an answer has the fields that are sent, those required that always are, and the words that
// are used.
func TestDescribedTypes(t *testing.T) {
	t.Parallel()
	var doc struct {
		Components struct {
			Schemas map[string]struct {
				Properties map[string]any `json:"properties"`
				Required   []string       `json:"required"`
				Enum       []string       `json:"enum"`
			} `json:"schemas"`
		} `json:"components"`
	}
	if err := json.Unmarshal(description, &doc); err != nil {
		t.Fatal(err)
	}
	left := maps.Clone(doc.Components.Schemas)
	for name, value := range map[string]any{"Failure": failure{}, "Submitted": Submitted{}, "Task": manager.View{}, "Result": queue.Result{}, "Past": queue.Past{},
		"Usage": queue.Usage{}, "Explanation": manager.Explanation{}, "Counts": manager.Counts{}, "Step": Step{}, "Sample": Sample{}, "Series": Series{},
		"Needs": manager.Needs{}, "Demand": manager.Demand{}, "PoolDemand": manager.PoolDemand{}, "Host": manager.Info{}, "Glance": Glance{}, "GPUs": gpu.Overview{}, "GPU": gpu.Status{},
		"GPUState": gpu.State{}, "GPUProcess": gpu.Process{}, "Link": gpu.Link{}, "DeviceFile": gpu.File{}, "DeadLetter": queue.DeadLetter{},
		"Piece": Piece{}, "LogEnd": LogEnd{}, "Said": struct {
			Said string `json:"said"`
		}{}} {
		schema, ok := left[name]
		if !ok {
			t.Errorf("%s is not described", name)
			continue
		}
		delete(left, name)
		fields, required := jsonFields(reflect.TypeOf(value))
		if have := slices.Sorted(maps.Keys(schema.Properties)); !slices.Equal(have, fields) {
			t.Errorf("%s: described are %q, sent are %q", name, have, fields)
		}
		if have := slices.Sorted(slices.Values(schema.Required)); !slices.Equal(have, required) {
			t.Errorf("%s: required are %q, always sent are %q", name, have, required)
		}
	}
	for name, want := range map[string]any{"Status": statuses, "State": states, "Cause": causes, "Band": append(slices.Clone(queue.Bands), "")} {
		if have, _ := json.Marshal(left[name].Enum); string(have) != string(must(json.Marshal(want))) {
			t.Errorf("%s: %s, want %v", name, have, want)
		}
		delete(left, name)
	}
	if len(left) > 0 {
		t.Errorf("described and not known: %v", slices.Collect(maps.Keys(left)))
	}
	// All schemas are right, and refer to what is there.
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	whole, err := jsonschema.UnmarshalJSON(bytes.NewReader(description))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.AddResource("api.json", whole); err != nil {
		t.Fatal(err)
	}
	for name := range doc.Components.Schemas {
		if _, err := c.Compile("api.json#/components/schemas/" + name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func must(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}

// jsonFields lists the fields of a struct's JSON form, and those that are always there.
func jsonFields(t reflect.Type) (all, always []string) {
	for f := range t.Fields() {
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous && name == "" {
			below, required := jsonFields(f.Type)
			all, always = append(all, below...), append(always, required...)
			continue
		}
		all = append(all, name)
		if !strings.Contains(options, "omitempty") {
			always = append(always, name)
		}
	}
	slices.Sort(all)
	slices.Sort(always)
	return all, always
}
