package worker

import (
	"slices"
	"strings"
	"testing"

	"github.com/mayfly/mayfly/queue"
)

func TestTraceOf(t *testing.T) {
	t.Parallel()
	const good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	for name, tt := range map[string]struct {
		headers map[string]any
		want    Trace
	}{
		"none":                         {nil, Trace{}},
		"both":                         {map[string]any{"traceparent": good, "tracestate": "a=1,b=2"}, Trace{good, "a=1,b=2"}},
		"as bytes":                     {map[string]any{"traceparent": []byte(good), "tracestate": []byte("a=1")}, Trace{good, "a=1"}},
		"a later one, with a line end": {map[string]any{"traceparent": "cc" + good[2:] + "-more\n"}, Trace{}},
		"a later version":              {map[string]any{"traceparent": "cc" + good[2:] + "-more"}, Trace{"cc" + good[2:] + "-more", ""}},
		"no text":                      {map[string]any{"traceparent": int64(5), "tracestate": true}, Trace{}},
		"state alone":                  {map[string]any{"tracestate": "a=1"}, Trace{}},
		"a hole":                       {map[string]any{"traceparent": "00-4bf92f3577b34da6a3ce929d0e0eX736-00f067aa0ba902b7-01"}, Trace{}},
		"a short id":                   {map[string]any{"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01"}, Trace{}},
		"too few":                      {map[string]any{"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7"}, Trace{}},
		"version ff":                   {map[string]any{"traceparent": "ff" + good[2:]}, Trace{}},
		"more in version 00":           {map[string]any{"traceparent": good + "-more"}, Trace{}},
		"capitals":                     {map[string]any{"traceparent": strings.ToUpper(good)}, Trace{}},
		"no trace":                     {map[string]any{"traceparent": "00-00000000000000000000000000000000-00f067aa0ba902b7-01"}, Trace{}},
		"no span":                      {map[string]any{"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01"}, Trace{}},
		"a line end":                   {map[string]any{"traceparent": good + "\n"}, Trace{}},
		"a forged state":               {map[string]any{"traceparent": good, "tracestate": "a=1\x00LD_PRELOAD=x"}, Trace{good, ""}},
		"a state of two lines":         {map[string]any{"traceparent": good, "tracestate": "a=1\nb"}, Trace{good, ""}},
		"a state too long":             {map[string]any{"traceparent": good, "tracestate": "a=" + strings.Repeat("x", 511)}, Trace{good, ""}},
	} {
		if got := TraceOf(tt.headers); got != tt.want {
			t.Errorf("%s: %+v, want %+v", name, got, tt.want)
		}
	}
}

// TestTraceEnvironment lays the message's context over the task's own, whole: a state belongs to its parent.
func TestTraceEnvironment(t *testing.T) {
	t.Parallel()
	own := map[string]string{"TRACEPARENT": "own", "TRACESTATE": "own"}
	for name, tt := range map[string]struct {
		trace Trace
		want  []string
	}{
		"the task's own": {Trace{}, []string{"TRACEPARENT=own", "TRACESTATE=own"}},
		"the message's":  {Trace{Parent: "p", State: "s"}, []string{"TRACEPARENT=p", "TRACESTATE=s"}},
		"without state":  {Trace{Parent: "p"}, []string{"TRACEPARENT=p"}},
	} {
		env := environment(&Attempt{Task: queue.Task{Environment: own}, Trace: tt.trace}, files{}, &Config{})
		env = slices.DeleteFunc(env, func(v string) bool { return !strings.HasPrefix(v, "TRACE") })
		if !slices.Equal(env, tt.want) {
			t.Errorf("%s: %v, want %v", name, env, tt.want)
		}
	}
}
