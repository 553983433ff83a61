// Package cgroup holds all processes of a program together and bounds what they take, whatever they do to hide: fork twice,
// begin a session of their own, or lose their parent.
//
// # Theory of operation
//
// A program is a member of its control groups before its first instruction: of the version 2 group by its birth (clone3 with
// CLONE_INTO_CGROUP), of version 1 groups because its child joins them before it executes the program. So there is no
// moment at which it is outside. Its end is that of its groups: cgroup.kill ends everything in them at once, and
// "populated 0" says when nothing of it is left.
//
// Hosts differ. With the unified hierarchy (version 2) one directory does it all. Hybrid hosts have their controllers in
// version 1 hierarchies and a version 2 hierarchy beside them, which holds the processes together. Legacy hosts have no
// version 2: there a group is ended by forbidding it to fork (pids.max 0) and killing what is in it until nothing is.
//
// Making and removing directories in five hierarchies costs more than a fork. So a group that was left clean is used again;
// what counts from birth is counted from its next use (see [Group.Account]). Limits are a list of (file, value), made by
// pure functions; only what differs from the group's last use is written.
//
// Devices are closed by their numbers, so that no name opens them: by a program that the kernel asks (version 2), or by the devices
// controller (version 1). A group that never closed one has no part in either.
package cgroup
