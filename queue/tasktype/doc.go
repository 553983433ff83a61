// Package tasktype is the host's directory of task types: what a message may run by name.
//
// # Theory of operation
//
// A type is one file, <name>.yaml, <name>.yml or <name>.json, that says what its tasks run, their defaults, which fields a
// message may set besides, and how far:
//
//	description: Turns a data set into a report.
//	command: [/opt/process/run]
//	environment: {MODE: batch}
//	resources: {cpu: 2, memory: 4GB}
//	timeout: 1h
//	override: [timeout, resources.memory]
//	max: {memory: 32GB, timeout: 6h}
//
// A message then needs only {"type": "process_data", "params": {...}}. [Catalog.Resolve] makes of such a task one that can
// run; the rest of the host never learns of types. The file is decoded by the rules and in the words of a message
// ([queue.DecodeTemplate]).
//
// What a message may set without leave says nothing about how the work is done: params, stdin, name, id, labels,
// deadline, priority, max_attempts, backoff, on_lost and pool. Environment variables and labels are merged with those of the type
// name by name, resources field by field; all else that a message sets takes the place of the type's. Where neither gives
// a timeout, the type's limit is the timeout.
//
// The directory is read anew when it has changed, which is looked for at most once a second and only when a task comes. A
// directory that cannot be read, or holds a file with a mistake, leaves the types as they were.
package tasktype
