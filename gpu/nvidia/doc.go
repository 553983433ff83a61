// Package nvidia tells of NVIDIA's GPUs through NVML, the driver's management library.
//
// # Theory of operation
//
// NVML is code of the driver's in our process: it may hang in the kernel, crash, or end the process over a function that an older
// version lacks. So it lives in a helper: this program once more, as `mayfly gpu-helper`, which is started when something is asked and
// ended when nothing is for a while. It answers one line of JSON with another, on its standard input and output; errors of the
// driver (XIDs) come as lines of their own. The [Client] gives every call a time. A helper that exceeds it is killed and forgotten,
// and the next call starts another one. One that does not even die, stuck in the kernel, is left behind; after a few of them no more are
// started for a time, for each would only get stuck beside them.
//
// A helper that is gone has reported nothing since: the client has the states of GPUs say what the driver itself remembers
// (the recovery action), so that no fault is missed for long.
//
// Built without cgo, the package compiles to a driver that says that there is none.
package nvidia
