package cli

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mayfly/mayfly/manager"
	"github.com/mayfly/mayfly/queue"
)

func TestSpan(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{-time.Second: "0ms", 12 * time.Millisecond: "12ms", 1500 * time.Millisecond: "1.5s",
		59 * time.Second: "59s", 61 * time.Second: "1m01s", 3 * time.Hour: "3h00m", 50 * time.Hour: "2d02h"} {
		if got := span(d); got != want {
			t.Errorf("span(%s) = %s, want %s", d, got, want)
		}
	}
}

func TestHuman(t *testing.T) {
	t.Parallel()
	for n, want := range map[int64]string{0: "0B", 999: "999B", 1024: "1KiB", 1 << 20: "1MiB", 11460 << 10: "11.2MiB", 1 << 62: "4EiB"} {
		if got := human(n); got != want {
			t.Errorf("human(%d) = %s, want %s", n, got, want)
		}
	}
}

func TestExitOf(t *testing.T) {
	t.Parallel()
	seven := 7
	for _, tt := range []struct {
		r    queue.Result
		code int
	}{
		{queue.Result{State: queue.Failed, Cause: queue.CauseExit, ExitCode: &seven}, 7},
		{queue.Result{State: queue.Failed, Cause: queue.CauseSignal, Signal: "SIGKILL"}, 137},
		{queue.Result{State: queue.Failed, Cause: queue.CauseSignal, Signal: "SIG35"}, 163},
		{queue.Result{State: queue.Failed, Cause: queue.CauseTimeout, ExitCode: &seven}, 124},
		{queue.Result{State: queue.Failed, Cause: queue.CauseDeadline}, 124},
		{queue.Result{State: queue.Failed, Cause: queue.CauseOOM, Signal: "SIGKILL"}, 137},
		{queue.Result{State: queue.Failed, Cause: queue.CauseDiskFull, ExitCode: &seven}, 7},
		{queue.Result{State: queue.Failed, Cause: queue.CauseGPUOOM, ExitCode: &seven}, 7},
		{queue.Result{State: queue.Failed, Cause: queue.CauseGPUFault, Signal: "SIGABRT"}, 134},
		{queue.Result{State: queue.Failed, Cause: queue.CauseGPUFault, ExitCode: new(int)}, 125},
		{queue.Result{State: queue.Failed, Cause: queue.CauseStartError}, 125},
		{queue.Result{State: queue.Failed, Cause: queue.CauseHostLost}, 125},
		{queue.Result{State: queue.Rejected, Cause: queue.CauseRejected}, 125},
		{queue.Result{State: queue.Cancelled, Cause: queue.CauseCancelled, Signal: "SIGTERM"}, 130},
	} {
		var err *codeError
		if !errors.As(exitOf(&tt.r), &err) || err.code != tt.code {
			t.Errorf("%+v: %v, want code %d", tt.r, err, tt.code)
		}
	}
	if err := exitOf(&queue.Result{State: queue.Succeeded}); err != nil {
		t.Errorf("success: %v", err)
	}
}

// TestHostileText has texts of workers and producers that a terminal would obey.
func TestHostileText(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	printViews(&out, []manager.View{{ID: "a", Name: "\x1b[31mred\x1b]0;title\x07", Status: manager.Running, Command: "two\nlines\x9b5m"}}, true)
	v := manager.View{ID: "a", Command: "x", Result: &queue.Result{StdoutTail: "one\n\x1b[2Jtwo\n"}}
	if err := printView(&out, &v); err != nil {
		t.Fatal(err)
	}
	if strings.ContainsAny(out.String(), "\x1b\x07\u009b") {
		t.Errorf("a terminal would obey this: %q", out.String())
	}
	if !strings.Contains(out.String(), "two lines") || !strings.Contains(out.String(), "\n    one\n") {
		t.Errorf("output:\n%s", out.String())
	}
}

func TestShrink(t *testing.T) {
	t.Parallel()
	widths := []int{20, 8, 200}
	shrink([]column{{"id", true}, {"status", false}, {"command", true}}, widths, 60)
	if widths[0] != 20 || widths[1] != 8 || widths[2] != 32 {
		t.Errorf("widths = %v", widths)
	}
}

// TestFullDisk holds that what cannot be printed is no success.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/tasks", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"id": "lost"}`) })
	mux.HandleFunc("GET /v1/tasks", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `[]`) })
	mux.HandleFunc("GET /v1/tasks/{id}/logs", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "output") })
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	go http.Serve(l, mux)
	defer l.Close()
	for _, args := range []string{"submit -- true", "ps", "ps --json", "logs --stdout job", "version"} {
		cmd := New(Program{Version: "1", Socket: func() string { return socket }})
		var said bytes.Buffer
		cmd.SetErr(&said)
		cmd.SetArgs(strings.Fields(args))
		if code := execute(cmd, full); code != codeFailure || said.String() != "mayfly: cannot print: no space left on device\n" {
			t.Errorf("%s: exit code %d: %s", args, code, said.String())
		}
	}
}
