package worker

import (
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mayfly/mayfly/isolation"
	"github.com/mayfly/mayfly/queue"
)

// classify turns the kernel's word on how a program ended into the outcome of its attempt. It never guesses: a SIGKILL
// that nobody can account for is a signal, not an out-of-memory.
func classify(t *queue.Task, e *isolation.Exit) Outcome {
	o := Outcome{
		StartedAt: e.StartedAt, FinishedAt: e.FinishedAt,
		Usage: queue.Usage{
			WallSeconds:     e.FinishedAt.Sub(e.StartedAt).Seconds(),
			CPUSeconds:      e.CPU.Seconds(),
			MemoryPeakBytes: e.MemoryPeak,
		},
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
		o.Cause, o.Message = queue.CauseTimeout, timeoutSentence(t, e, &o)
	case e.Signal != 0:
		o.Cause, o.Message = queue.CauseSignal, fmt.Sprintf("the worker was killed by %s", o.Signal)
	case e.Code != 0:
		o.Cause, o.Message = queue.CauseExit, fmt.Sprintf("the worker exited with code %d", e.Code)
	default:
		o.Cause = queue.CauseNone
	}
	return o
}

func timeoutSentence(t *queue.Task, e *isolation.Exit, o *Outcome) string {
	how := "it ended after SIGTERM"
	if e.Killed {
		how = fmt.Sprintf("it was killed after %s of grace", t.Grace)
	}
	if o.ExitCode != nil {
		how = fmt.Sprintf("it exited with code %d after SIGTERM", *o.ExitCode)
	}
	return fmt.Sprintf("the worker ran longer than its timeout of %s; %s", t.Timeout.Round(time.Millisecond), how)
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
