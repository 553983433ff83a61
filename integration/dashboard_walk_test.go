package integration

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/mayfly/mayfly/manager"
	"github.com/mayfly/mayfly/queue"
)

// tasks compares the list with what the API says, and goes through it by keyboard.
func (b *tab) tasks(h *gpuHost) {
	b.tb.Helper()
	list := func() []manager.View {
		var page []manager.View
		if err := h.get("/v1/tasks?limit=50&brief=1", &page); err != nil {
			b.tb.Fatal(err)
		}
		return page
	}
	b.shortcut("/")
	b.until("the search has the focus", "document.activeElement?.id === 'search' && document.querySelectorAll('.tasks tbody tr').length === 50")
	b.fit("tasks")
	type row struct{ ID, Status, What string }
	var rows []row
	wrong := ""
	h.until("the rows are what the API says", func() bool { // either may be a moment ahead
		wrong = ""
		want := list()
		rows = js[[]row](b, `[...document.querySelectorAll(".tasks tbody tr")].map(r => ({ID: r.querySelector(".id").innerText, Status: r.querySelector(".pill").innerText,
			What: r.querySelector(".c-what").innerText}))`)
		for i, v := range want {
			status, reason := string(v.Status), v.Reason
			if v.Result != nil {
				status, reason = string(v.Result.State), v.Result.Message
			}
			if i >= len(rows) || rows[i].ID != v.ID || rows[i].Status != strings.ReplaceAll(status, "_", " ") || !strings.Contains(rows[i].What, reason) {
				wrong = fmt.Sprintf("row %d: %s, %s, %s is wanted", i, v.ID, status, reason)
				return false
			}
		}
		return len(rows) == len(want)
	}, func() any { return wrong }, func() any { return rows })
	if !strings.Contains(fmt.Sprint(rows), "waits for 6 GPUs: 1 of 8 are free, 1 in quarantine") || !strings.Contains(fmt.Sprint(rows), "backing off") {
		b.tb.Errorf("what waits: %+v", rows)
	}
	// Older ones, and back.
	b.tabTo(".pager button:last-child")
	b.press("\r")
	b.shows(".pager", "page 2")
	b.tabTo("a.id")
	first := b.text("a.id")
	b.press("\r")
	b.until("the task is open", "location.hash === '#/tasks/"+first+"'")
	b.shows("h1", first)
	b.press(kb.Escape)
	b.until("the list is as it was", "document.activeElement?.matches('a.id') && document.activeElement.innerText === "+quote(first))
	b.shows(".pager", "page 2")
	// A search, and down into what it found.
	b.shortcut("/")
	b.press("SIMULATE-FLOW")
	b.until("only those are shown", "document.querySelectorAll('.tasks tbody tr').length === 5")
	b.press(kb.ArrowDown + kb.ArrowDown + "j" + "k" + kb.End + kb.ArrowUp)
	b.until("the last but one has the focus", "document.activeElement?.innerText === 'simulate-flow-3'")
	b.press("\r")
	h.until("it says why it waits", func() bool { // for cores, or behind another one that has waited too long
		var x manager.Explanation
		if err := h.get("/v1/tasks/simulate-flow-3/explain", &x); err != nil {
			b.tb.Fatal(err)
		}
		return strings.HasPrefix(x.Sentence, "it waits ") && b.text(".sentence") == "I"+x.Sentence[1:]+"."
	}, func() any { return b.text(".sentence") })
	b.fit("waiting")
	b.press(kb.Escape)
	b.until("the search is as it was", "location.hash.includes('text=SIMULATE-FLOW') && document.activeElement?.matches('a.id') && document.activeElement.innerText === 'simulate-flow-3'")
	b.press(kb.Escape)
	b.until("all are shown again", "location.hash === '#/tasks' && document.querySelectorAll('.tasks tbody tr').length === 50")
	// What failed, by its cause.
	b.goTo("#/tasks?show=ended&cause=timeout")
	b.until("the one is shown", "document.querySelectorAll('.tasks tbody tr').length === 1")
	b.shows(".tasks", "render-0042")
	b.shows(".tasks", "ran longer than its timeout of 200ms")
	b.goTo("#/tasks?label=team=nlp")
	b.until("the label's are shown", "[...document.querySelectorAll('.tasks .id')].map(e => e.innerText).join() === 'train-7b-lr3e-4,finetune-13b'")
	b.goTo("#/tasks?text=nowhere-to-be-found")
	b.shows(".empty", "No task matches.")
	// Nothing that comes now is to wait behind them.
	h.expect(0, "", "", "cancel", "finetune-13b", "simulate-flow-0", "simulate-flow-1", "simulate-flow-2", "simulate-flow-3", "simulate-flow-4")
}

