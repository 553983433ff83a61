package integration

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"
	"go.yaml.in/yaml/v2"

	"github.com/mayfly/mayfly/integration/broker"
	"github.com/mayfly/mayfly/integration/need"
)

// samples are what a scrape has shown, by name and labels as they stand there.
type samples map[string]float64

// scraped is the text that the host shows to Prometheus.
func (h *host) scraped() string {
	h.tb.Helper()
	resp, err := h.http.Get("http://mayfly/metrics")
	if err != nil {
		h.tb.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 200 {
		h.tb.Fatalf("scrape: %s, %v: %s", resp.Status, err, text)
	}
	return string(text)
}

func (h *host) scrape() samples {
	h.tb.Helper()
	s := samples{}
	for line := range strings.Lines(h.scraped()) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		at := strings.LastIndexByte(line, ' ')
		v, err := strconv.ParseFloat(strings.TrimSpace(line[at+1:]), 64)
		if err != nil {
			h.tb.Fatalf("%q: %v", line, err)
		}
		s[line[:at]] = v
	}
	return s
}

// untilShown waits until the host shows a value.
func (h *host) untilShown(sample string, value float64) {
	h.tb.Helper()
	h.until(fmt.Sprint(sample, " is ", value), func() bool { v, ok := h.scrape()[sample]; return ok && v == value }, func() any { return h.scrape()[sample] })
}

