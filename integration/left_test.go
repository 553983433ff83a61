package integration

import (
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestLeftBehind takes a host from its own queue to a broker: what still lies in the queue is nobody's, and both manager and check say so.
func TestLeftBehind(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.start()
	h.submit(`{"id": "fails", "command": ["false"]}`)
	h.submit(`{"id": "later", "command": ["false"], "max_attempts": 2, "backoff": "1h"}`)
	h.result("fails")
	h.until("the other one waits", func() bool { return strings.Contains(h.logged(), "task tried again") })
	h.stop()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := l.Addr().String()
	l.Close()
	h.env = append(h.env, "MAYFLY_AMQP_URL=amqp://guest:guest@"+nobody+"/")
	const left = "1 tasks and 1 dead letters lie in the embedded queue"
	list, code := h.checked(0)
	h.expectWrong(list, code, "embedded queue", left, "unset MAYFLY_AMQP_URL")
	h.start()
	h.until("it says so", func() bool { return strings.Contains(h.logged(), left) })
	h.stop()
}

// TestStopTold holds that a manager that waits for its tasks when it is stopped asks systemd for the time that this may take.
func TestStopTold(t *testing.T) {
	t.Parallel()
	for onStop, want := range map[string]string{"stop": "STOPPING=1\nEXTEND_TIMEOUT_USEC=3730000000", "keep": "STOPPING=1"} {
		path := filepath.Join(t.TempDir(), "notify")
		told, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
		if err != nil {
			t.Fatal(err)
		}
		defer told.Close()
		h := newHost(t, "NOTIFY_SOCKET="+path, "MAYFLY_ON_STOP="+onStop, "MAYFLY_DRAIN_TIMEOUT=1h", "MAYFLY_GRACE=10s")
		h.start()
		h.signal(syscall.SIGTERM)
		if err := h.wait(); err != nil {
			t.Fatal(err)
		}
		var all []string
		for b := make([]byte, 1<<10); ; {
			_ = told.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
			n, err := told.Read(b)
			if err != nil {
				break
			}
			all = append(all, string(b[:n]))
		}
		if len(all) != 2 || all[0] != "READY=1" || all[1] != want {
			t.Errorf("%s: told %q, want READY=1 and %q", onStop, all, want)
		}
	}
}

// TestIdleLater keeps a host here whose own queue holds a task for later: nobody else will get it.
func TestIdleLater(t *testing.T) {
	t.Parallel()
	h := newHost(t, "MAYFLY_IDLE_EXIT=2s")
	h.start()
	h.submit(`{"id": "later", "command": ["false"], "max_attempts": 2, "backoff": "4s"}`)
	if err := h.wait(); err != nil {
		t.Fatalf("the manager ended with %v", err)
	}
	if log := h.logged(); !strings.Contains(log, `"attempt":"later.2"`) {
		t.Errorf("it left before the second try:\n%s", log)
	}
}
