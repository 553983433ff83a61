package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/mayfly/mayfly/manager"
	"github.com/mayfly/mayfly/queue"
)

// submit submits a document to the host's embedded queue.
func (h *host) submit(body string) string {
	h.tb.Helper()
	out, errs, code := h.mayfly(body, "submit", "--file", "-")
	if code != 0 {
		h.tb.Fatalf("submit: %s", errs)
	}
	return strings.TrimSpace(out)
}

// result waits for a task's result.
func (h *host) result(id string) queue.Result {
	h.tb.Helper()
	var v manager.View
	if err := h.get("/v1/tasks/"+id+"/wait", &v); err != nil {
		h.tb.Fatal(err)
	}
	return *v.Result
}

func (h *host) resultsOf(ids []string) map[string]queue.Result {
	h.tb.Helper()
	all := map[string]queue.Result{}
	for _, id := range ids {
		all[id] = h.result(id)
	}
	return all
}

// TestEmbeddedManagerKilled kills the manager while tasks run on the embedded queue, some of which end while there is none.
func TestEmbeddedManagerKilled(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.start()
	ids, marks, release := longTasks(h, func(body string) { h.submit(body) }, 10)
	h.submit(`{"id": "waits", "command": ["true"], "resources": {"cpu": 4}}`)
	h.kill()
	h.start()
	h.until("all are adopted", func() bool { return h.running() == len(ids) })
	h.kill()
	release()
	h.until("all workers have ended", func() bool { return len(h.processes()) == 1 })
	h.start()
	checkLong(t, h.resultsOf(ids))
	ranOnce(t, marks, ids)
	if r := h.result("waits"); r.State != queue.Succeeded {
		t.Errorf("result = %+v", r)
	}
	h.until("only the manager is left", func() bool { return len(h.processes()) == 0 })
	if letters, _, _ := h.mayfly("", "dead", "list", "--json"); strings.Count(letters, `"key"`) != len(ids) {
		t.Errorf("dead letters = %s", letters)
	}
}

// TestEmbeddedKeeperKilled kills the keeper: the tasks run again as new attempts.
func TestEmbeddedKeeperKilled(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.start()
	ids, _, release := longTasks(h, func(body string) { h.submit(body) }, 4)
	if err := syscall.Kill(h.keeperPID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	h.until("all run again", func() bool {
		n := 0
		for _, v := range h.tasks() {
			if v.Status == manager.Running && v.PID != 0 && v.Attempt == 2 {
				n++
			}
		}
		return n == len(ids)
	})
	release()
	for id, r := range h.resultsOf(ids) {
		if r.Attempt != 2 || r.Attempts[0].Cause != queue.CauseHostLost || r.ExitCode == nil || *r.ExitCode != 5 {
			t.Errorf("task %s: %+v", id, r)
		}
	}
}

// TestEmbeddedBothKilled kills manager and keeper: nothing is lost, and nothing of the old workers survives the next start.
func TestEmbeddedBothKilled(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.start()
	ids, marks, release := longTasks(h, func(body string) { h.submit(body) }, 4)
	keeper := h.keeperPID()
	h.kill()
	if err := syscall.Kill(keeper, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	h.start()
	h.until("all run again", func() bool { return h.running() == len(ids) })
	release()
	for id := range h.resultsOf(ids) {
		text, _ := os.ReadFile(filepath.Join(marks, id))
		if n := strings.Count(string(text), "x"); n != 2 {
			t.Errorf("task %s ran %d times, want twice", id, n)
		}
	}
}

// TestEmbeddedLoad submits many tasks in one batch and kills the manager in the middle, again and again.
func TestEmbeddedLoad(t *testing.T) {
	t.Parallel()
	h := newHost(t, "MAYFLY_CPUS=8", "MAYFLY_LOG_LEVEL=warn")
	h.start()
	marks := h.marks()
	const count = 1500
	var lines strings.Builder
	for i := range count {
		script, attempts := fmt.Sprintf("umask 0; echo x >> %s/%d; exit $((%d %% 7 == 0))", marks, i, i), 1
		if i%11 == 0 {
			script, attempts = fmt.Sprintf(`umask 0; echo x >> %s/%d; test "$MAYFLY_ATTEMPT" = 2`, marks, i), 2
		}
		body, err := json.Marshal(map[string]any{"id": fmt.Sprint("t", i), "shell": script, "max_attempts": attempts, "backoff": "50ms",
			"resources": map[string]any{"cpu": 0.5, "memory": "16MiB"}})
		if err != nil {
			t.Fatal(err)
		}
		lines.Write(append(body, '\n'))
	}
	if _, errs, code := h.mayfly(lines.String(), "submit", "--lines", "-", "--quiet"); code != 0 {
		t.Fatal(errs)
	}
	for range 4 {
		before, err := h.info()
		if err != nil {
			t.Fatal(err)
		}
		h.until("some more have ended", func() bool {
			now, err := h.info()
			return err == nil && (now.Depth["default.normal"] < before.Depth["default.normal"]-50 || now.Depth["default.normal"] == 0)
		})
		h.kill()
		h.start()
	}
	var wg sync.WaitGroup
	ids := make(chan int)
	for range 8 {
		wg.Go(func() {
			for i := range ids {
				r := h.result(fmt.Sprint("t", i))
				want := queue.Succeeded
				if i%7 == 0 && i%11 != 0 {
					want = queue.Failed
				}
				text, _ := os.ReadFile(filepath.Join(marks, fmt.Sprint(i)))
				if runs := strings.Count(string(text), "x"); r.State != want || runs != len(r.Attempts) {
					t.Errorf("task %d: %s after %d attempts, ran %d times; want %s", i, r.State, len(r.Attempts), runs, want)
				}
			}
		})
	}
	for i := range count {
		ids <- i
	}
	close(ids)
	wg.Wait()
	h.until("all is idle", func() bool { return len(h.tasks()) == 0 && len(h.processes()) == 0 }, func() any { return h.tasks() })
}

// TestEmbeddedDrain stops a manager whose tasks do not end in time: they are back in the queue for the next.
func TestEmbeddedDrain(t *testing.T) {
	t.Parallel()
	h := newHost(t, "MAYFLY_DRAIN_TIMEOUT=500ms")
	h.start()
	ids, _, release := longTasks(h, func(body string) { h.submit(body) }, 3)
	if _, errs, code := h.mayfly("", "drain"); code != 0 {
		t.Fatal(errs)
	}
	h.wait()
	h.nothingLeft()
	release()
	h.start()
	for id, r := range h.resultsOf(ids) {
		if r.Attempt != 2 || *r.ExitCode != 5 {
			t.Errorf("task %s: %+v", id, r)
		}
	}
}
