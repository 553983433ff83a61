package worker

import (
	"strings"
	"testing"
)

// FuzzTrace has the headers of a trace be anything: what reaches a worker's environment is one line of plain text.
func FuzzTrace(f *testing.F) {
	f.Add("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "a=1,b=2")
	f.Add("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-\n", "a\x00LD_PRELOAD=x")
	f.Fuzz(func(t *testing.T, parent, state string) {
		for _, headers := range []map[string]any{{"traceparent": parent, "tracestate": state}, {"traceparent": []byte(parent), "tracestate": []byte(state)}} {
			got := TraceOf(headers)
			if got.Parent == "" && got.State != "" || len(got.Parent) > maxTrace || len(got.State) > maxTrace {
				t.Errorf("%q, %q become %+v", parent, state, got)
			}
			if text := got.Parent + got.State; strings.ContainsFunc(text, func(r rune) bool { return r != '\t' && (r < ' ' || r > '~') }) {
				t.Errorf("%q is no plain text", text)
			}
		}
	})
}
