// Package container runs programs in containers of Docker.
//
// # Theory of operation
//
// One attempt is one container, made from the spec: created with labels that hold the spec, waited for before it is started, so
// that no quick end is missed, and removed when its exit is released, not before. The engine keeps it meanwhile, so the labels are all
// the memory there is: a manager that starts anew finds its containers by them and goes on, and what nobody knows of any more is
// removed. Output is read from the engine's log of the container, from its beginning, which can be done anew after a restart.
//
// The program's own directory is a file system of its own, mounted on the host for as long as the container runs: in memory within half
// of the memory limit, or of the size of its disk. So it is bounded as that of a process is.
//
// Timeouts are kept by this process. While no manager runs they are overdue; the next one makes up for it.
//
// A connection that breaks says nothing of a container. Once the engine answers again, the container runs on, or it is asked how it
// ended. What the engine itself killed when it went down is lost with the host, not a failure of the program.
package container