// output looks on while a task writes.
func (b *tab) output() {
	b.tb.Helper()
	b.goTo("#/tasks/train-7b-lr3e-4")
	b.shows(".output", "loading checkpoint")
	step := func() (n int) {
		lines := strings.Fields(js[string](b, "document.querySelector('.output').innerText.trim().split('\\n').at(-1)"))
		if len(lines) > 1 {
			n, _ = strconv.Atoi(lines[1])
		}
		return n
	}
	before := step()
	b.shows(".output", fmt.Sprintf("step %d ", before+4))
	b.until("it is followed", "(() => { const o = document.querySelector('.output'); return o.scrollHeight - o.scrollTop - o.clientHeight < 40; })()")
	b.shows(".sentence", "It runs here as attempt 1.")
	b.until("its GPUs are shown", "document.querySelectorAll('.gpu.held').length === 4")
	b.shows(".facts-list", "8 cores · 1 GiB · 4 GPUs")
	b.shows(".facts-list", "team=nlp")
	b.fit("task")
	b.tabTo("[data-name=stderr]")
	b.press("\r")
	b.until("the errors are shown", "document.querySelectorAll('.output')[1].checkVisibility() && document.querySelectorAll('.output')[1].innerText.includes('tokens/s 48112')")
	b.goTo("#/tasks/preprocess-shard-3")
	b.shows(".sentence", "It failed: the worker exited with code 7.")
	b.until("its errors are shown first", "document.querySelectorAll('.output')[1].checkVisibility() && document.querySelectorAll('.output')[1].innerText.includes('no such dataset: shard-3')")
	b.fit("failed")
}

// hostile has tasks try to deceive who looks at them, or to run something in their browser.
func (b *tab) hostile(h *gpuHost) {
	b.tb.Helper()
	const markup = `<img src=x onerror="window.pwned=1"><script>window.pwned=1</script><svg onload=window.pwned=1>`
	body, err := json.Marshal(map[string]any{"id": "hostile", "name": "n" + markup, "resources": resources{"cpu": 0.1, "memory": "16MiB"}, "max_attempts": 1,
		"labels": map[string]string{"l" + markup: "javascript:window.pwned=1"},
		"command": []string{"sh", "-c", `printf '%s\n' "$0" "$1"; printf '\033]0;title\007\033[31mred\033[0m\r\nover\rwritten\n\033[2J\033[8mhidden\033[0m end\n'; printf '%s' "$0" >&2; printf '"%s"' '<b>result' >"$MAYFLY_RESULT"; exit 3`,
			markup, "abc\u202edcba\u2066x"}})
	if err != nil {
		b.tb.Fatal(err)
	}
	h.submit(string(body))
	h.result("hostile")
	h.submit(`{"id": "hostile:@+=-..", "shell": "exit 4", "name": "../../static/app.js?#/", "resources": {"cpu": 0.1, "memory": "16MiB"}}`)
	h.result("hostile:@+=-..")
	check := func(where string) {
		b.tb.Helper()
		if js[bool](b, "'pwned' in window || document.querySelector('img, script:not([src]), iframe, object') !== null || document.querySelectorAll('svg[onload]').length > 0") {
			b.tb.Errorf("%s: it became more than text", where)
		}
		if found := js[[]string](b, `[...document.body.innerText.matchAll(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/g)].map(m => m[0])`); len(found) > 0 {
			b.tb.Errorf("%s: control characters are shown: %q", where, found)
		}
	}
	b.goTo("#/tasks?text=hostile")
	b.shows(".tasks", "n<img src=x onerror=")
	check("the list")
	b.goTo("#/tasks/hostile")
	b.shows(".output", markup)
	b.shows(".output", "abc\ufffddcba\ufffdx\nred\nwritten\nhidden end")
	b.shows(".facts-list", "javascript:window.pwned=1")
	b.shows("pre.text", "<b>result")
	check("its page")
	b.fit("hostile")
	b.goTo("#/tasks/" + url.PathEscape("hostile:@+=-.."))
	b.shows("h1", "hostile:@+=-..")
	b.shows(".sentence", "exited with code 4")
	b.goTo("#/dead")
	b.shows(".dead", "hostile")
	check("the dead letters")
	b.tabTo("a.key")
	b.press("\t\t\t") // the buttons of its row: message, requeue, drop
	b.until("its drop has the focus", "document.activeElement?.innerText === 'Drop'")
	b.goTo("#/tasks/" + url.PathEscape(`<img src=x onerror="window.pwned=1">`))
	b.shows(".sentence", "This host knows no task with this id.")
	b.goTo("#/" + `<img src=x onerror="window.pwned=1">`)
	b.shows("h1", "There is no such page")
	check("an address")
}

