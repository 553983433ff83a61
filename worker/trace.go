package worker

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

// Trace is the context of the trace that a task belongs to (W3C Trace Context), empty where it belongs to none.
type Trace struct {
	// Parent is the traceparent, State the tracestate.
	Parent string `json:"parent,omitempty"`
	State  string `json:"state,omitempty"`
}

// IDs are those of the trace and of the span that the task is a part of, in hexadecimal digits, empty where there are none; sampled says that the
// trace is to be recorded.
func (t Trace) IDs() (trace, parent string, sampled bool) {
	if t.Parent == "" {
		return "", "", false
	}
	f := strings.SplitN(t.Parent, "-", 5) // of the form that isTraceParent wants
	return f[1], f[2], strings.ContainsAny(f[3][1:], "13579bdf")
}

// SpanID is that of an attempt's own span: always the same, so that the worker can be told of it before it is recorded.
func (t Trace) SpanID(attemptID string) string {
	sum := sha256.Sum256([]byte(t.Parent + "\x00" + attemptID))
	sum[0] |= 1 // an id of zeros is none
	return hex.EncodeToString(sum[:8])
}

// within is the context of what is a part of an attempt's own span.
func (t Trace) within(attemptID string) Trace {
	trace, _, sampled := t.IDs()
	if !sampled {
		return t // its span is not recorded
	}
	return Trace{Parent: "00-" + trace + "-" + t.SpanID(attemptID) + "-01", State: t.State}
}

// maxTrace bounds each of the two in bytes: as much as the standard wants to be handed on.
const maxTrace = 512

// TraceOf reads the context from the headers of a message. One that is not well-formed is none, as the standard has it.
func TraceOf(headers map[string]any) Trace {
	parent := text(headers["traceparent"])
	if !isTraceParent(parent) {
		return Trace{}
	}
	t := Trace{Parent: parent}
	if state := text(headers["tracestate"]); len(state) <= maxTrace && isPrintable(state) {
		t.State = state
	}
	return t
}

// isTraceParent reports whether s is "<version>-<trace id>-<span id>-<flags>", in lower-case hexadecimal digits. Versions after 00 may
// have more behind that; ff is none, as are ids of zeros.
func isTraceParent(s string) bool {
	fields := strings.SplitN(s, "-", 5)
	if len(s) > maxTrace || len(fields) < 4 || len(fields) == 5 && fields[0] == "00" || fields[0] == "ff" || !isPrintable(s) {
		return false
	}
	for i, digits := range []int{2, 32, 16, 2} {
		if f := fields[i]; len(f) != digits || strings.Trim(f, "0123456789abcdef") != "" || digits > 2 && strings.Trim(f, "0") == "" {
			return false
		}
	}
	return true
}

// isPrintable reports whether s has nothing but what can be seen of ASCII, and blanks.
func isPrintable(s string) bool {
	return strings.IndexFunc(s, func(c rune) bool { return c != '\t' && (c < ' ' || c > '~') }) < 0
}

// text is a header's value as text; AMQP knows two kinds.
func text(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case []byte:
		return string(v)
	}
	return ""
}
