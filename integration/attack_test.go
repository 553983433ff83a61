package integration

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/mayfly/mayfly/integration/broker"
	"github.com/mayfly/mayfly/manager"
	"github.com/mayfly/mayfly/queue"
)

// packed is a header as Mayfly packs its histories.
func packed(text string) string {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = z.Write([]byte(text))
	_ = z.Close()
	return "gzip:" + base64.StdEncoding.EncodeToString(b.Bytes())
}

// nested is a header of many tables, each in the one before.
func nested(depth int) amqp.Table {
	t := amqp.Table{"x": "y"}
	for range depth {
		t = amqp.Table{"t": t}
	}
	return t
}

// TestHostileProducer sends what a producer may send who means harm: whatever it is, it is settled, others' tasks run, the API answers, and
// the manager stays small.
func TestHostileProducer(t *testing.T) {
	t.Parallel()
	eachVersion(t, func(t *testing.T, _ *broker.Broker, url string) {
		h := newHost(t, "MAYFLY_AMQP_URL="+url)
		h.start()
		p := newProducer(t, url)
		const task = `"shell": "echo ran"`
		for name, m := range map[string]amqp.Publishing{
			"far-future":     {Timestamp: time.Unix(1<<60, 0)},
			"far-past":       {Timestamp: time.Unix(-1<<60, 0)},
			"queued-later":   {Headers: amqp.Table{"mayfly-queued-at": "9999-12-31T23:59:59Z"}},
			"queued-earlier": {Headers: amqp.Table{"mayfly-queued-at": "0000-01-01T00:00:00Z"}},
			"queued-offset":  {Headers: amqp.Table{"mayfly-queued-at": "9999-12-31T23:59:59-23:59"}},
			"bomb":           {Headers: amqp.Table{"mayfly-attempts": packed("[" + strings.Repeat("{},", 5<<20) + "{}]")}},
			"deep-history":   {Headers: amqp.Table{"mayfly-attempts": packed(strings.Repeat("[", 8<<20))}},
			"last-attempt":   {Headers: amqp.Table{"mayfly-attempts": fmt.Sprintf(`[{"attempt":%d,"host":"h","cause":"exit"}]`, math.MaxInt)}},
			"below-zero":     {Headers: amqp.Table{"mayfly-attempts": `[{"attempt":-7,"host":"h","cause":"exit"}]`}},
			"forged-words":   {Headers: amqp.Table{"mayfly-attempts": `[{"attempt":1,"host":"../\u001b[2J\n","cause":"\u001b]0;x\u0007","message":"\u001b[31m","signal":"\n"}]`}},
			"odd-attempts":   {Headers: amqp.Table{"mayfly-attempts": amqp.Table{"a": int64(1)}}},
			"nested":         {Headers: amqp.Table{"deep": nested(2000)}},
			"many-headers":   {Headers: manyHeaders(2000)},
			"odd-reply":      {ReplyTo: "amq.rabbitmq.reply-to\r\n\x1b[2J", CorrelationId: "\x00\xff\r\n"},
			"wrong-reply":    {ReplyTo: "mayfly.tasks", CorrelationId: strings.Repeat("x", 255)},
			"reply-dead":     {ReplyTo: "mayfly.dead"},
			"reply-pool":     {ReplyTo: "mayfly.pool.default.normal"},
			"reply-host":     {ReplyTo: "mayfly.host." + filepath.Base(h.dir) + ".control"},
			"odd-kind":       {ContentType: "text/html\r\nX: y", ContentEncoding: "gzip", Type: "x", AppId: "\x1b[2J", Priority: 255},
			"traced":         {Headers: amqp.Table{"traceparent": "00-" + strings.Repeat("a", 32) + "-" + strings.Repeat("b", 16) + "-01\nLD_PRELOAD=/tmp/x", "tracestate": "a\x00b"}},
		} {
			m.Body = fmt.Appendf(nil, `{"id": %q, "timeout": "1m", %s}`, name, task)
			p.publishWith("default", m)
			if r := p.wait(name); r.State != queue.Succeeded || r.StdoutTail != "ran\n" || r.Attempt < 1 || r.Attempt > 1e6 || r.QueuedAt == nil || time.Since(*r.QueuedAt) < 0 {
				t.Errorf("%s: %+v", name, r)
			}
		}
		for name, body := range map[string]string{
			"path":        `{"id": "../../../etc/cron.d/x", ` + task + `}`,
			"dots":        `{"id": "..", ` + task + `}`,
			"newline":     `{"id": "a\nb", ` + task + `}`,
			"escapes":     `{"id": "n", "name": "\u001b[2J", ` + task + `}`,
			"deep":        `{"id": "d", "type": "t", "params": ` + strings.Repeat("[", 1<<20) + strings.Repeat("]", 1<<20) + `}`,
			"huge-number": `{"id": "hn", "resources": {"cpu": 1e400}, ` + task + `}`,
			"long-number": `{"id": "ln", "resources": {"memory": ` + strings.Repeat("9", 1<<20) + `}, ` + task + `}`,
			"labels":      `{"id": "l", "labels": {` + pairs(100000) + `}, ` + task + `}`,
			"a-label":     `{"id": "al", "labels": {"a": "` + strings.Repeat("x", 1<<20) + `"}, ` + task + `}`,
			"binary":      "\x00\xff\xfe\x1b[2J",
			"nothing":     "",
		} {
			p.publishWith("default", amqp.Publishing{MessageId: "refused-" + name, Body: []byte(body)})
		}
		p.waitFor("every one is refused", func() bool {
			n := 0
			for _, list := range p.results {
				if list[0].State == queue.Rejected {
					n++
				}
			}
			return n >= 11
		})
		// A task with all that the limits allow.
		p.publish("default", `{"id": "greedy", "environment": {`+pairs(1000)+`}, "labels": {`+pairs(64)+`}, "name": "`+strings.Repeat("é", 128)+`", "stdin": "`+
			strings.Repeat(`\u0000`, 2<<20)+`", `+task+`}`)
		if r := p.wait("greedy"); r.StdoutTail != "ran\n" {
			t.Errorf("greedy: %+v", r)
		}
		var all []manager.View
		if err := h.get("/v1/tasks?ended=1000", &all); err != nil || len(all) < 18 {
			t.Errorf("the API lists %d tasks: %v", len(all), err)
		}
		h.expect(0, "far-future", "", "ps", "-n", "1000")
		h.expect(0, "", "", "dead", "list")
		if found, _ := filepath.Glob("/etc/cron.d/x*"); len(found) > 0 {
			t.Errorf("a worker's directory outside: %v", found)
		}
		if most := peak(t, h.cmd.Process.Pid); most > 400<<20 { // some bodies have 16 MiB
			t.Errorf("the manager took %d MiB of memory", most>>20)
		}
	})
}