// submit submits tasks by keyboard.
func (b *tab) submit(h *gpuHost) {
	b.tb.Helper()
	b.goTo("#/")
	b.until("the overview is shown", "document.querySelectorAll('.gpu').length === 8")
	b.shortcut("n")
	b.until("the script has the focus", "document.activeElement?.id === 'shell'")
	b.fit("submit")
	b.press("echo from the browser")
	b.tabTo("[data-path='resources.memory']")
	b.press("lots")
	b.press("\r", chromedp.KeyModifiers(chromedp.ModifierCtrl))
	b.shows("form .alert", `resources.memory is "lots"`)
	b.until("the wrong field has the focus", "document.activeElement?.dataset.path === 'resources.memory' && document.activeElement.getAttribute('aria-invalid') === 'true'")
	b.press("\b\b\b\b64MB\t1") // a GPU, too
	b.tabTo("[data-path=id]")
	b.press("from-the-browser")
	b.tabTo("[data-path=labels]")
	b.press("made=by hand, urgent")
	b.tabTo("form .primary")
	b.press("\r")
	b.until("its page is shown", "location.hash === '#/tasks/from-the-browser'")
	b.shows(".output", "from the browser")
	b.shows(".pill", "succeeded")
	r := h.result("from-the-browser")
	var v manager.View
	if err := h.get("/v1/tasks/from-the-browser", &v); err != nil {
		b.tb.Fatal(err)
	}
	if r.State != queue.Succeeded || len(r.GPUs) != 1 || v.Memory != 64_000_000 || v.Labels["made"] != "by hand" || v.Labels["urgent"] != "" || len(v.Labels) != 2 {
		b.tb.Errorf("it was submitted as %+v", v)
	}
}

// requeue puts a dead letter back by keyboard.
func (b *tab) requeue(h *gpuHost) {
	b.tb.Helper()
	b.goTo("#/dead")
	b.shows(".dead", "preprocess-shard-3")
	b.shows(".dead", "attempt 1 of 1 failed: the worker ran longer than its timeout of 200ms")
	b.fit("dead")
	b.tabTo("a.key")
	for range 10 {
		if js[string](b, "document.activeElement.innerText") == "render-0042" {
			break
		}
		b.press(kb.ArrowDown)
	}
	b.tabTo("[aria-label='Requeue render-0042']")
	b.press(" ")
	b.shows(".toast", "Put back into its pool: render-0042.")
	h.until("it has run again", func() bool {
		var letters []queue.DeadLetter
		if err := h.get("/v1/dead", &letters); err != nil {
			b.tb.Fatal(err)
		}
		for _, d := range letters {
			if d.TaskID == "render-0042" {
				return strings.Contains(d.Reason, "timeout") && time.Since(d.BuriedAt) < time.Minute
			}
		}
		return false
	})
	// The same from the task's own page; and one is dropped.
	b.goTo("#/tasks/preprocess-shard-3")
	b.tabTo("#requeue")
	b.press("\r")
	b.shows(".toast", "Put back into its pool.")
	b.goTo("#/dead")
	b.until("it is dead again", "[...document.querySelectorAll('.dead a.key')].some(a => a.innerText === 'hostile')")
	b.tabTo("a.key")
	for js[string](b, "document.activeElement.innerText") != "hostile" {
		b.press(kb.ArrowDown)
	}
	b.tabTo("[aria-label='Drop hostile']")
	b.press("\r")
	b.until("it asks", "document.querySelector('dialog[open]') && document.activeElement.innerText === 'Cancel'")
	b.fit("confirm")
	b.press("\t\r")
	b.until("it is gone", "![...document.querySelectorAll('.dead a.key')].some(a => a.innerText === 'hostile')")
}

// cancel cancels a task that runs, by keyboard.
func (b *tab) cancel(h *gpuHost) {
	b.tb.Helper()
	b.goTo("#/tasks/build-index")
	b.shows(".pill", "running")
	b.tabTo("#cancel")
	b.press("\r")
	b.until("it asks", "document.querySelector('dialog[open]')")
	b.press(kb.Escape) // no, after all
	b.until("it asks no more", "!document.querySelector('dialog')")
	b.tabTo("#cancel")
	b.press("\r")
	b.until("it asks again", "document.querySelector('dialog[open]')")
	b.press("\t\r")
	b.shows(".toast", "The worker was told to stop.")
	b.shows(".pill", "cancelled")
	if r := h.result("build-index"); r.State != queue.Cancelled {
		b.tb.Errorf("it is %s", r.State)
	}
	b.shortcut("?")
	b.shows("dialog", "search tasks")
	b.press(kb.Escape)
}

// hidden has the page rest while nobody can see it.
func (b *tab) hidden() {
	b.tb.Helper()
	see := func(hidden bool) {
		js[any](b, fmt.Sprintf("(() => { Object.defineProperty(document, 'hidden', {configurable: true, value: %t}); document.dispatchEvent(new Event('visibilitychange')); })()", hidden))
	}
	see(true)
	b.until("it rests", "document.querySelector('#link').innerText === 'Paused'")
	see(false)
	b.until("it is live again", "document.querySelector('#link').innerText === 'Live'")
}

// drain drains the host by keyboard.
func (b *tab) drain(h *gpuHost) {
	b.tb.Helper()
	b.goTo("#/")
	b.until("the overview is shown", "document.querySelectorAll('.gpu').length === 8")
	b.tabTo("#drain")
	b.press("\r")
	b.until("it asks", "document.querySelector('dialog[open]') && document.activeElement.innerText === 'Cancel'")
	b.press("\t\r")
	b.shows(".toast", "The host drains.")
	if err := h.wait(); err != nil {
		b.tb.Errorf("the manager ended with %v", err)
	}
	b.until("the page says that nobody answers", "document.querySelector('#link').innerText === 'Connection lost'")
}
