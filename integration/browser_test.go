package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"github.com/mayfly/mayfly/integration/need"
)

// tab is a tab of a real browser. It notes what the page asks for and complains of.
type tab struct {
	tb  testing.TB
	ctx context.Context

	mu sync.Mutex
	// requests are the URLs of all requests, complaints what came to the console: errors, warnings, exceptions, what the policy refused.
	requests, complaints []string
}

// newTab starts a headless Chromium of its own with one tab.
func newTab(t *testing.T) *tab {
	t.Helper()
	path := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if found, err := exec.LookPath(name); err == nil {
			path = found
			break
		}
	}
	if path == "" {
		need.Missing(t, "chromium is not installed: run integration/setup.sh")
	}
	dir, err := os.MkdirTemp("", "mayfly-browser-")
	if err != nil {
		t.Fatal(err)
	}
	allocator, stop := chromedp.NewExecAllocator(context.Background(), chromedp.ExecPath(path), chromedp.UserDataDir(filepath.Join(dir, "profile")),
		chromedp.Headless, chromedp.NoSandbox, chromedp.DisableGPU, chromedp.NoFirstRun, chromedp.NoDefaultBrowserCheck,
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-background-networking", true), chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-sync", true), chromedp.Flag("disable-dev-shm-usage", true), chromedp.Flag("disable-extensions", true),
		chromedp.Flag("disable-default-apps", true), chromedp.Flag("force-color-profile", "srgb"), chromedp.Flag("hide-scrollbars", true),
		chromedp.Flag("no-proxy-server", true), chromedp.Env("HOME="+dir, "XDG_CONFIG_HOME="+dir, "XDG_CACHE_HOME="+dir))
	ctx, cancel := chromedp.NewContext(allocator)
	b := &tab{tb: t, ctx: ctx}
	t.Cleanup(func() {
		limit, end := context.WithTimeout(ctx, 15*time.Second)
		defer end()
		if err := chromedp.Cancel(limit); err != nil {
			t.Logf("the browser did not close: %v", err)
		}
		cancel()
		stop()
		os.RemoveAll(dir)
	})
	if err := chromedp.Listen(ctx, b.note); err != nil {
		t.Fatalf("no browser: %v", err)
	}
	if _, err := chromedp.Call(ctx, network.Enable, network.EnableParams{}); err != nil {
		t.Fatal(err)
	}
	if _, err := chromedp.Call(ctx, log.Enable, cdp.Empty{}); err != nil {
		t.Fatal(err)
	}
	if _, err := chromedp.Call(ctx, emulation.SetFocusEmulationEnabled, emulation.SetFocusEmulationEnabledParams{Enabled: true}); err != nil {
		t.Fatal(err)
	}
	b.size(1280, 900)
	return b
}

// note is told all events.
func (b *tab) note(ev any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch ev := ev.(type) {
	case *network.EventRequestWillBeSent:
		b.requests = append(b.requests, ev.Request.URL)
	case *network.EventWebSocketCreated:
		b.requests = append(b.requests, ev.URL)
	case *runtime.EventExceptionThrown:
		text, _ := json.Marshal(ev.ExceptionDetails)
		b.complaints = append(b.complaints, "exception: "+string(text))
	case *runtime.EventConsoleAPICalled:
		text, _ := json.Marshal(ev.Args)
		b.complaints = append(b.complaints, fmt.Sprintf("console.%s: %s", ev.Type, text))
	case *log.EventEntryAdded:
		b.complaints = append(b.complaints, fmt.Sprintf("%s: %s: %s (%s)", ev.Entry.Source, ev.Entry.Level, ev.Entry.Text, ev.Entry.URL))
	}
}

func (b *tab) do(steps ...chromedp.Action[chromedp.Void]) {
	b.tb.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patienceLimit)
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		b.tb.Fatalf("in the browser: %v\ncomplaints: %q", err, b.complained())
	}
}

func (b *tab) complained() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]string{}, b.complaints...)
}

// js evaluates an expression in the page, waits where it is a promise, and reads its value.
func js[T any](b *tab, expression string) T {
	b.tb.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patienceLimit)
	defer cancel()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	if err != nil {
		b.tb.Fatalf("in the browser: %s: %v\ncomplaints: %q", expression, err, b.complained())
	}
	return v
}

// until waits for an expression to be true.
func (b *tab) until(what, expression string) {
	b.tb.Helper()
	limit := time.Now().Add(patienceLimit)
	for !js[bool](b, "Boolean("+expression+")") {
		if time.Now().After(limit) {
			b.tb.Fatalf("waited in vain until %s\nthe page: %s\nat %s, with the focus on %s\ncomplaints: %q", what, js[string](b, "document.body.innerText"),
				js[string](b, "location.href"), js[string](b, "document.activeElement?.outerHTML.slice(0, 300) ?? ''"), b.complained())
		}
		time.Sleep(30 * time.Millisecond)
	}
}