func manyHeaders(n int) amqp.Table {
	t := amqp.Table{}
	for i := range n {
		t[fmt.Sprintf("h%d", i)] = strings.Repeat("v", 40)
	}
	return t
}

// pairs are members of a JSON object.
func pairs(n int) string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf(`"K%d": "v"`, i)
	}
	return strings.Join(list, ", ")
}

// peak is the most memory that a process has had, in bytes.
func peak(t *testing.T, pid int) int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "VmHWM:" {
			n, _ := strconv.ParseInt(f[1], 10, 64)
			return n << 10
		}
	}
	t.Fatal("no VmHWM")
	return 0
}

// TestForgedControl has one who may write to all queues send a host results and cancellations of tasks with impossible ids: nothing outside the
// state directory is touched when their records are forgotten, and nothing of them is remembered.
func TestForgedControl(t *testing.T) {
	t.Parallel()
	url := broker.Shared(t, broker.V43).Vhost(t)
	h := newHost(t, "MAYFLY_AMQP_URL="+url, "MAYFLY_HISTORY=3")
	h.start()
	h.connected()
	p := newProducer(t, url)
	victim := filepath.Join(h.dir, "victim.1")
	if err := os.Mkdir(victim, 0o700); err != nil {
		t.Fatal(err)
	}
	send := func(exchange, key string, body any) {
		t.Helper()
		text, err := json.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		confirm, err := p.ch.PublishWithDeferredConfirmWithContext(t.Context(), exchange, key, true, false, amqp.Publishing{Body: text})
		if err != nil {
			t.Fatal(err)
		}
		if ok, err := confirm.WaitContext(t.Context()); !ok || err != nil {
			t.Fatalf("not confirmed: %v", err)
		}
	}
	control := "mayfly.host." + filepath.Base(h.dir) + ".control"
	for _, id := range []string{"../../victim", "", strings.Repeat("x", 1000), "a/b", "\x1b[2J"} {
		send("", control, queue.Result{ID: id, Attempt: 1, Host: "elsewhere", State: queue.Failed})
		send("mayfly.control", "cancel", map[string]string{"cancel": id})
	}
	send("", control, queue.Result{ID: "ok", Attempt: -7, Host: "elsewhere", State: queue.Failed})
	send("", control, "no result")
	for i := range 8 { // so that all that came before is forgotten
		id := fmt.Sprint("t", i)
		p.publish("default", `{"id": "`+id+`", "shell": "true"}`)
		p.wait(id)
		var all []manager.View
		if err := h.get("/v1/tasks?ended=100", &all); err != nil {
			t.Fatal(err)
		}
		for _, v := range all {
			if !queue.ValidID(v.ID) || v.ID == "ok" {
				t.Errorf("%q is remembered", v.ID)
			}
		}
	}
	if _, err := os.Stat(victim); err != nil {
		t.Errorf("a directory outside was removed: %v", err)
	}
	h.expect(0, "", "", "submit", "--wait", "--", "true")
}
