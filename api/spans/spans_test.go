package spans

import (
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/mayfly/mayfly/manager"
	"github.com/mayfly/mayfly/queue"
	"github.com/mayfly/mayfly/worker"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestFromEnvironment(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		env       map[string]string
		url, want string
	}{
		{nil, "", ""},
		{map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318/"}, "http://c:4318/v1/traces", ""},
		{map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://d/x"}, "https://d/x", ""},
		{map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_SDK_DISABLED": "true"}, "", ""},
		{map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_TRACES_EXPORTER": "none"}, "", ""},
		{map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "c:secret@4317"}, "", "it is a URL as http://collector:4318"},
		{map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "", "http/json"},
		{map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317", "OTEL_EXPORTER_OTLP_HEADERS": "secret"}, "", "name=value"},
	} {
		c, err := FromEnvironment(func(name string) string { return tt.env[name] })
		if c.URL != tt.url || (tt.want == "") != (err == nil) || err != nil && (!strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "secret")) {
			t.Errorf("%v: %+v, %v", tt.env, c, err)
		}
	}
	c, err := FromEnvironment(func(name string) string {
		return map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_EXPORTER_OTLP_HEADERS": "a=b%20c, d=e=f"}[name]
	})
	if err != nil || c.Headers.Get("A") != "b c" || c.Headers.Get("D") != "e=f" || c.Service != "mayfly" {
		t.Errorf("%+v, %v", c, err)
	}
}

// collector takes spans, after it has refused some requests.
type collector struct {
	mu      sync.Mutex
	refuse  []int
	asked   int
	headers http.Header
	spans   []span
}

func (c *collector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked++
	c.headers = r.Header
	if len(c.refuse) > 0 {
		w.WriteHeader(c.refuse[0])
		c.refuse = c.refuse[1:]
		return
	}
	var request struct {
		ResourceSpans []struct {
			ScopeSpans []struct{ Spans []span }
		}
	}
	if err := json.Unmarshal(body, &request); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	for _, s := range request.ResourceSpans[0].ScopeSpans {
		c.spans = append(c.spans, s.Spans...)
	}
}

const parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

func ended(id, traceparent string) manager.End {
	at := time.Unix(1000, 0)
	code := 7
	a := &worker.Attempt{Task: queue.Task{ID: id, Pool: "default", Type: "render"}, Number: 2, QueuedAt: at.Add(-time.Minute), History: []queue.Past{{FinishedAt: at.Add(-time.Second)}}}
	a.Trace.Parent = traceparent
	return manager.End{Pool: "default", Cause: queue.CauseExit, Ran: time.Second, Attempt: a,
		Outcome: &worker.Outcome{Cause: queue.CauseExit, Message: "the worker exited with code 7", ExitCode: &code, StartedAt: at, FinishedAt: at.Add(time.Second)}}
}

func TestExporter(t *testing.T) {
	t.Parallel()
	c := &collector{refuse: []int{503, 429}}
	server := httptest.NewServer(c)
	defer server.Close()
	x := New(Config{URL: server.URL, Headers: http.Header{"Api-Key": {"k"}}, Service: "s", Host: "h"}, slog.New(slog.DiscardHandler))
	x.Ended(ended("a", parent))
	x.Ended(ended("b", strings.TrimSuffix(parent, "01")+"00")) // its producer does not record it
	x.Ended(ended("c", ""))
	for limit := time.Now().Add(30 * time.Second); ; <-time.After(10 * time.Millisecond) {
		c.mu.Lock()
		n := len(c.spans)
		c.mu.Unlock()
		if n > 0 {
			break
		}
		if time.Now().After(limit) {
			t.Fatal("no span came")
		}
	}
	x.Ended(ended("d", parent))
	x.Close() // which does not wait for others to come
	if len(c.spans) != 2 || c.asked != 4 || c.headers.Get("Api-Key") != "k" || c.headers.Get("Content-Type") != "application/json" {
		t.Fatalf("%d requests, %+v, %v", c.asked, c.spans, c.headers)
	}
	s := c.spans[0]
	if s.TraceID != "4bf92f3577b34da6a3ce929d0e0e4736" || s.ParentID != "00f067aa0ba902b7" || len(s.SpanID) != 16 || s.SpanID == c.spans[1].SpanID || s.Name != "render" || s.Kind != kindConsumer ||
		s.Start != "999000000000" || s.End != "1001000000000" || len(s.Events) != 1 || s.Events[0] != (event{"1000000000000", "started"}) || s.Status != (status{statusError, "the worker exited with code 7"}) {
		t.Errorf("%+v", s)
	}
	if New(Config{}, nil) != nil {
		t.Error("an exporter that nobody wants")
	}
}

// TestCollectorGone holds that a collector that is not there holds up nothing, and that what waits is bounded.
func TestCollectorGone(t *testing.T) {
	t.Parallel()
	c := &collector{refuse: []int{400}}
	server := httptest.NewServer(c)
	x := New(Config{URL: server.URL}, slog.New(slog.DiscardHandler))
	for range waitingMost + 10 {
		x.Ended(ended("a", parent))
	}
	x.mu.Lock()
	waiting, dropped := len(x.waiting), x.dropped
	x.mu.Unlock()
	if waiting != waitingMost || dropped != 10 {
		t.Errorf("%d wait, %d were dropped", waiting, dropped)
	}
	server.Close()
	begun := time.Now()
	x.Close()
	if took := time.Since(begun); took > 2*closeWait {
		t.Errorf("the end took %s", took)
	}
}