// text is what an element shows, or empty where there is none.
func (b *tab) text(selector string) string {
	b.tb.Helper()
	return js[string](b, "document.querySelector("+quote(selector)+")?.innerText ?? ''")
}

// shows waits until an element shows a text.
func (b *tab) shows(selector, text string) {
	b.tb.Helper()
	b.until(fmt.Sprintf("%s shows %q", selector, text), fmt.Sprintf("[...document.querySelectorAll(%s)].some(e => e.innerText.includes(%s))", quote(selector), quote(text)))
}

// press presses keys, one after the other, as a person does.
func (b *tab) press(keys string, options ...chromedp.KeyOption) {
	b.tb.Helper()
	b.do(chromedp.KeyEvent(keys, options...))
}

// shortcut presses a key that stands for something else than itself. What press sends is the key and its character one after the other, of
// which the page can refuse only the first.
func (b *tab) shortcut(key string) {
	b.tb.Helper()
	for _, e := range []input.DispatchKeyEventParams{{Type: input.DispatchKeyEventTypeKeyDown, Key: key, Text: key}, {Type: input.DispatchKeyEventTypeKeyUp, Key: key}} {
		if _, err := chromedp.Call(b.ctx, input.DispatchKeyEvent, e); err != nil {
			b.tb.Fatal(err)
		}
	}
}

// tabTo presses the tab key until an element has the focus.
func (b *tab) tabTo(selector string) {
	b.tb.Helper()
	for range 60 {
		if js[bool](b, "Boolean(document.activeElement?.matches("+quote(selector)+"))") {
			return
		}
		b.press("\t")
	}
	b.tb.Fatalf("the tab key does not lead to %s, but to %s", selector, js[string](b, "document.activeElement?.outerHTML ?? ''"))
}

func (b *tab) size(width, height int64) {
	b.tb.Helper()
	b.do(chromedp.EmulateViewport(width, height))
}

// scheme has the page be light or dark.
func (b *tab) scheme(name string) {
	b.tb.Helper()
	if _, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{
		{Name: "prefers-color-scheme", Value: name}, {Name: "prefers-reduced-motion", Value: "reduce"}}}); err != nil {
		b.tb.Fatal(err)
	}
}

// open goes to an address, or, within the page, to a part of it.
func (b *tab) open(url string) {
	b.tb.Helper()
	b.do(chromedp.Navigate(url))
}

func (b *tab) goTo(hash string) {
	b.tb.Helper()
	js[any](b, "void (location.hash = "+quote(hash)+")")
}

// documented are the pictures that docs/images has.
var documented = []string{"overview-light", "overview-dark", "overview-phone", "task-light", "hosts-light"}

// picture takes a screenshot where MAYFLY_TEST_SCREENSHOTS asks for it: into the directory that it names, or with "docs" those of the
// documentation into docs/images.
func (b *tab) picture(name string) {
	b.tb.Helper()
	dir := os.Getenv("MAYFLY_TEST_SCREENSHOTS")
	if dir == "docs" {
		dir = "../docs/images"
		if !slices.Contains(documented, name) {
			return
		}
	}
	if dir == "" {
		return
	}
	time.Sleep(300 * time.Millisecond) // what has just changed is drawn
	png, err := chromedp.Run(b.ctx, chromedp.CaptureScreenshot())
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, name+".png"), png, 0o644)
	}
	if err != nil {
		b.tb.Fatal(err)
	}
}

// clean fails the test where the page has asked anybody but its origin, or has complained of what is not allowed.
func (b *tab) clean(origin string, allowed ...string) {
	b.tb.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, url := range b.requests {
		if !strings.HasPrefix(url, origin+"/") && !strings.HasPrefix(url, "blob:"+origin+"/") && url != "about:blank" {
			b.tb.Errorf("the page asked for %s", url)
		}
	}
	if len(b.requests) < 10 {
		b.tb.Errorf("only %d requests were noted", len(b.requests))
	}
complaints:
	for _, text := range b.complaints {
		for _, a := range allowed {
			if strings.Contains(text, a) {
				continue complaints
			}
		}
		b.tb.Errorf("the page complained: %s", text)
	}
}

// asked counts the requests so far.
func (b *tab) asked() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.requests)
}

// version is the browser's.
func (b *tab) version() string {
	return js[string](b, "navigator.userAgent.match(/Chrom[^ ]*/)[0]")
}

func quote(text string) string {
	quoted, err := json.Marshal(text)
	if err != nil {
		panic(err)
	}
	return string(quoted)
}
