package spans

import (
	"strconv"
	"strings"
	"time"

	"github.com/mayfly/mayfly/manager"
	"github.com/mayfly/mayfly/queue"
)

// The JSON of OTLP (opentelemetry-proto, trace.proto): numbers of 64 bits are strings, ids hexadecimal.
type (
	span struct {
		TraceID    string      `json:"traceId"`
		SpanID     string      `json:"spanId"`
		ParentID   string      `json:"parentSpanId,omitempty"`
		TraceState string      `json:"traceState,omitempty"`
		Name       string      `json:"name"`
		Kind       int         `json:"kind"`
		Start      string      `json:"startTimeUnixNano"`
		End        string      `json:"endTimeUnixNano"`
		Attributes []attribute `json:"attributes"`
		Events     []event     `json:"events,omitempty"`
		Status     status      `json:"status"`
	}
	attribute struct {
		Key   string `json:"key"`
		Value value  `json:"value"`
	}
	value struct {
		String string `json:"stringValue,omitempty"`
		Int    string `json:"intValue,omitempty"`
	}
	event struct {
		Time string `json:"timeUnixNano"`
		Name string `json:"name"`
	}
	status struct {
		Code    int    `json:"code,omitempty"`
		Message string `json:"message,omitempty"`
	}
)

const (
	kindConsumer = 5 // of a message
	statusError  = 2
	// messageMost bounds the words of an end, in bytes.
	messageMost = 1024
)

func text(key, s string) attribute { return attribute{key, value{String: s}} }
func number(key string, n int64) attribute {
	return attribute{key, value{Int: strconv.FormatInt(n, 10)}}
}
func nanoseconds(t time.Time) string { return strconv.FormatInt(t.UnixNano(), 10) }

// spanOf makes the span of an ended attempt; ok is false where its trace is not to be recorded.
func spanOf(e *manager.End) (s span, ok bool) {
	a, o := e.Attempt, e.Outcome
	traceID, parentID, sampled := a.Trace.IDs()
	if traceID == "" || !sampled {
		return s, false
	}
	queued := a.QueuedAt
	for _, past := range a.History { // a later attempt has been waiting since the one before
		if past.FinishedAt.After(queued) {
			queued = past.FinishedAt
		}
	}
	if queued.After(o.StartedAt) {
		queued = o.StartedAt
	}
	s = span{TraceID: traceID, SpanID: a.Trace.SpanID(a.ID()), ParentID: parentID, TraceState: a.Trace.State, Name: "task", Kind: kindConsumer,
		Start: nanoseconds(queued), End: nanoseconds(o.FinishedAt),
		Attributes: []attribute{text("mayfly.task.id", a.Task.ID), number("mayfly.attempt", int64(a.Number)), text("mayfly.pool", a.Task.Pool), text("mayfly.cause", string(e.Cause))}}
	if a.Task.Type != "" {
		s.Name = a.Task.Type
		s.Attributes = append(s.Attributes, text("mayfly.type", a.Task.Type))
	}
	if e.Ran >= 0 {
		s.Events = []event{{nanoseconds(o.StartedAt), "started"}}
	}
	if o.ExitCode != nil {
		s.Attributes = append(s.Attributes, number("process.exit.code", int64(*o.ExitCode)))
	}
	if e.Cause != queue.CauseNone {
		s.Status = status{statusError, strings.ToValidUTF8(o.Message[:min(len(o.Message), messageMost)], "")}
	}
	return s, true
}