// counts fails the test where a counter or a histogram's count, or anything else that is wanted, is not as wanted; those that are not
// wanted must be zero.
func (h *host) counts(want samples) {
	h.tb.Helper()
	got := h.scrape()
	for name, v := range want {
		if have, ok := got[name]; !ok || math.Abs(have-v) > 1e-9 {
			h.tb.Errorf("%s is %v, want %v", name, have, v)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(got)) {
		family, _, _ := strings.Cut(name, "{")
		if _, wanted := want[name]; !wanted && got[name] != 0 && strings.HasPrefix(name, "mayfly_") && (strings.HasSuffix(family, "_total") || strings.HasSuffix(family, "_count")) {
			h.tb.Errorf("%s is %v, want none", name, got[name])
		}
	}
}

// TestMetrics runs a known lot of tasks on the embedded queue, and compares what is counted of them.
func TestMetrics(t *testing.T) {
	t.Parallel()
	h := newHost(t, "MAYFLY_POOLS=default,batch", "MAYFLY_MEMORY=1GiB", "MAYFLY_DISK=1GiB")
	h.start()
	h.counts(samples{
		`mayfly_state{state="serving"}`: 1, `mayfly_state{state="draining"}`: 0, "mayfly_keeper_up": 0, "mayfly_unconfirmed": 0, "mayfly_unconfirmed_limit": 64, "mayfly_demand": 8,
		`mayfly_tasks_held{status="waiting"}`: 0, `mayfly_tasks_held{status="running"}`: 0, `mayfly_tasks_held{status="stopping"}`: 0, `mayfly_tasks_held{status="settling"}`: 0,
		`mayfly_cpu_cores{kind="capacity"}`: 4, `mayfly_cpu_cores{kind="lent"}`: 0, `mayfly_memory_bytes{kind="capacity"}`: 1 << 30, `mayfly_disk_bytes{kind="capacity"}`: 1 << 30,
		"mayfly_oldest_waiting_seconds": 0, "mayfly_quarantined_attempts": 0, `mayfly_queue_depth{band="high",pool="batch"}`: 0,
	})
	if len(h.processes()) != 0 {
		t.Errorf("a scrape of an idle host has started %v", h.processes())
	}

	small := resources{"cpu": 0.5, "memory": "16MiB"}
	ids := []string{}
	submit := func(shell string, more ...map[string]any) {
		id := fmt.Sprint("t", len(ids))
		ids = append(ids, id)
		h.submit(task(id, small, shell, more...))
	}
	for range 3 {
		submit("true")
	}
	submit("exit 3")
	submit("exit 4")
	submit("sleep 600", resources{"timeout": "300ms"})
	submit("kill -KILL $$")
	submit("", resources{"shell": nil, "command": []string{"no-such-command"}})
	submit(`test "$MAYFLY_ATTEMPT" = 2`, resources{"max_attempts": 2, "backoff": "1ms"})
	submit("true", resources{"deadline": "2020-01-01T00:00:00Z"})
	submit("true", resources{"pool": "batch"})
	h.resultsOf(ids)
	h.until("all is settled", func() bool { return len(h.tasks()) == 0 })
	ended := samples{
		`mayfly_tasks_total{cause="none",pool="default",state="succeeded"}`: 4, `mayfly_tasks_total{cause="none",pool="batch",state="succeeded"}`: 1,
		`mayfly_tasks_total{cause="exit",pool="default",state="failed"}`: 2, `mayfly_tasks_total{cause="timeout",pool="default",state="failed"}`: 1,
		`mayfly_tasks_total{cause="signal",pool="default",state="failed"}`: 1, `mayfly_tasks_total{cause="start_error",pool="default",state="failed"}`: 1,
		`mayfly_tasks_total{cause="deadline",pool="default",state="failed"}`: 1,
		`mayfly_attempts_total{cause="none",pool="default"}`:                 4, `mayfly_attempts_total{cause="none",pool="batch"}`: 1, `mayfly_attempts_total{cause="exit",pool="default"}`: 3,
		`mayfly_attempts_total{cause="timeout",pool="default"}`: 1, `mayfly_attempts_total{cause="signal",pool="default"}`: 1, `mayfly_attempts_total{cause="start_error",pool="default"}`: 1,
		`mayfly_dead_letters_total{pool="default"}`: 5, // all that failed but the one that was too late
		// A command that is not there has no worker; nine attempts had, one of them the second of its task.
		`mayfly_attempt_run_seconds_count{pool="default"}`: 9, `mayfly_attempt_run_seconds_count{pool="batch"}`: 1,
		`mayfly_task_wait_seconds_count{pool="default"}`: 8, `mayfly_task_wait_seconds_count{pool="batch"}`: 1,
		`mayfly_spawn_seconds_count{kind="process"}`: 10,
	}
	h.counts(ended)
	s := h.scrape()
	if ran := s[`mayfly_attempt_run_seconds_sum{pool="default"}`]; ran < 0.3 || ran > patienceLimit.Seconds() {
		t.Errorf("the workers ran %v s", ran)
	}
	if fast := s[`mayfly_spawn_seconds_bucket{kind="process",le="60"}`]; fast != 10 {
		t.Errorf("%v workers were there within a minute", fast)
	}

	// One runs with all cores, one waits for them, more wait in the queue.
	h.submit(task("runs", resources{"cpu": 4, "memory": "512MiB", "disk": "1MiB"}, "sleep 600"))
	h.until("it runs", func() bool { return h.running() == 1 }) // it holds its lease before
	h.submit(task("waits", small, "true"))
	h.untilShown(`mayfly_tasks_held{status="waiting"}`, 1)
	for i := range 10 {
		h.submit(task(fmt.Sprint("more", i), small, "true", resources{"pool": "batch", "priority": 9}))
	}
	h.untilShown(`mayfly_queue_depth{band="high",pool="batch"}`, 3) // the window is eight
	h.counts(with(ended, samples{
		"mayfly_keeper_up": 1, `mayfly_tasks_held{status="running"}`: 1, `mayfly_tasks_held{status="waiting"}`: 8, "mayfly_demand": 9, `mayfly_cpu_cores{kind="lent"}`: 4,
		`mayfly_memory_bytes{kind="lent"}`: 512 << 20, `mayfly_disk_bytes{kind="lent"}`: 1 << 20, `mayfly_queue_depth{band="normal",pool="default"}`: 0,
		`mayfly_task_wait_seconds_count{pool="default"}`: 9, `mayfly_spawn_seconds_count{kind="process"}`: 11, // it has begun
	}))
	if oldest := h.scrape()["mayfly_oldest_waiting_seconds"]; oldest <= 0 || oldest > patienceLimit.Seconds() {
		t.Errorf("the oldest waiting task has been waiting for %v s", oldest)
	}
	for _, id := range []string{"waits", "runs"} {
		h.expect(0, "", "", "cancel", id)
	}
	for i := range 10 {
		h.result(fmt.Sprint("more", i))
	}
	h.untilShown("mayfly_keeper_up", 0)
	h.counts(with(ended, samples{
		`mayfly_tasks_total{cause="cancelled",pool="default",state="cancelled"}`: 2, `mayfly_attempts_total{cause="cancelled",pool="default"}`: 1,
		`mayfly_tasks_total{cause="none",pool="batch",state="succeeded"}`: 11, `mayfly_attempts_total{cause="none",pool="batch"}`: 11,
		`mayfly_attempt_run_seconds_count{pool="default"}`: 10, `mayfly_attempt_run_seconds_count{pool="batch"}`: 11,
		`mayfly_task_wait_seconds_count{pool="default"}`: 9, `mayfly_task_wait_seconds_count{pool="batch"}`: 11, `mayfly_spawn_seconds_count{kind="process"}`: 21,
		`mayfly_tasks_held{status="running"}`: 0, `mayfly_tasks_held{status="waiting"}`: 0, `mayfly_cpu_cores{kind="lent"}`: 0, `mayfly_memory_bytes{kind="lent"}`: 0,
		`mayfly_disk_bytes{kind="lent"}`: 0, `mayfly_queue_depth{band="high",pool="batch"}`: 0, "mayfly_oldest_waiting_seconds": 0, "mayfly_keeper_up": 0,
	}))
}

// with is a set of samples with some others in their stead.
func with(s, others samples) samples {
	all := maps.Clone(s)
	maps.Copy(all, others)
	return all
}

// TestMetricsOfTheAdopted counts what a manager sees of tasks that its predecessor began, and of a keeper that dies.
func TestMetricsOfTheAdopted(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.start()
	ids, _, release := longTasks(h, func(body string) { h.submit(body) }, 3)
	h.counts(samples{`mayfly_task_wait_seconds_count{pool="default"}`: 3, `mayfly_spawn_seconds_count{kind="process"}`: 3, `mayfly_tasks_held{status="running"}`: 3})
	h.kill()
	h.start()
	h.until("all are adopted", func() bool { return h.running() == len(ids) })
	h.counts(samples{`mayfly_tasks_held{status="running"}`: 3, "mayfly_keeper_up": 1, `mayfly_cpu_cores{kind="lent"}`: 3 * h.cpuOf(ids[0])})
	if err := syscall.Kill(h.keeperPID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	h.untilShown("mayfly_keeper_deaths_total", 1)
	h.until("all run again", func() bool {
		n := 0
		for _, v := range h.tasks() {
			if v.PID != 0 && v.Attempt == 2 {
				n++
			}
		}
		return n == len(ids)
	})
	h.counts(samples{"mayfly_keeper_deaths_total": 1, `mayfly_attempts_total{cause="host_lost",pool="default"}`: 3, `mayfly_attempt_run_seconds_count{pool="default"}`: 3,
		`mayfly_spawn_seconds_count{kind="process"}`: 3, `mayfly_tasks_held{status="running"}`: 3})
	release()
	h.resultsOf(ids)
	h.counts(samples{"mayfly_keeper_deaths_total": 1, `mayfly_attempts_total{cause="host_lost",pool="default"}`: 3, `mayfly_attempts_total{cause="exit",pool="default"}`: 3,
		`mayfly_tasks_total{cause="exit",pool="default",state="failed"}`: 3, `mayfly_dead_letters_total{pool="default"}`: 3,
		`mayfly_attempt_run_seconds_count{pool="default"}`: 6, `mayfly_spawn_seconds_count{kind="process"}`: 3})
}

// cpuOf is how many cores a task has.
func (h *host) cpuOf(id string) float64 {
	h.tb.Helper()
	for _, v := range h.tasks() {
		if v.ID == id {
			return v.CPU
		}
	}
	h.tb.Fatalf("no task %s", id)
	return 0
}

// TestMetricsRabbit counts what comes from a broker, which is then lost for a moment: nothing counts twice.
func TestMetricsRabbit(t *testing.T) {
	t.Parallel()
	b := broker.Shared(t, broker.V43)
	url := b.Vhost(t)
	h := newHost(t, "MAYFLY_AMQP_URL="+url, "MAYFLY_WINDOW=2")
	h.start()
	p := newProducer(t, url)
	h.untilShown("mayfly_broker_connected", 1)
	p.publish("default", `{"id": "forged", "command": ["true"], "pool": "mine\"} 1\nup 1"}`)
	p.publish("default", `no task`)
	p.wait("forged")
	file := filepath.Join(h.shared, "go")
	for i := range 7 {
		id := fmt.Sprint("t", i)
		p.publishID("default.low", id, []byte(task(id, resources{"cpu": 4, "memory": "16MiB"}, "while ! test -e "+file+"; do sleep 0.02; done")))
	}
	h.until("one runs", func() bool { return h.running() == 1 })
	h.until("the depth is shown", func() bool {
		n := p.depth("mayfly.pool.default.low")
		return n > 0 && h.scrape()[`mayfly_queue_depth{band="low",pool="default"}`] == float64(n)
	})
	forged := samples{`mayfly_tasks_total{cause="rejected",pool="default",state="rejected"}`: 2, `mayfly_dead_letters_total{pool="default"}`: 2}
	h.counts(with(forged, samples{`mayfly_tasks_held{status="running"}`: 1, `mayfly_queue_depth{band="high",pool="default"}`: 0,
		`mayfly_task_wait_seconds_count{pool="default"}`: 1, `mayfly_spawn_seconds_count{kind="process"}`: 1}))

	if _, err := b.Ctl("close_all_connections", "--vhost", broker.VhostName(url), "test"); err != nil {
		t.Fatal(err)
	}
	h.until("it is back", func() bool {
		s := h.scrape()
		return s["mayfly_broker_reconnects_total"] > 0 && s["mayfly_broker_connected"] == 1
	})
	p.connect(url)
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for i := range 7 {
		p.wait(fmt.Sprint("t", i))
	}
	again := h.scrape()["mayfly_broker_reconnects_total"]
	if again > 2 { // the two connections may be noticed one after the other
		t.Errorf("reached again %v times", again)
	}
	h.untilShown(`mayfly_tasks_total{cause="none",pool="default",state="succeeded"}`, 7) // the result is published before it is counted
	h.counts(with(forged, samples{`mayfly_tasks_total{cause="none",pool="default",state="succeeded"}`: 7, `mayfly_attempts_total{cause="none",pool="default"}`: 7,
		`mayfly_task_wait_seconds_count{pool="default"}`: 7, `mayfly_spawn_seconds_count{kind="process"}`: 7, `mayfly_attempt_run_seconds_count{pool="default"}`: 7,
		"mayfly_broker_connected": 1, "mayfly_broker_reconnects_total": again}))
}

// TestMetricsGPU shows GPUs as they were seen last, and never wakes their helper for it.
func TestMetricsGPU(t *testing.T) {
	t.Parallel()
	h := newGPUHost(t)
	h.start()
	h.untilShown(`mayfly_gpus{condition="free"}`, 8)
	h.until("the helper is gone", func() bool { return len(h.helpers()) == 0 })
	h.scrape()
	if len(h.helpers()) != 0 || len(h.processes()) != 0 {
		t.Errorf("a scrape has started %v", h.processes())
	}
	uuid := h.fake.GPU(0).UUID
	of := func(name string) string { return fmt.Sprintf("%s{uuid=%q}", name, uuid) }
	before := h.scrape()
	if before[of("mayfly_gpu_memory_bytes")] != float64(h.fake.GPU(0).Memory) || before[of("mayfly_gpu_seen_timestamp_seconds")] == 0 {
		t.Errorf("idle GPU: %v", before)
	}

	h.submit(task("holds", resources{"cpu": 1, "memory": "64MiB", "gpu": 8}, "sleep 600"))
	v := h.runs("holds")
	h.fake.AddProcess(uuid, v.PID, 3<<30)
	h.untilShown(of("mayfly_gpu_memory_used_bytes"), 3<<30)
	s := h.scrape()
	d := h.device(uuid)
	if s[`mayfly_gpus{condition="held"}`] != 8 || s[`mayfly_gpus{condition="free"}`] != 0 || s[of("mayfly_gpu_seen_timestamp_seconds")] <= before[of("mayfly_gpu_seen_timestamp_seconds")] ||
		math.Abs(s[of("mayfly_gpu_temperature_celsius")]-float64(d.State.Temperature)) > 20 || s[of("mayfly_gpu_power_watts")] <= 0 {
		t.Errorf("GPUs that are held: %v; %+v", s, d)
	}

	// Something is left on it that is not there.
	const unknown = 1 << 22
	h.fake.AddProcess(uuid, unknown, 1<<30)
	h.fake.RemoveProcess(v.PID)
	h.expect(0, "", "", "cancel", "holds")
	h.untilShown(`mayfly_gpus{condition="quarantined"}`, 1)
	s = h.scrape()
	if s[of("mayfly_gpu_quarantined")] != 1 || s[`mayfly_gpus{condition="free"}`]+s[`mayfly_gpus{condition="checking"}`] != 7 {
		t.Errorf("a GPU in quarantine: %v", s)
	}
	h.fake.RemoveProcess(unknown)
	h.untilShown(`mayfly_gpus{condition="free"}`, 8)
	h.untilShown(of("mayfly_gpu_quarantined"), 0)
}

// promtool runs Prometheus's own tool in the folder of the alerts.
func promtool(t *testing.T, stdin string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), need.Tool(t, "promtool"), args...)
	cmd.Dir, cmd.Stdin = "../deploy/prometheus", strings.NewReader(stdin)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// metricName finds the names of metrics in an expression of PromQL, of those that Mayfly's own scrape has and "up", which has none.
var metricName = regexp.MustCompile(`\b(?:mayfly|process|go)_[a-z0-9_]+`)

// TestAlertsAndDashboard has promtool check what a host with everything shows, the alerts, their tests, and the dashboard's queries, and
// looks for each metric in there among what is shown.
func TestAlertsAndDashboard(t *testing.T) {
	t.Parallel()
	h := newGPUHost(t, "MAYFLY_AMQP_URL="+broker.Shared(t, broker.V43).Vhost(t))
	h.start()
	h.submit(task("one", resources{"cpu": 1, "memory": "64MiB", "gpu": 1}, "true"))
	h.result("one")
	h.untilShown("mayfly_broker_connected", 1)
	h.untilShown(`mayfly_queue_depth{band="normal",pool="default"}`, 0)
	h.untilShown(`mayfly_gpus{condition="free"}`, 8)
	text := h.scraped()
	promtool(t, text, "check", "metrics")
	shown := map[string]bool{}
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "# HELP") { // a histogram's own name stands only in its type
			shown[metricName.FindString(line)] = true
		}
	}

	promtool(t, "", "check", "rules", "alerts.yml")
	promtool(t, "", "test", "rules", "alerts_test.yml")
	var alerts struct {
		Groups []struct {
			Rules []struct{ Alert, Expr string }
		}
	}
	file, err := os.ReadFile("../deploy/prometheus/alerts.yml")
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(file, &alerts); err != nil {
		t.Fatal(err)
	}
	queries := map[string][]string{}
	tested, err := os.ReadFile("../deploy/prometheus/alerts_test.yml")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range alerts.Groups[0].Rules {
		queries["alert "+r.Alert] = []string{r.Expr}
		if !strings.Contains(string(tested), fmt.Sprintf("alertname=%q", r.Alert)) {
			t.Errorf("no test has the alert %s fire", r.Alert)
		}
	}
	maps.Copy(queries, dashboardQueries(t))

	// The queries as rules: promtool knows whether they can be read.
	rules := "groups:\n- name: dashboard\n  rules:\n"
	for _, where := range slices.Sorted(maps.Keys(queries)) {
		for _, query := range queries[where] {
			names := metricName.FindAllString(query, -1)
			if len(names) == 0 && !strings.Contains(query, "up{") {
				t.Errorf("%s: %s asks for nothing that is ours", where, query)
			}
			for _, name := range names {
				if !shown[name] {
					t.Errorf("%s: nothing shows %s", where, name)
				}
			}
			query = strings.NewReplacer("$__rate_interval", "5m", "$instance", ".*", "$pool", ".*").Replace(query)
			if strings.Contains(query, "$") {
				t.Errorf("%s: what is left of the variables: %s", where, query)
			}
			rules += fmt.Sprintf("  - {record: 'r:%d', expr: %q}\n", len(rules), query)
		}
	}
	path := filepath.Join(t.TempDir(), "dashboard.yml")
	if err := os.WriteFile(path, []byte(rules), 0o644); err != nil {
		t.Fatal(err)
	}
	promtool(t, "", "check", "rules", path)
	need.Exercised(t, "promtool: alerts, their tests, a scrape, the dashboard's queries")
}

