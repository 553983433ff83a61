package integration

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mayfly/mayfly/internal/plain"
	"github.com/mayfly/mayfly/queue"
)

// onTerminal runs a command with a terminal for its outputs, and returns what that was sent.
func (h *host) onTerminal(args ...string) string {
	h.tb.Helper()
	far, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		h.tb.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(far.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(far.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		err = unix.IoctlSetWinsize(int(far.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 50, Col: 200})
	}
	if err != nil {
		h.tb.Fatal(err)
	}
	near, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		h.tb.Fatal(err)
	}
	var said strings.Builder
	var read sync.WaitGroup
	read.Go(func() { _, _ = io.Copy(&said, far) }) // ends with an error when nobody has the other end any more
	cmd := exec.Command(binary, args...)
	cmd.Env = append(h.environ(), "NO_COLOR=1")
	cmd.Stdout, cmd.Stderr = near, near
	err = cmd.Start()
	near.Close()
	if err != nil {
		h.tb.Fatal(err)
	}
	limit := time.AfterFunc(patienceLimit, func() { _ = cmd.Process.Kill() })
	_ = cmd.Wait()
	limit.Stop()
	read.Wait()
	far.Close()
	return strings.ReplaceAll(said.String(), "\r\n", "\n")
}

// TestTerminal has tasks say what a terminal would obey, in all that they may choose themselves. On a terminal none of it arrives, but with
// --raw; elsewhere the output is as it was written. Nor is it in the log.
func TestTerminal(t *testing.T) {
	t.Parallel()
	h := newHost(t, "MAYFLY_LOG_FORMAT=text")
	h.start()
	const evil = "\x1b]0;title\x07\x1b[2J\u009b31m\u202erid\rover"
	text, err := json.Marshal(map[string]any{"id": "evil", "labels": map[string]string{"l": evil + "\nlabel"}, "command": []string{"sh", "-c",
		`printf '\033]0;title\007\033[2J\302\23331m\n\377two\r\n'; printf '\033[31merr\n' >&2; printf '"\302\23331m"' >$MAYFLY_RESULT; exit 3`, evil}})
	if err != nil {
		t.Fatal(err)
	}
	h.submit(string(text))
	if r := h.result("evil"); r.State != queue.Failed {
		t.Fatalf("result %+v", r)
	}
	lost, _ := json.Marshal(map[string]any{"id": "lost", "command": []string{evil}})
	h.submit(string(lost))
	h.result("lost")
	refused, _ := json.Marshal(map[string]any{"shell": "x", evil: evil})
	if err := os.WriteFile(h.dir+"/refused.json", refused, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"logs", "evil"}, {"show", "evil"}, {"show", "--json", "evil"}, {"ps", "-a"}, {"ps", "-a", "--json"}, {"explain", "lost"}, {"show", "lost"}, {"dead", "list"},
		{"dead", "show", "evil"}, {"dead", "show", "--json", "lost"}, {"show", evil}, {"cancel", evil}, {"dead", "drop", evil}, {"submit", "--file", h.dir + "/refused.json"},
		{"submit", "--wait", "--shell", `printf '\033[2Jhello\n'; printf '\033[2J' >&2; exit 1`}, {"submit", "--wait", "--", evil}} {
		said := h.onTerminal(args...)
		if said == "" || !plain.Clean(said) {
			t.Errorf("mayfly %q sends the terminal %q", args, said)
		}
	}
	if said := h.onTerminal("logs", "evil"); !strings.Contains(said, "two\n") || !strings.Contains(said, "[31merr\n") {
		t.Errorf("the terminal is sent %q", said)
	}
	if said := h.onTerminal("logs", "--raw", "--stdout", "evil"); !strings.Contains(said, "\x1b[2J") {
		t.Errorf("with --raw the terminal is sent %q", said)
	}
	if out, errs, _ := h.mayfly("", "logs", "evil"); out != "\x1b]0;title\x07\x1b[2J\u009b31m\n\xfftwo\r\n" || errs != "\x1b[31merr\n" {
		t.Errorf("elsewhere the output is %q, %q", out, errs)
	}
	h.stop()
	if log := h.logged(); !plain.Clean(log) {
		t.Errorf("the log holds what a terminal obeys: %q", log)
	}
}
