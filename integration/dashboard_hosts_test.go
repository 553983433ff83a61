package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/mayfly/mayfly/integration/broker"
	"github.com/mayfly/mayfly/manager"
	"github.com/mayfly/mayfly/queue"
	"github.com/mayfly/mayfly/queue/rabbit"
)

// parkedIsShown has a task that no host can run, which is shown wherever those are that wait, and can be cancelled. A host that takes no tasks at all, or has lost its
// broker, says so where people look first, on a phone, too.
func parkedIsShown(t *testing.T, b *tab, h *host, p *producer) {
	t.Helper()
	p.publish("default", `{"id": "huge", "command": ["true"], "resources": {"cpu": 64}}`)
	h.until("it is parked", func() bool { return h.statusOf("huge") == manager.Parked })
	for _, page := range []string{"#/", "#/tasks", "#/tasks?show=waiting"} {
		b.goTo(page)
		b.until("it is shown at "+page, "[...document.querySelectorAll('.tasks tr.parked')].some(r => r.checkVisibility() && r.querySelector('.id').innerText === 'huge' && r.innerText.includes('no other host can start it'))")
	}
	b.goTo("#/tasks/huge")
	b.until("it can be cancelled", "document.querySelector('#cancel')?.checkVisibility()")
	b.tabTo("#cancel")
	b.press("\r")
	b.tabTo("dialog button[value=yes]")
	b.press("\r")
	b.until("it was cancelled", "document.querySelector('.title .pill').innerText === 'cancelled'")
	b.goTo("#/")
	unfit := js[string](b, `import("./static/overview.js").then(({overview}) => {
		const glance = {info: {state: "serving", unfit: "its disk is full", queue: "RabbitMQ 4.0.5 at broker:5672, out of reach since 2026-11-22T03:00:00Z: connection refused", pools: [], cpu: 1, cpu_used: 0, memory: 1, memory_used: 0, disk: 1, disk_used: 0, gpus: 0, gpus_free: 0}, counts: {waiting: 1, queued: 0, running: 0, stopping: 0, settling: 0, ended: {}}};
		const page = overview({live: {glance, gpus: null}});
		document.body.append(...page.nodes);
		page.shown();
		page.leave();
		const alert = page.nodes.find(n => n.matches(".alert"));
		const said = alert.checkVisibility() ? [...alert.querySelectorAll("li")].map(li => li.innerText).join(" ") : "";
		for (const n of page.nodes) n.remove();
		return said;
	})`)
	if unfit != "This host takes no tasks: its disk is full. RabbitMQ 4.0.5 at broker:5672, out of reach since 2026-11-22T03:00:00Z: connection refused." {
		t.Errorf("a host that takes no tasks says %q", unfit)
	}
}

