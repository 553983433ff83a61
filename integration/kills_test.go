package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mayfly/mayfly/integration/broker"
	"github.com/mayfly/mayfly/queue"
)

// TestLoadWithKills kills the manager by SIGKILL again and again under load: every task runs as often as it reports attempts,
// and has one result.
func TestLoadWithKills(t *testing.T) {
	t.Parallel()
	eachVersion(t, func(t *testing.T, b *broker.Broker, url string) {
		h := newHost(t, "MAYFLY_AMQP_URL="+url, "MAYFLY_CPUS=8", "MAYFLY_LOG_LEVEL=warn")
		h.start()
		p := newProducer(t, url)
		marks := h.marks()
		const count = 1000
		ids := make([]string, count)
		for i := range count {
			ids[i] = fmt.Sprint("t", i)
			doc := map[string]any{"shell": fmt.Sprintf("umask 0; echo x >> %s/t%d; exit $((%d %% 7 == 0))", marks, i, i),
				"resources": map[string]any{"cpu": 0.5, "memory": "16MiB"}}
			if i%2 == 0 { // the others have their id in the body
				doc["id"] = ids[i]
			}
			if i%11 == 0 {
				doc["shell"] = fmt.Sprintf(`umask 0; echo x >> %s/t%d; test "$MAYFLY_ATTEMPT" = 2`, marks, i)
				doc["max_attempts"], doc["backoff"] = 2, "100ms"
			}
			body, err := json.Marshal(doc)
			if err != nil {
				t.Fatal(err)
			}
			p.publishID("default", ids[i], body)
		}
		for n := range 5 {
			p.waitFor("some more results", func() bool { return len(p.results) >= (n+1)*count/8 })
			h.kill()
			h.start()
		}
		p.waitFor("all results", func() bool { return len(p.results) >= count })
		h.until("all is idle", func() bool { return len(h.tasks()) == 0 && len(h.processes()) == 0 }, func() any { return h.tasks() })
		twice := 0
		p.mu.Lock()
		defer p.mu.Unlock()
		for i, id := range ids {
			r := p.results[id][0]
			for _, again := range p.results[id][1:] {
				// The kill came between confirm and record: allowed, for the same attempt.
				twice++
				if again.Attempt != r.Attempt || again.State != r.State {
					t.Errorf("task %s has two results that differ: %+v, %+v", id, r, again)
				}
			}
			want := queue.Succeeded
			if i%7 == 0 && i%11 != 0 {
				want = queue.Failed
			}
			text, _ := os.ReadFile(filepath.Join(marks, id))
			if runs := strings.Count(string(text), "x"); r.State != want || runs != len(r.Attempts) {
				t.Errorf("task %s: %s after %d attempts, ran %d times; want %s", id, r.State, len(r.Attempts), runs, want)
			}
		}
		if twice > 5*64 { // manager.unconfirmedMax
			t.Errorf("%d results came twice: more than can have been between confirm and record at five kills", twice)
		}
		t.Logf("%d results came twice", twice)
		for _, band := range queue.Bands {
			if n := p.depth("mayfly.pool.default." + string(band)); n != 0 {
				t.Errorf("%d messages are left", n)
			}
		}
	})
}
