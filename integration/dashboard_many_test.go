package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mayfly/mayfly/manager"
)

// TestDashboardManyTasks looks at a host with a hundred thousand ended tasks and a thousand that run: however many there are, the page holds
// few and asks seldom.
func TestDashboardManyTasks(t *testing.T) {
	t.Parallel()
	b := newTab(t)
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte(dashboardToken+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	const ended, running = 100_000, 1000
	h := newHost(t, "MAYFLY_LISTEN=127.0.0.1:0", "MAYFLY_TOKEN_FILE="+token, "MAYFLY_HISTORY=200000", "MAYFLY_CPUS=4", "MAYFLY_LOG_LEVEL=info", "MAYFLY_GPUS=none")
	fillHistory(t, filepath.Join(h.dir, "state"), ended, nil)
	h.start()
	many := func(n int, name, script string) {
		t.Helper()
		var lines strings.Builder
		for i := range n {
			fmt.Fprintln(&lines, task(fmt.Sprintf(name, i), resources{"cpu": 0.001, "memory": "4MiB"}, script))
		}
		if _, stderr, code := h.mayfly(lines.String(), "submit", "--quiet", "--lines", "-"); code != 0 {
			t.Fatal(stderr)
		}
	}
	many(running, "run-%04d", "exec sleep 3600")
	for _, some := range []int{running / 3, 2 * running / 3, running} { // each third may take its time
		h.until(fmt.Sprintf("%d run", some), func() bool {
			time.Sleep(200 * time.Millisecond)
			var counts manager.Counts
			if err := h.get("/v1/counts", &counts); err != nil {
				t.Fatal(err)
			}
			return counts.Running >= some
		})
	}
	var page []manager.View
	asked := time.Now()
	if err := h.get("/v1/tasks?limit=100&brief=1", &page); err != nil || len(page) != 100 {
		t.Fatalf("%d tasks, %v", len(page), err)
	}
	t.Logf("a page of the list took %s", time.Since(asked).Round(time.Millisecond))
	origin := h.tcp()
	b.signIn(origin)
	b.until("the figures are there", "document.querySelectorAll('.figure .value')[0].innerText === '1,000' && document.querySelectorAll('.figure .value')[2].innerText === '100,000'")
	small := func(where string) {
		t.Helper()
		if n := js[int](b, "document.querySelectorAll('*').length"); n > 1500 {
			t.Errorf("%s: the page has %d elements", where, n)
		}
	}
	small("overview")
	b.goTo("#/tasks")
	b.until("fifty are listed", "document.querySelectorAll('.tasks tbody tr').length === 50")
	small("tasks")
	for i := range 3 {
		b.tabTo(".pager button:last-child")
		b.press("\r")
		b.shows(".pager", fmt.Sprintf("page %d", i+2))
	}
	b.shortcut("/")
	b.press("--seed 4242")
	b.until("a search through all finds its few", "document.querySelectorAll('.tasks tbody tr').length === 11") // 4242, and 42420 to 42429
	b.goTo("#/tasks?show=ended&state=failed")
	b.until("those that failed are shown", "[...document.querySelectorAll('.tasks .pill')].length === 50 && [...document.querySelectorAll('.tasks .pill')].every(e => e.innerText === 'failed')")
	// While tasks end and begin, the page stays small, asks seldom, and answers at once.
	b.goTo("#/tasks")
	b.until("fifty are listed", "document.querySelectorAll('.tasks tbody tr').length === 50")
	js[any](b, `(() => { window.long = []; new PerformanceObserver(l => window.long.push(...l.getEntries().map(e => e.duration))).observe({type: "longtask"}); })()`)
	before := b.asked()
	begin := time.Now()
	many(40, "quick-%d", "exit 0")
	b.shows(".tabs [data-name=ended]", "100,040")
	took := time.Since(begin)
	if n := b.asked() - before; float64(n) > 3*took.Seconds()+3 {
		t.Errorf("the page asked %d times in %s", n, took)
	}
	small("after many changes")
	t.Logf("tasks of the page that took longer than 50ms, in %s: %v ms", took.Round(time.Millisecond), js[[]float64](b, "window.long"))
	t.Logf("the manager takes %d KiB", resident(t, h.cmd.Process.Pid))
	b.clean(origin, "401 (Unauthorized)")
}
