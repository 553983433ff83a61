package worker

import (
	"testing"
	"time"

	"github.com/mayfly/mayfly/isolation"
	"github.com/mayfly/mayfly/queue"
)

func TestClassify(t *testing.T) {
	t.Parallel()
	a := &Attempt{Task: queue.Task{Timeout: time.Second, Grace: 2 * time.Second}, Lease: Lease{Memory: 64 << 20}}
	code := func(n int) *int { return &n }
	brief := &Attempt{Task: queue.Task{Timeout: time.Nanosecond}, Lease: a.Lease}
	exit := isolation.Exit{Signal: 15, Stopped: isolation.TimedOut}
	if o := classify(brief, &exit); o.Message != "the worker ran longer than its timeout of 1ns; it ended after SIGTERM" {
		t.Errorf("a timeout that no clock shows: %s", o.Message)
	}
	for _, tt := range []struct {
		name    string
		exit    isolation.Exit
		cause   queue.Cause
		code    *int
		signal  string
		message string
	}{
		{"success", isolation.Exit{}, queue.CauseNone, code(0), "", ""},
		{"exit", isolation.Exit{Code: 3}, queue.CauseExit, code(3), "", "the worker exited with code 3"},
		{"137 is an exit code like any other", isolation.Exit{Code: 137}, queue.CauseExit, code(137), "", "the worker exited with code 137"},
		{"a SIGKILL that nobody accounts for is a signal", isolation.Exit{Signal: 9}, queue.CauseSignal, nil, "SIGKILL", "the worker was killed by SIGKILL"},
		{"a real-time signal has a name too", isolation.Exit{Signal: 35}, queue.CauseSignal, nil, "SIG35", "the worker was killed by SIG35"},
		{"timeout, TERM sufficed", isolation.Exit{Signal: 15, Stopped: isolation.TimedOut}, queue.CauseTimeout, nil, "SIGTERM",
			"the worker ran longer than its timeout of 1s; it ended after SIGTERM"},
		{"timeout, killed", isolation.Exit{Signal: 9, Stopped: isolation.TimedOut, Killed: true}, queue.CauseTimeout, nil, "SIGKILL",
			"the worker ran longer than its timeout of 1s; it was killed after 2s of grace"},
		{"timeout, tidied up and exited with 0", isolation.Exit{Code: 0, Stopped: isolation.TimedOut}, queue.CauseTimeout, code(0), "",
			"the worker ran longer than its timeout of 1s; it exited with code 0 after SIGTERM"},
		{"asked to stop", isolation.Exit{Signal: 15, Stopped: isolation.Asked}, queue.CauseCancelled, nil, "SIGTERM", "the worker was stopped because it was asked for"},
		{"a child killed at the limit, and failed for it", isolation.Exit{Code: 137, OOMKills: 1}, queue.CauseOOM, code(137), "",
			"the worker exited with code 137: the kernel had killed processes of it at its memory limit of 64MiB"},
		{"killed at the limit as a group", isolation.Exit{Signal: 9, OOMKills: 3}, queue.CauseOOM, nil, "SIGKILL",
			"the worker was killed by SIGKILL: the kernel had killed processes of it at its memory limit of 64MiB"},
		{"killed because the host is short", isolation.Exit{Signal: 9, OOMKills: 1, HostOOM: true}, queue.CauseOOM, nil, "SIGKILL",
			"the worker was killed by SIGKILL: the kernel had killed processes of it because the host had no memory left; it was not at its own limit of 64MiB"},
		{"a child killed at the limit, and survived", isolation.Exit{OOMKills: 1}, queue.CauseNone, code(0), "", ""},
		{"stopped, and over the limit on its way out", isolation.Exit{Signal: 9, OOMKills: 1, Stopped: isolation.Asked, Killed: true}, queue.CauseCancelled,
			nil, "SIGKILL", "the worker was stopped because it was asked for"},
		{"no room left", isolation.Exit{Code: 1, DiskFull: true}, queue.CauseDiskFull, code(1), "",
			"the worker exited with code 1: its scratch and temporary directories had next to no room left in memory, of which they may take half of the limit of 64MiB"},
		{"no room left, and did without", isolation.Exit{DiskFull: true}, queue.CauseNone, code(0), "", ""},
		{"a result that is not taken", isolation.Exit{Code: 1, CarryError: "it is a symbolic link"}, queue.CauseExit, code(1), "",
			"the worker exited with code 1; the result file was ignored: it is a symbolic link"},
		{"lost", isolation.Exit{Lost: true}, queue.CauseHostLost, nil, "", "the keeper ended while the worker ran, and the worker was killed with it"},
		{"not started", isolation.Exit{StartError: "cannot start x: no"}, queue.CauseStartError, nil, "", "cannot start x: no"},
	} {
		o := classify(a, &tt.exit)
		same := (o.ExitCode == nil) == (tt.code == nil) && (tt.code == nil || *o.ExitCode == *tt.code)
		if o.Cause != tt.cause || !same || o.Signal != tt.signal || o.Message != tt.message {
			t.Errorf("%s: classify = %+v", tt.name, o)
		}
	}
}

func TestShorten(t *testing.T) {
	t.Parallel()
	if got := shorten("aéé", 5); got != "aéé" {
		t.Errorf("shorten cut what fits: %q", got)
	}
	if got := shorten("aééééé", 7); got != "aé…" {
		t.Errorf("shorten = %q, want it cut at a rune's edge", got)
	}
}
