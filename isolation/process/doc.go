// Package process forks programs, confined.
//
// # Theory of operation
//
// A program must be confined before its first instruction, at nearly the price of a plain fork. So nothing is put between us
// and it: no helper process, no stage that executes another. Between clone and execve the child itself makes a list of system
// calls (step) that the parent has prepared: it joins control groups, mounts what is its own, gives up its rights, takes its
// files. The child shares our memory while the forking thread stands still (vfork), as in the standard library's fork, which has
// no place for such a list, and our open files until it takes its own (desks.go). What is inherited and the same for all is set once, on the threads that fork (confine): the view
// of the file system, of which each child gets a copy, the capability bounding set, and that no privilege can be gained.
//
// These few threads live for as long as their Spawner, each locked to a goroutine: a child's parent-death signal fires when the
// *thread* that forked it ends, not the process.
//
// What a program may write to is made for it alone (Private): file systems that are mounted nowhere but in its own mount
// namespace, and that vanish with it. There is nothing to unmount, and nothing to find and sweep after a crash. The devices that it
// has beside the ordinary ones are in a /dev of its own.
//
// Each part of the confinement is had where the host has it; Effective and Missing say what that came to.
package process
