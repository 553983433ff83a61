package integration

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// described is the API's own description, as a host serves it, with which its answers are compared.
type described struct {
	tb    testing.TB
	paths map[string]map[string]struct {
		Responses map[string]struct {
			Ref     string `json:"$ref"`
			Content map[string]struct {
				Schema json.RawMessage `json:"schema"`
			} `json:"content"`
		} `json:"responses"`
	}
	compiler *jsonschema.Compiler
	// checked are the operations of which an answer was seen, with its status.
	checked map[string]bool
}

func describe(h *host) *described {
	h.tb.Helper()
	_, text := h.ask(request{path: "/v1/openapi.json"})
	d := &described{tb: h.tb, compiler: jsonschema.NewCompiler(), checked: map[string]bool{}}
	d.compiler.DefaultDraft(jsonschema.Draft2020)
	d.compiler.AssertFormat()
	var doc struct {
		Paths json.RawMessage `json:"paths"`
	}
	whole, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err := errors.Join(err, json.Unmarshal(text, &doc), json.Unmarshal(doc.Paths, &d.paths), d.compiler.AddResource("api.json", whole)); err != nil {
		h.tb.Fatal(err)
	}
	return d
}

// schema compiles the schema at a place of the description.
func (d *described) schema(place ...string) *jsonschema.Schema {
	d.tb.Helper()
	pointer := ""
	for _, step := range place {
		pointer += "/" + url.PathEscape(strings.ReplaceAll(strings.ReplaceAll(step, "~", "~0"), "/", "~1"))
	}
	s, err := d.compiler.Compile("api.json#" + pointer)
	if err != nil {
		d.tb.Fatal(err)
	}
	return s
}

// valid compares JSON with a schema.
func (d *described) valid(what string, s *jsonschema.Schema, text []byte) {
	d.tb.Helper()
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err == nil {
		err = s.Validate(value)
	}
	if err != nil {
		d.tb.Errorf("%s: %v\n%s", what, err, tail(string(text), 2000))
	}
}

// answer compares an answer with what is said of it.
func (d *described) answer(method, path string, resp reply, body []byte) {
	d.tb.Helper()
	code := strconv.Itoa(resp.StatusCode)
	operation, ok := d.paths[path][strings.ToLower(method)]
	if !ok {
		d.tb.Fatalf("%s %s is not described", method, path)
	}
	if _, ok := operation.Responses[code]; !ok {
		code = code[:1] + "XX"
	}
	response, ok := operation.Responses[code]
	if !ok {
		d.tb.Errorf("%s %s: status %d is not described", method, path, resp.StatusCode)
		return
	}
	d.checked[method+" "+path+" "+code] = true
	kind, _, _ := strings.Cut(resp.Header.Get("Content-Type"), ";")
	place := []string{"paths", path, strings.ToLower(method), "responses", code}
	if response.Ref != "" {
		place = strings.Split(strings.TrimPrefix(response.Ref, "#/"), "/")
	} else if _, ok := response.Content[kind]; !ok {
		d.tb.Errorf("%s %s: %s is not described", method, path, kind)
		return
	}
	place = append(place, "content", kind, "schema")
	switch kind {
	case "application/json":
		d.valid(method+" "+path, d.schema(place...), body)
	case "application/x-ndjson":
		for line := range bytes.Lines(body) {
			d.valid(method+" "+path, d.schema(place...), line)
		}
	case "text/event-stream":
		for e := range events(body) {
			d.valid(method+" "+path+": "+e.name, d.schema(place...), []byte(e.data))
		}
	}
}