// dashboardQueries are the queries of the dashboard, by what they are for.
func dashboardQueries(t *testing.T) map[string][]string {
	t.Helper()
	file, err := os.ReadFile("../deploy/grafana/mayfly.json")
	if err != nil {
		t.Fatal(err)
	}
	var d struct {
		SchemaVersion int
		Panels        []struct {
			ID      int
			Title   string
			Type    string
			GridPos struct{ X, Y, W, H int }
			Targets []struct{ Expr string }
		}
		Templating struct {
			List []struct{ Name, Type, Definition string }
		}
	}
	if err := json.Unmarshal(file, &d); err != nil {
		t.Fatal(err)
	}
	queries := map[string][]string{}
	seen, taken := map[int]bool{}, map[[2]int]string{}
	for _, p := range d.Panels {
		if seen[p.ID] || p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("panel %d, %q, is there twice, or asks for nothing", p.ID, p.Title)
		}
		seen[p.ID] = true
		for x := range p.GridPos.W {
			for y := range p.GridPos.H {
				at := [2]int{p.GridPos.X + x, p.GridPos.Y + y}
				if other, ok := taken[at]; ok || at[0] > 23 {
					t.Fatalf("the panel %q is where %q is, or beyond the grid", p.Title, other)
				}
				taken[at] = p.Title
			}
		}
		for _, target := range p.Targets {
			queries["panel "+p.Title] = append(queries["panel "+p.Title], target.Expr)
		}
	}
	for _, v := range d.Templating.List {
		if v.Type == "query" {
			metric, _, ok := strings.Cut(strings.TrimPrefix(v.Definition, "label_values("), ",")
			if !ok {
				t.Errorf("the variable %s: %s", v.Name, v.Definition)
			}
			queries["variable "+v.Name] = []string{metric}
		}
	}
	if len(queries) < 30 || d.SchemaVersion < 39 {
		t.Errorf("schema %d, %d queries", d.SchemaVersion, len(queries))
	}
	return queries
}

