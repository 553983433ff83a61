package integration

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp/kb"

	"github.com/mayfly/mayfly/integration/fakegpu"
	"github.com/mayfly/mayfly/integration/need"
	"github.com/mayfly/mayfly/manager"
	"github.com/mayfly/mayfly/queue"
)

const dashboardToken = "a-token-for-the-dashboard"

// dashboardHost is a host with eight GPUs that is open by TCP.
func dashboardHost(t *testing.T, env ...string) *gpuHost {
	t.Helper()
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte(dashboardToken+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return newGPUHost(t, append([]string{"MAYFLY_LISTEN=127.0.0.1:0", "MAYFLY_TOKEN_FILE=" + token}, env...)...)
}

// signIn opens the page and gives it the token, by keyboard alone.
func (b *tab) signIn(origin string) {
	b.tb.Helper()
	b.open(origin + "/")
	b.until("it asks for a token", "document.activeElement?.id === 'token'")
	b.press(dashboardToken + "\r")
	b.until("it is live", "document.querySelector('#link').innerText === 'Live'")
}

// lively has tasks of all kinds on a host: some hold GPUs, one GPU is in quarantine, some wait, some have ended in each way.
func lively(h *gpuHost) (release func()) {
	h.tb.Helper()
	file := func(name string) string { return filepath.Join(h.shared, name) }
	let := func(name string) {
		if err := os.WriteFile(file(name), nil, 0o644); err != nil {
			h.tb.Fatal(err)
		}
	}
	wait := func(name string) string { return "while ! test -e " + file(name) + "; do sleep 0.05; done\n" }
	small := func(r resources) resources {
		for name, value := range (resources{"cpu": 0.2, "memory": "64MiB"}) {
			if _, ok := r[name]; !ok {
				r[name] = value
			}
		}
		return r
	}
	// One GPU is not clean after its task.
	h.submit(task("embed-corpus-014", small(resources{"gpu": 1}), wait("dirty")))
	v := h.runs("embed-corpus-014")
	const unknown = 1 << 22 // beyond all PIDs
	h.fake.AddProcess(v.GPUs[0], unknown, 6<<30)
	let("dirty")
	h.result("embed-corpus-014")
	h.until("a GPU is in quarantine", func() bool { return h.device(v.GPUs[0]).Condition == "quarantined" })

	for i := range 12 {
		h.submit(task(fmt.Sprintf("sweep-7-%02d", i), small(resources{}), fmt.Sprintf("echo seed %d; sleep 0.%d", i, i+1), resources{"name": "parameter sweep", "labels": map[string]string{"batch": "7"}}))
	}
	h.submit(task("preprocess-shard-3", small(resources{}), "echo 'no such dataset: shard-3' >&2; exit 7", resources{"labels": map[string]string{"batch": "7"}}))
	h.submit(task("render-0042", small(resources{}), "sleep 60", resources{"timeout": "200ms"}))
	h.submit(task("flaky-upload", small(resources{}), "exit 1", resources{"max_attempts": 3, "backoff": "30m"}))
	h.result("preprocess-shard-3")
	h.result("render-0042")
	for i := range 12 {
		h.result(fmt.Sprintf("sweep-7-%02d", i))
	}
	h.submit(task("train-7b-lr3e-4", resources{"cpu": 8, "memory": "1GiB", "gpu": 4}, "echo 'loading checkpoint'\ni=0\nwhile ! test -e "+file("end")+"; do i=$((i+1)); echo \"step $i  loss 2.$((1000-i))\"; echo \"tokens/s 48112\" >&2; sleep 0.2; done\necho saved",
		resources{"name": "llm pre-training", "labels": map[string]string{"team": "nlp", "batch": "8"}}))
	train := h.runs("train-7b-lr3e-4")
	h.submit(task("diffusion-sample-88", resources{"cpu": 2, "memory": "512MiB", "gpu": 2}, wait("end"), resources{"name": "image sampling", "labels": map[string]string{"team": "vision"}}))
	sample := h.runs("diffusion-sample-88")
	for _, uuid := range train.GPUs {
		h.fake.AddProcess(uuid, train.PID, 71<<30)
	}
	for _, uuid := range sample.GPUs {
		h.fake.AddProcess(uuid, sample.PID, 23<<30)
	}
	h.fake.Update(func(gpus []*fakegpu.GPU) {
		for i, g := range gpus {
			switch {
			case slices.Contains(train.GPUs, g.UUID):
				g.Busy, g.Temperature, g.Power = 96-i, 66+i, uint64(640_000+9_000*i)
			case slices.Contains(sample.GPUs, g.UUID):
				g.Busy, g.Temperature, g.Power = 58+3*i, 52+i, uint64(380_000+7_000*i)
			}
		}
	})
	h.submit(task("build-index", resources{"cpu": 4, "memory": "512MiB"}, wait("end"), resources{"labels": map[string]string{"team": "search"}}))
	h.runs("build-index")
	// More GPUs than are left, more cores than are left, and more than the host holds at once.
	h.submit(task("finetune-13b", small(resources{"gpu": 6}), "true", resources{"name": "fine-tuning", "labels": map[string]string{"team": "nlp"}}))
	for i := range 5 {
		h.submit(task(fmt.Sprintf("simulate-flow-%d", i), resources{"cpu": 6, "memory": "256MiB"}, "true", resources{"name": "fluid dynamics"}))
	}
	h.until("all wait", func() bool {
		n := 0
		for _, v := range h.tasks() {
			if v.Status == manager.Waiting && v.Reason != "" {
				n++
			}
		}
		return n == 6
	}, func() any { return h.tasks() })
	return func() {
		for _, pid := range []int{train.PID, sample.PID, unknown} {
			h.fake.RemoveProcess(pid)
		}
		let("end")
	}
}

// busyHour has a history of an hour in which the host was busy now more, now less, and some tasks failed.
func busyHour(i int, r *manager.Record) {
	const hour = 2400 // tasks in it
	x := float64(i) / hour
	at := time.Now().Add(-time.Hour + time.Duration((x+0.06*math.Sin(9*x))*float64(58*time.Minute)))
	from := at.Add(-time.Duration(2000+i%700) * time.Millisecond)
	r.ID, r.Result.ID, r.Result.Name, r.Result.Host = fmt.Sprintf("sweep-6-%04d.1", i), fmt.Sprintf("sweep-6-%04d", i), "parameter sweep", "gpu-01"
	r.SettledAt, r.AckedAt, r.Result.QueuedAt, r.Result.StartedAt, r.Result.FinishedAt = at, at, &from, &from, &at
	r.Lease.MilliCPU, r.Lease.Memory = 1000, 1<<30
	r.Labels["batch"] = "6"
	if i%37 == 0 || i > 1500 && i < 1580 && i%3 == 0 {
		r.Result.State, r.Result.Cause, r.Result.Message = queue.Failed, queue.CauseExit, "the worker exited with code 1"
	} else {
		r.Result.State, r.Result.Cause, r.Result.Message = queue.Succeeded, queue.CauseNone, ""
	}
}

// TestDashboard has a real browser look at a real host with tasks of all kinds: what the page shows is compared with what the API says, and
// what can be done is done by keyboard.
func TestDashboard(t *testing.T) {
	t.Parallel()
	b := newTab(t)
	h := dashboardHost(t, "MAYFLY_HOST=gpu-01", "MAYFLY_DRAIN_TIMEOUT=500ms")
	fillHistory(t, filepath.Join(h.dir, "state"), 2400, busyHour)
	h.start()
	release := lively(h)
	origin := h.tcp()
	b.scheme("light")

	b.open(origin + "/")
	b.until("it asks for a token", "document.activeElement?.id === 'token'")
	b.fit("sign-in")
	b.press("not-the-token-of-this-host\r")
	b.shows("[role=alert]", "Cannot answer without a token of MAYFLY_TOKEN_FILE")
	b.press(dashboardToken + "\r")
	b.until("it is live", "document.querySelector('#link').innerText === 'Live'")
	if leak := js[string](b, "document.cookie + location.href + JSON.stringify(localStorage)"); strings.Contains(leak, dashboardToken) {
		t.Errorf("the token lies open: %s", leak)
	}

	t.Run("overview", func(t *testing.T) { b.overview(h) })
	t.Run("tasks", func(t *testing.T) { b.tasks(h) })
	t.Run("output", func(t *testing.T) { b.output() })
	t.Run("hostile", func(t *testing.T) { b.hostile(h) })
	t.Run("submit", func(t *testing.T) { b.submit(h) })
	t.Run("requeue", func(t *testing.T) { b.requeue(h) })
	t.Run("cancel", func(t *testing.T) { b.cancel(h) })
	t.Run("hidden", func(t *testing.T) { b.hidden() })
	t.Run("drain", func(t *testing.T) {
		b.drain(h)
		release()
	})
	b.clean(origin, "401 (Unauthorized)", "400 (Bad Request)", "404 (Not Found)", "ERR_CONNECTION_REFUSED", "ERR_INCOMPLETE_CHUNKED_ENCODING", "ERR_EMPTY_RESPONSE")
	// Whatever a mistake would let in, the browser's policy makes nothing of.
	for what, script := range map[string]string{"markup": `document.createElement("div").innerHTML = "<b>x</b>"`, "a timer's text": `setTimeout("1")`} {
		if refused := js[string](b, "(() => { try { "+script+"; return 'done'; } catch (e) { return e.name; } })()"); refused == "done" {
			t.Errorf("%s was made of a text", what)
		}
	}
	// And the look at contrasts does see poor ones.
	js[any](b, `(() => { const p = document.createElement("p"); p.textContent = "poor"; p.style.cssText = "color: #888; background: #aaa"; document.body.append(p); })()`)
	if poor := js[[]string](b, contrast); len(poor) != 1 || !strings.HasSuffix(poor[0], " P. poor") {
		t.Errorf("poor contrasts: %q", poor)
	}
	need.Exercised(t, "the dashboard in "+b.version())
}

// fit takes a picture, and looks at what every page must be: legible in both schemes, and no wider than a phone.
func (b *tab) fit(name string) {
	b.tb.Helper()
	for _, scheme := range []string{"dark", "light"} {
		b.scheme(scheme)
		b.picture(name + "-" + scheme)
		for _, poor := range js[[]string](b, contrast) {
			b.tb.Errorf("%s, %s: too little contrast: %s", name, scheme, poor)
		}
	}
	b.size(360, 740)
	b.picture(name + "-phone")
	if width := js[int](b, "document.documentElement.scrollWidth"); width > 360 {
		b.tb.Errorf("%s is %d wide on a phone of 360", name, width)
	}
	b.size(1280, 900)
	for _, bad := range js[[]string](b, unnamed) {
		b.tb.Errorf("%s: it has no name for who does not see it: %s", name, bad)
	}
}

// contrast lists the texts that differ too little from what is behind them (WCAG 2.1, 1.4.3: 4.5 to 1; disabled ones are excepted).
const contrast = `(() => {
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const rgba = color => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1); return [...canvas.getImageData(0, 0, 1, 1).data].map((v, i) => i < 3 ? v : v / 255); };
  const over = (top, below) => top.slice(0, 3).map((v, i) => v * top[3] + below[i] * (1 - top[3]));
  const light = c => { const [r, g, b] = c.map(v => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4); return .2126 * r + .7152 * g + .0722 * b; };
  const behind = e => e ? over(rgba(getComputedStyle(e).backgroundColor), behind(e.parentElement)) : [255, 255, 255];
  const poor = new Set();
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let seen = 0;
  while (texts.nextNode()) {
    const e = texts.currentNode.parentElement, style = getComputedStyle(e);
    if (!texts.currentNode.data.trim() || !e.checkVisibility({visibilityProperty: true}) || e.closest(":disabled, noscript, option")) continue;
    seen++;
    const below = behind(e), a = light(over(rgba(e instanceof SVGElement ? style.fill : style.color), below)), b = light(below);
    const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (ratio < 4.5) poor.add(ratio.toFixed(2) + " " + e.tagName + "." + (e.getAttribute("class") ?? "") + " " + texts.currentNode.data.trim().slice(0, 40));
  }
  return seen < 5 ? ["only " + seen + " texts were found"] : [...poor];
})()`

// unnamed lists what can be used and has no name, and ids that are there twice.
const unnamed = `[...[...document.querySelectorAll("button, a, input, select, textarea, [role=img], [role=region], [role=meter], table")].filter(e => e.checkVisibility() &&
  !(e.innerText ?? "").trim() && !e.getAttribute("aria-label") && !e.labels?.length && !e.getAttribute("aria-labelledby")).map(e => e.outerHTML.slice(0, 200)),
  ...[...document.querySelectorAll("[id]")].map(e => e.id).filter((id, i, all) => all.indexOf(id) !== i)]`

// overview compares the figures, the tiles and the bars with what the API says.
func (b *tab) overview(h *gpuHost) {
	b.tb.Helper()
	b.until("all is shown", "document.querySelectorAll('.gpu').length === 8 && document.querySelectorAll('.tasks tbody tr').length > 8 && document.querySelector('.plot rect')")
	var counts manager.Counts
	if err := h.get("/v1/counts", &counts); err != nil {
		b.tb.Fatal(err)
	}
	ended := 0
	for _, n := range counts.Ended {
		ended += n
	}
	for i, want := range []string{fmt.Sprint(counts.Running), fmt.Sprint(counts.Waiting + counts.Queued), fmt.Sprintf("%d,%03d", ended/1000, ended%1000), "1 / 8"} {
		b.until(fmt.Sprintf("figure %d is %s", i, want), fmt.Sprintf("document.querySelectorAll('.figure .value')[%d].innerText === %s", i, quote(want)))
	}
	for i, d := range h.overview().GPUs {
		tile := fmt.Sprintf("document.querySelectorAll('.gpu')[%d].innerText", i)
		want := []string{fmt.Sprint("GPU ", d.Index), d.Condition, d.Model, fmt.Sprintf("%d GiB of 80 GiB", d.State.Used>>30), fmt.Sprintf("%d °C", d.State.Temperature),
			fmt.Sprintf("%.0f%%", 100*d.State.Utilization), fmt.Sprintf("%.0f of 700 W", d.State.Power), d.Reason}
		if d.State.Used == 0 {
			want[3] = "0 B of 80 GiB"
		}
		for holder := range d.Holders {
			want = append(want, holder)
		}
		if len(d.Holders) == 0 {
			want = append(want, "nobody has it")
		}
		for _, text := range want {
			b.until(fmt.Sprintf("GPU %d shows %q", i, text), tile+".includes("+quote(text)+")")
		}
	}
	b.shows(".alert", "GPU 0 is in quarantine: it is used by PID 4194304, which no task holds.")
	info, err := h.info()
	if err != nil {
		b.tb.Fatal(err)
	}
	b.shows(".bars", fmt.Sprintf("%g of %g cores lent", info.CPUUsed, info.CPU))
	b.shows(".host", info.Host)
	b.until("all that waits is in the plot", "document.querySelectorAll('.plot svg')[1].getAttribute('aria-label').includes('6 waiting')")
	b.size(1280, 1180)
	b.fit("overview")
	// The plots tell their numbers to those who do not see them, too, and moment by moment to who has a keyboard.
	b.until("throughput is told", "/Tasks ended: 2,[0-9]{3} succeeded, [0-9]+ failed, 0 cancelled/.test(document.querySelector('.plot svg').getAttribute('aria-label'))")
	b.until("load is told", "document.querySelectorAll('.plot svg')[1].getAttribute('aria-label') === 'Tasks on this host: 3 running, 6 waiting, now'")
	js[any](b, "void document.querySelector('.plot svg').focus()")
	b.press(kb.ArrowLeft + kb.ArrowLeft)
	b.until("a moment is told", "document.querySelector('.plot .cross') && /, 1 min$/.test(document.querySelector('.plot svg').getAttribute('aria-label'))")
	b.press(kb.Escape)
	// What happens shows by itself.
	h.submit(task("comes-later", resources{"cpu": 0.1, "memory": "16MiB"}, "exit 0", resources{"priority": 9})) // it does not wait behind those that wait
	b.shows(".tasks", "comes-later")
	h.fake.Update(func(gpus []*fakegpu.GPU) { gpus[2].Temperature = 83 })
	b.shows(".gpu", "83 °C")
}
