// Package gpu knows which GPUs a host has, who holds them, and which are not fit to be lent.
//
// # Theory of operation
//
// A [Host] is the GPUs' part of the host's one ledger. What it lends is a [Device]: a whole GPU, a MIG instance, or, where the operator
// allows it, a share of a GPU's memory. A device is in one of four conditions:
//
//	free -> held by one or, shared, several holders -> being checked -> free
//	                                                \-> in quarantine -> free
//
// A holder that returns a device has ended, with all of its processes as far as the kernel's control groups know. The check asks the
// driver, which may know better: no process may be left on the device, its memory must be back where it was when idle, and the
// driver must not want it reset. A process that came while the device was held is killed. What is not clean within a bound is put in
// quarantine, that device and no other, and is looked at again until it is clean.
//
// While anything is held, being checked or in quarantine, one goroutine looks at it from time to time: it takes the samples for the
// holders' accounts, stops those that take more than their share, and hears of the driver's error reports (XIDs). A report that the GPU
// cannot go on puts it in quarantine and stops its holders, whose attempts then are the GPU's fault and not theirs. With nothing to look
// at, the goroutine ends, and with it all that the driver costs.
//
// The package speaks to a [Driver], whose calls may fail, hang until a deadline, or tell of a crash. None of that is ever taken for
// "clean": a device of which nothing can be learnt is not lent.
package gpu