// TestTraceContext has the context of a trace reach each attempt of a task, from the headers of its message.
func TestTraceContext(t *testing.T) {
	t.Parallel()
	eachVersion(t, func(t *testing.T, _ *broker.Broker, url string) {
		h := newHost(t, "MAYFLY_AMQP_URL="+url)
		h.start()
		p := newProducer(t, url)
		const parent, state = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "vendor=t61rcWkgMzE"
		const shows = `echo "$TRACEPARENT $TRACESTATE"; test "$MAYFLY_ATTEMPT" = 2`
		twice := resources{"max_attempts": 2, "backoff": "1ms", "environment": map[string]string{"TRACEPARENT": "own", "TRACESTATE": "own"}}
		for id, headers := range map[string]amqp.Table{
			"traced": {"traceparent": parent, "tracestate": state}, "forged": {"traceparent": parent + "\nX=1", "tracestate": state}, "untraced": nil,
		} {
			p.publishWith("default", amqp.Publishing{Headers: headers, Body: []byte(task(id, resources{"cpu": 0.5, "memory": "16MiB"}, shows, twice))})
		}
		for id, want := range map[string]string{"traced": parent + " " + state, "forged": "own own", "untraced": "own own"} {
			if r := p.wait(id); r.Attempt != 2 || r.StdoutTail != want+"\n" {
				t.Errorf("%s: attempt %d said %q, want %q", id, r.Attempt, r.StdoutTail, want)
			}
		}
	})
}
