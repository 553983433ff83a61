// Package queue says what a task is and how the duty to settle each delivery is discharged.
//
// # Theory of operation
//
// A producer's message becomes a [Message], then (by [Decode]) an immutable [Task] or a [Refusal]. Whoever holds a
// [Delivery] owes it exactly one [Verdict]. Settling happens in a fixed order that loses nothing: first everything that
// the verdict demands (a result, a copy for a later try, a dead letter) is published and confirmed, then the caller's
// own record is written, and only then is the queue's copy given up. A crash between any two of these steps leaves the
// queue's copy in place, so that the task is delivered again: at least once, never zero times.
//
// A delivery can be lost: its connection broke and the queue will deliver the message again, here or elsewhere.
// A lost delivery cannot be settled. Its worker runs on; the next delivery of the same attempt is joined to it.
//
// The package is plain Go. The folders below it hold one outside dependency each: rabbit (RabbitMQ), local (an embedded
// store), tasktype (the directory of task types). Both queues pass the conformance suite in queuetest.
package queue
