// Package manager admits, assigns, runs, judges, settles and drains: it is the host's one ledger.
//
// # Theory of operation
//
// A delivery becomes an entry. An entry waits until the ledger has room for its lease, is then active (it has a worker, or an
// outcome that is not settled yet), and is forgotten once it is settled. One mutex guards all of that; nothing blocks while
// it is held. An attempt has no state machine: it is one function, read downwards (Manager.attempt): run, give the lease
// back, judge, settle, release, forget. Only the manager itself has states: serving, draining, stopped.
//
// An entry can be without a delivery: its connection broke, or it was adopted from the keeper after a restart. It goes on
// all the same, and the next delivery of its message is joined to it (accept, rejoin). What is settled is recorded
// (History) between the confirm and the acknowledgement, so that a message which comes back only because its
// acknowledgement was lost is given up and not run again.
//
// What becomes of an outcome is decided by a pure function (judge). Two contexts bound the work: that of the workers, which
// ends at the drain deadline, and that of the settlements, which ends a little later.
package manager