// TestDashboardHosts looks at a fleet: two real hosts, then hundreds of which somebody only says that they exist, one with a name that is to deceive.
func TestDashboardHosts(t *testing.T) {
	t.Parallel()
	b := newTab(t)
	url := broker.Shared(t, broker.V40).Vhost(t)
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte(dashboardToken+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	first := newHost(t, "MAYFLY_AMQP_URL="+url, "MAYFLY_LISTEN=127.0.0.1:0", "MAYFLY_TOKEN_FILE="+token, "MAYFLY_CPUS=2", "MAYFLY_MEMORY=1GiB", "MAYFLY_HOST=gpu-01")
	second := newHost(t, "MAYFLY_AMQP_URL="+url, "MAYFLY_CPUS=8", "MAYFLY_MEMORY=1GiB", "MAYFLY_HOST=gpu-02")
	first.start()
	origin := first.tcp()
	b.scheme("light")
	b.signIn(origin)
	parkedIsShown(t, b, first, newProducer(t, url))
	second.start()
	first.until("it hears of the other", func() bool { return len(first.fleet()) == 2 }, func() any { return first.fleet() })
	newProducer(t, url).publish("default", `{"id": "large", "command": ["sleep", "1000"], "resources": {"cpu": 4, "memory": "512MiB"}}`)
	second.until("it runs", func() bool { return second.running() == 1 })

	b.goTo("#/hosts")
	row := func(host string) string {
		return fmt.Sprintf("[...document.querySelectorAll('.hosts tbody tr')].find(r => r.querySelector('b').innerText === %s)", quote(host))
	}
	is := func(host string, cells ...any) {
		t.Helper()
		want, err := json.Marshal(cells)
		if err != nil {
			t.Fatal(err)
		}
		b.until(fmt.Sprintf("%s is as it is: %s", host, want), fmt.Sprintf("JSON.stringify([...%s?.querySelectorAll('td') ?? []].map(c => c.innerText.replace(/\\s+/g, ' ').trim())) === %s", row(host), quote(string(want))))
	}
	is("gpu-02", "1", "0", "4 of 8", "512 MiB of 1 GiB", "–", "default")
	is("gpu-01", "0", "0", "0 of 2", "0 B of 1 GiB", "–", "default")
	b.until("this host is marked", row("gpu-01")+".querySelector('.name .muted').innerText === 'this host'")
	if js[bool](b, "document.querySelector('#find').checkVisibility()") {
		t.Error("two hosts are to be searched")
	}
	b.shows(".title .num", "2 hosts")

	// A client that speaks for many.
	const many, hostile = 400, "<img src=x onerror=alert(1)>\x1b[31m"
	client, err := rabbit.Dial(t.Context(), rabbit.Config{URLs: []string{url}, Host: "speaker", Pools: []string{"default"}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	defer func() {
		cancel()
		<-done
		client.Close()
	}()
	go func() {
		defer close(done)
		for {
			select {
			case <-ctx.Done():
				return
			case <-client.Offers():
			case <-client.Hellos():
			case q := <-client.Questions():
				if q.Purpose != queue.ToCount {
					continue
				}
				for i := range many {
					info := manager.Info{Host: fmt.Sprintf("node-%03d", i), Version: "1", State: "serving", Queue: "q", Pools: []string{"default", "gpu"}, CPU: 64, CPUUsed: float64(i % 65),
						Memory: 1 << 40, MemoryUsed: int64(i) << 30, GPUs: 8, GPUsFree: i % 9, Running: i, Waiting: i % 3}
					switch i {
					case 250:
						info.Unfit = "three workers in a row were lost through its own fault"
					case 399:
						info.Host, info.Unfit = hostile, hostile
					}
					text, err := json.Marshal(info)
					if err == nil {
						err = client.Answer(ctx, q, queue.Offer{Info: text})
					}
					if err != nil && ctx.Err() == nil {
						t.Error(err)
					}
				}
			}
		}
	}()
	b.until("all are counted", fmt.Sprintf("document.querySelector('.title .num').innerText === '%d hosts · 2 in trouble · the first 300 are shown'", many+2))
	if first := js[[]string](b, "[...document.querySelectorAll('.hosts tbody tr')].slice(0, 2).map(r => r.querySelector('b').innerText)"); len(first) != 2 || first[1] != "node-250" {
		t.Errorf("those in trouble do not come first: %q", first)
	}
	b.until("the reason is told", row("node-250")+".querySelector('.why').innerText === 'Takes no tasks: three workers in a row were lost through its own fault'")
	if n := js[int](b, "document.querySelectorAll('.hosts img').length + [...document.querySelectorAll('.hosts *')].filter(e => e.innerText?.includes('\\u001b')).length"); n > 0 {
		t.Error("a name is more than a text")
	}
	b.shortcut("/")
	b.press("node-31 gpu")
	b.until("ten are found", "document.querySelectorAll('.hosts tbody tr').length === 10")
	b.press("x")
	b.shows(".empty", "No host is like that.")
	b.press("\b\b\b\b\b\b\b\b")
	b.until("all are found again", "document.querySelectorAll('.hosts tbody tr').length === 300")
	b.size(1280, 640)
	b.fit("hosts")
	b.clean(origin, "401 (Unauthorized)")
}
