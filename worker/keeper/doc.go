// Package keeper is the one small process per host that is the parent of all worker processes, and its client.
//
// # Theory of operation
//
// The manager may die, be killed or be upgraded; workers must not notice, and their exit codes must not be lost. So they
// are children of the keeper (Main, run as `mayfly keeper DIR`), which does nothing but fork, copy output, enforce timeouts,
// reap, and hold each exit until it is released. The manager speaks to it through [Client], an isolation.Sandbox.
//
// The keeper is started when a program is to run and none is there, and quits when it is told to and holds nothing, or
// when its client has gone and it holds nothing. A new client gets everything that is held, with the note that came with
// each, and takes over; programs are known by id, never by PID.
//
// Each worker is the leader of a session, in a control group of its own where the host has version 2 groups to write to.
// When its leader has ended, all that is left in the group is killed and waited for before the exit is told. Where there are
// no groups, the keeper finds the rest by session and by a mark in the environment, and as a subreaper is the parent of
// orphans. A worker that clears its environment and begins a new session can hide there until the keeper is idle.
//
// A process may be held up before it is the program: a file system does not answer, or somebody keeps the file from being opened. It can be stopped then, too, and is
// given up after half a minute; the threads that bear others, and everything else, go on meanwhile.
//
// Output goes through a pipe to the keeper, which splices it into the file up to the cap and drops the rest. The pipe dies only
// with the keeper, and with the keeper its workers die too: each gets SIGKILL by its parent-death signal, and the client
// kills what they left behind, by control group or mark, and reports their programs as lost.
package keeper
