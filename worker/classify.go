package worker

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/mayfly/mayfly/isolation"
	"github.com/mayfly/mayfly/queue"
)

// ignored begins what is said of a result file that is not taken.
const ignored = "the result file was ignored: "

// classify turns the kernel's word on how a program ended into the outcome of its attempt. It never guesses: a SIGKILL
// that nobody can account for is a signal, not an out-of-memory.
func classify(a *Attempt, e *isolation.Exit) Outcome {
	o := Outcome{
		StartedAt: e.StartedAt, FinishedAt: e.FinishedAt,
		Usage: queue.Usage{
			WallSeconds:     e.FinishedAt.Sub(e.StartedAt).Seconds(),
			CPUSeconds:      e.CPU.Seconds(),
			MemoryPeakBytes: e.MemoryPeak,
		},
		Left: e.Left,
	}
	switch {
	case e.StartError != "":
		o.Cause, o.Message = queue.CauseStartError, e.StartError
		return o
	case e.Lost:
		o.Cause, o.Message = queue.CauseHostLost, "the keeper ended while the worker ran, and the worker was killed with it"
		return o
	case e.Signal != 0:
		o.Signal = signalName(e.Signal)
	default:
		code := e.Code
		o.ExitCode = &code
	}
	switch {
	case e.Stopped == isolation.Asked:
		o.Cause, o.Message = queue.CauseCancelled, "the worker was stopped because it was asked for"
	case e.Stopped == isolation.TimedOut:
		o.Cause, o.Message = queue.CauseTimeout, timeoutSentence(&a.Task, e, &o)
	case e.Signal == 0 && e.Code == 0:
		o.Cause = queue.CauseNone // whatever it went through on its way
	case e.OOMKills > 0:
		// How many, the kernel does not count well: in a group that dies as a whole it counts its first victim twice.
		o.Cause, o.Message = queue.CauseOOM, fmt.Sprintf("%s: the kernel had killed processes of it %s", ending(e, &o), shortOf(a, e))
	case e.DiskFull:
		o.Cause, o.Message = queue.CauseDiskFull, fmt.Sprintf("%s: its scratch and temporary directories had next to no room left in %s",
			ending(e, &o), room(&a.Lease))
	case e.Signal != 0:
		o.Cause, o.Message = queue.CauseSignal, ending(e, &o)
	default:
		o.Cause, o.Message = queue.CauseExit, ending(e, &o)
	}
	if e.CarryError != "" {
		o.note(ignored + e.CarryError)
	}
	if e.OutputError != "" {
		o.note("output was not kept: " + e.OutputError)
	}
	return o
}

// note adds a sentence to the message.
func (o *Outcome) note(sentence string) {
	if o.Message != "" {
		o.Message += "; "
	}
	o.Message += sentence
}

// ending says how a worker that nobody stopped ended.
func ending(e *isolation.Exit, o *Outcome) string {
	if e.Signal != 0 {
		return "the worker was killed by " + o.Signal
	}
	return fmt.Sprintf("the worker exited with code %d", e.Code)
}

// shortOf says of which memory there was none left.
func shortOf(a *Attempt, e *isolation.Exit) string {
	if e.HostOOM {
		return fmt.Sprintf("because the host had no memory left; it was not at its own limit of %s", queue.FormatSize(a.Lease.Memory))
	}
	return "at its memory limit of " + queue.FormatSize(a.Lease.Memory)
}

// room says how much a worker may write.
func room(l *Lease) string {
	if l.Disk > 0 {
		return queue.FormatSize(l.Disk)
	}
	return "memory, of which they may take half of the limit of " + queue.FormatSize(l.Memory)
}

func timeoutSentence(t *queue.Task, e *isolation.Exit, o *Outcome) string {
	how := "it ended after SIGTERM"
	if e.Killed {
		how = fmt.Sprintf("it was killed after %s of grace", t.Grace)
	}
	if o.ExitCode != nil {
		how = fmt.Sprintf("it exited with code %d after SIGTERM", *o.ExitCode)
	}
	return fmt.Sprintf("the worker ran longer than its timeout of %s; %s", t.Timeout, how)
}

func signalName(n int) string {
	if name := unix.SignalName(unix.Signal(n)); name != "" {
		return name
	}
	return fmt.Sprintf("SIG%d", n)
}

// shorten cuts s to at most n bytes at a rune's edge.
func shorten(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n-len("…")], "") + "…"
}
