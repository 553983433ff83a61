package integration

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mayfly/mayfly/manager"
	"github.com/mayfly/mayfly/manager/history"
	"github.com/mayfly/mayfly/queue"
)

// nextPage is the path of the page that follows an answer, or empty.
func nextPage(resp reply) string {
	path, _, _ := strings.Cut(strings.TrimPrefix(resp.Header.Get("Link"), "<"), ">")
	return path
}

// fillHistory makes a history of ended tasks as if the host had run them: e0 to e<n-1>, of which each thousandth failed, one each tenth of a
// second; change may have them otherwise.
func fillHistory(tb testing.TB, stateDir string, n int, change func(i int, r *manager.Record)) {
	tb.Helper()
	if err := os.MkdirAll(stateDir, 0o711); err != nil {
		tb.Fatal(err)
	}
	s, err := history.Open(filepath.Join(stateDir, "history.db"), history.Options{MaxTasks: n, Log: slog.New(slog.NewTextHandler(tb.Output(), nil))})
	if err != nil {
		tb.Fatal(err)
	}
	defer s.Close()
	width := 500 // as many share a commit, in any order
	if n < 10_000 {
		width = 20
	}
	for from := 0; from < n; from += width {
		var wg sync.WaitGroup
		for i := from; i < min(n, from+width); i++ {
			wg.Go(func() {
				at := time.Now().Add(-time.Duration(n-i) * 100 * time.Millisecond)
				r := manager.Record{ID: fmt.Sprintf("e%d.1", i), Command: fmt.Sprintf("python3 simulate.py --seed %d", i), Band: queue.Normal, SettledAt: at, AckedAt: at,
					Labels: map[string]string{"batch": strconv.Itoa(i / 10_000)},
					Result: queue.Result{ID: fmt.Sprint("e", i), Pool: "default", State: queue.Succeeded, Cause: queue.CauseNone, Attempt: 1, Attempts: []queue.Past{}, GPUs: []string{},
						Host: "h", QueuedAt: &at, StartedAt: &at, FinishedAt: &at, StdoutTail: "a line\n"}}
				if i%1000 == 0 {
					r.Result.State, r.Result.Cause, r.Result.Message = queue.Failed, queue.CauseExit, "the worker exited with code 1"
				}
				if change != nil {
					change(i, &r)
				}
				if err := s.Put(r); err != nil {
					tb.Error(err)
				}
			})
		}
		wg.Wait()
	}
}

// TestAPIManyTasks pages through a hundred thousand ended tasks beside some that run. Times are told and not judged: the machines of tests
// are slow at times; what bounds them is held by the tests of manager/history.
func TestAPIManyTasks(t *testing.T) {
	t.Parallel()
	const count = 100_000
	h := newHost(t, "MAYFLY_HISTORY=200000", "MAYFLY_LOG_LEVEL=warn")
	fillHistory(t, filepath.Join(h.dir, "state"), count, nil)
	h.start()
	ids, _, release := longTasks(h, func(body string) { h.submit(body) }, 4)
	defer release()
	timed := func(path string) (reply, []manager.View) {
		t.Helper()
		begin := time.Now()
		resp, body := h.ask(request{path: path})
		took := time.Since(begin)
		var list []manager.View
		if err := json.Unmarshal(body, &list); err != nil {
			t.Fatalf("%s: %v: %s", path, err, tail(string(body), 500))
		}
		t.Logf("%s: %d tasks, %d bytes in %s", path, len(list), len(body), took.Round(time.Millisecond))
		return resp, list
	}
	resp, list := timed("/v1/tasks?limit=100&brief=1")
	if len(list) != 100 || list[0].Status != manager.Running || list[len(ids)].Status != manager.Ended {
		t.Fatalf("the first page: %d, %+v", len(list), list[:min(len(list), 5)])
	}
	seen := map[string]bool{}
	for _, v := range list {
		seen[v.ID] = true
	}
	for range 3 {
		resp, list = timed(nextPage(resp))
		for _, v := range list {
			if seen[v.ID] {
				t.Errorf("%s is shown twice", v.ID)
			}
			seen[v.ID] = true
		}
	}
	if len(seen) != 400 {
		t.Errorf("%d tasks on four pages", len(seen))
	}
	for query, want := range map[string]int{"state=failed": 100, "text=--seed+77777": 1, "label=batch=3&state=failed": 10, "cause=oom": 0, "text=nowhere": 0, "pool=other": 0} {
		n, pages := 0, 0
		for path := "/v1/tasks?status=ended&brief=1&limit=1000&" + query; path != ""; pages++ {
			resp, list = timed(path)
			n += len(list)
			path = nextPage(resp)
		}
		if n != want || pages > 2 { // the work of a page is bounded: all that there is may take two
			t.Errorf("%s: %d tasks on %d pages, want %d", query, n, pages, want)
		}
	}
	var counts manager.Counts
	if err := h.get("/v1/counts", &counts); err != nil {
		t.Fatal(err)
	}
	if want := map[queue.State]int{queue.Failed: 100, queue.Succeeded: count - 100}; counts.Running != len(ids) || !maps.Equal(counts.Ended, want) {
		t.Errorf("counts: %+v", counts)
	}
	out := h.expect(0, "e0 ", "", "ps", "--state", "failed", "--ended", "200")
	if n := strings.Count(out, "failed"); n != 100 {
		t.Errorf("%d failed ones are listed", n)
	}
	// The manager itself is still small: what it has looked through it has given back.
	if kib := resident(t, h.cmd.Process.Pid); kib > 64<<10 {
		t.Errorf("the manager takes %d KiB of memory", kib)
	}
}

// resident is how much memory a process takes, in KiB.
func resident(tb testing.TB, pid int) (kib int) {
	tb.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		tb.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "VmRSS:")
	if _, err := fmt.Sscan(rest, &kib); err != nil {
		tb.Fatal(err)
	}
	return kib
}
