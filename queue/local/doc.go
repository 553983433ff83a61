// Package local keeps the queue in one file on this host: durable, embedded, without a broker.
//
// # Theory of operation
//
// Messages lie in a bbolt database. A message is stored under a number; the lane of its pool and band names it in order of
// arrival, or, while it waits for its next try, the delayed bucket names it in order of time. What is handed out is
// remembered in memory only: a lane's position, and the numbers that came back. So taking a message costs no write, and
// after a crash everything that was not settled is there again, marked as possibly delivered before.
//
// Publish and Settle return when their change is flushed to the disk; changes that come together share one flush
// (groupcommit). A retry replaces the message by its copy in one change. A burial first stores the dead letter, under the
// number of the message, so that to repeat it changes nothing.
//
// Results have no exchange to go to here: the manager's own history, which it writes before the message is removed, is where
// they are kept.
//
// # Why bbolt
//
// It is pure Go (MIT licence, kept by the etcd project), so the binary needs no cgo; one writer at a time and ordered keys are
// all that a queue needs; a file that was closed by SIGKILL needs no repair. SQLite would bring a query language that
// nothing here asks for, and either cgo or megabytes of translated C.
package local
