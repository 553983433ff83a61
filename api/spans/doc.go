// Package spans sends one span of OpenTelemetry for each attempt to a collector.
//
// # Theory of operation
//
// It speaks OTLP by HTTP with JSON itself: one request and a dozen fields, against three megabytes of libraries that cost an idle
// manager as much memory. Spans are gathered for a second and sent together; between that there is no goroutine and no connection. What a
// collector does not take is tried again a few times, then dropped and counted: tracing never holds up a task.
//
// The span's id is made of the trace and the attempt, so that the worker's own spans can name it as their parent before it is sent, and the
// next manager sends the same.
package spans
