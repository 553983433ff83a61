package integration

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// request asks the host's API. The answer is read whole, unless it is a stream, of which enough says when it is enough.
type request struct {
	method, path, body string
	header             map[string]string
	enough             func(read string) bool
}

// reply is an answer without its body.
type reply struct {
	StatusCode int
	Status     string
	Header     http.Header
}

// ask returns the answer and its body.
func (h *host) ask(r request) (reply, []byte) {
	h.tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patienceLimit)
	defer cancel()
	if r.method == "" {
		r.method = http.MethodGet
	}
	req, err := http.NewRequestWithContext(ctx, r.method, "http://mayfly"+r.path, strings.NewReader(r.body))
	if err != nil {
		h.tb.Fatal(err)
	}
	for k, v := range r.header {
		req.Header.Set(k, v)
	}
	resp, err := h.http.Do(req)
	if err != nil {
		h.tb.Fatalf("%s %s: %v", r.method, r.path, err)
	}
	defer resp.Body.Close()
	var read bytes.Buffer
	for piece := make([]byte, 4096); ; {
		n, err := resp.Body.Read(piece)
		read.Write(piece[:n])
		if err == io.EOF || r.enough != nil && r.enough(read.String()) {
			return reply{resp.StatusCode, resp.Status, resp.Header}, read.Bytes()
		}
		if err != nil {
			h.tb.Fatalf("%s %s: %v", r.method, r.path, err)
		}
	}
}

type event struct{ name, id, data string }

// events are those of a stream that are complete.
func events(body []byte) func(func(event) bool) {
	return func(yield func(event) bool) {
		var e event
		lines := bufio.NewScanner(bytes.NewReader(body))
		lines.Buffer(nil, 64<<20)
		for lines.Scan() {
			name, value, _ := strings.Cut(lines.Text(), ": ")
			switch name {
			case "event":
				e.name = value
			case "id":
				e.id = value
			case "data":
				e.data = value
			case "":
				if e.data != "" && !yield(e) {
					return
				}
				e = event{}
			}
		}
	}
}

// TestAPIAnswers compares what a real manager answers with the description that it serves.
func TestAPIAnswers(t *testing.T) {
	t.Parallel()
	h := newGPUHost(t, "MAYFLY_WINDOW=4", "MAYFLY_CPUS=2", "MAYFLY_DRAIN_TIMEOUT=500ms")
	h.fake.EnableMIG(7, "1g.10gb")
	h.start()
	d := describe(h.host)
	ask := func(path string, r request) (reply, []byte) {
		t.Helper()
		if r.path == "" {
			r.path = path
		}
		resp, body := h.ask(r)
		if r.method == "" {
			r.method = http.MethodGet
		}
		d.answer(r.method, path, resp, body)
		return resp, body
	}
	must := func(path string, status int, r request) []byte {
		t.Helper()
		resp, body := ask(path, r)
		if resp.StatusCode != status {
			t.Errorf("%s: %s: %s", path, resp.Status, body)
		}
		return body
	}
	post := func(path string, status int, body string) []byte {
		t.Helper()
		return must(path, status, request{method: "POST", body: body})
	}

	// Nothing has ended or been run yet: what is empty is that, and not null.
	for _, path := range []string{"/v1/tasks", "/v1/counts", "/v1/series", "/v1/demand", "/v1/dead", "/v1/info", "/v1/hosts", "/v1/gpus"} {
		must(path, 200, request{})
	}

	// Of all kinds: ended in each way, running, stopping perhaps, waiting, queued, backing off.
	const small = `"resources": {"cpu": 0.1, "memory": "16MiB"}`
	post("/v1/tasks", 201, `{"id": "good", "name": "a name", "labels": {"zone": "a"}, "shell": "echo out; echo err >&2; echo '{\"x\": [1]}' >$MAYFLY_RESULT", `+small+`}`)
	post("/v1/tasks", 201, `{"id": "bad", "command": ["false"], `+small+`}`)
	post("/v1/tasks", 201, `{"id": "killed", "shell": "kill -9 $$", `+small+`}`)
	post("/v1/tasks", 201, `{"id": "late", "command": ["true"], "deadline": "2020-01-01T00:00:00Z", `+small+`}`)
	post("/v1/tasks", 201, `{"id": "gpu", "command": ["sleep", "600"], "resources": {"cpu": 0.1, "memory": "16MiB", "gpu": 2}}`)
	post("/v1/tasks:batch", 200, `{"id": "again", "command": ["false"], "max_attempts": 2, "backoff": "1h", `+small+"}\n\n{\"nonsense\": 1}\n{\"id\": \"b2\", \"command\": [\"true\"], "+small+"}")
	for _, id := range []string{"good", "bad", "killed", "late", "b2"} {
		must("/v1/tasks/{id}/wait", 200, request{path: "/v1/tasks/" + id + "/wait"})
	}
	h.runs("gpu")
	h.until("it backs off", func() bool {
		_, body := h.ask(request{path: "/v1/tasks/again"})
		return strings.Contains(string(body), `"backing_off"`)
	})
	post("/v1/tasks", 201, `{"id": "runs", "command": ["sleep", "600"], "resources": {"cpu": 1.5, "memory": "16MiB"}}`)
	h.runs("runs")
	for i := range 12 { // more than the window
		post("/v1/tasks", 201, fmt.Sprintf(`{"id": "w%d", "command": ["true"], "resources": {"cpu": 1, "memory": "16MiB", "gpu": 1}}`, i))
	}
	h.fake.AddProcess(h.fake.GPU(6).UUID, 1<<22, 1<<30) // somebody else's

	for _, path := range []string{"/v1/tasks", "/v1/counts", "/v1/series", "/v1/demand", "/v1/dead", "/v1/info", "/v1/hosts", "/v1/gpus", "/v1/openapi.json", "/metrics"} {
		must(path, 200, request{})
	}
	for _, query := range []string{"ended=10", "limit=3", "limit=3&brief=1", "status=ended&limit=2", "state=failed&limit=10", "ended=10&cause=exit,signal", "label=zone=a&ended=9", "text=GOOD&limit=10"} {
		must("/v1/tasks", 200, request{path: "/v1/tasks?" + query})
	}
	for _, span := range []string{"15m", "1h", "6h", "24h"} {
		must("/v1/series", 200, request{path: "/v1/series?span=" + span})
	}
	for id, sentence := range map[string]string{"good": "it succeeded", "bad": "it failed: the worker exited with code 1", "gpu": "it runs here as attempt 1",
		"w0": "it waits for 1 core: 0.4 of 2 CPU cores are free", "w11": "it lies in the queue default.normal: this host holds as many tasks as it takes at once",
		"again": "attempt 1 failed (the worker exited with code 1); it waits in the queue for its next try"} {
		must("/v1/tasks/{id}", 200, request{path: "/v1/tasks/" + id})
		body := must("/v1/tasks/{id}/explain", 200, request{path: "/v1/tasks/" + id + "/explain"})
		if !strings.Contains(string(body), sentence) {
			t.Errorf("explain %s: %s, want %q", id, body, sentence)
		}
		out := h.expect(0, sentence, "", "explain", id)
		if !strings.HasPrefix(out, id+": ") {
			t.Errorf("mayfly explain: %s", out)
		}
	}

	// Output: as it is, from a place on, a range, as events.
	for query, want := range map[string]string{"": "out\n", "?stream=stderr": "err\n", "?tail=2": "t\n", "?offset=1": "ut\n", "?attempt=1&follow=1": "out\n", "?offset=100": ""} {
		if body := must("/v1/tasks/{id}/logs", 200, request{path: "/v1/tasks/good/logs" + query}); string(body) != want {
			t.Errorf("logs%s: %q", query, body)
		}
	}
	if body := must("/v1/tasks/{id}/logs", 206, request{path: "/v1/tasks/good/logs", header: map[string]string{"Range": "bytes=1-2"}}); string(body) != "ut" {
		t.Errorf("a range: %q", body)
	}
	must("/v1/tasks/{id}/logs", 416, request{path: "/v1/tasks/good/logs", header: map[string]string{"Range": "bytes=100-"}})
	asEvents := map[string]string{"Accept": "text/event-stream"}
	body := must("/v1/tasks/{id}/logs", 200, request{path: "/v1/tasks/good/logs?follow=1", header: asEvents})
	all := slices.Collect(events(body))
	if len(all) != 3 || all[0].data != `{"stream":"stdout","attempt":1,"offset":0,"text":"out\n"}` || all[1].id != "1 4 4" || all[2].name != "end" {
		t.Errorf("as events: %+v", all)
	}
	body = must("/v1/tasks/{id}/logs", 200, request{path: "/v1/tasks/good/logs?follow=1", header: map[string]string{"Accept": "text/event-stream", "Last-Event-ID": "1 4 2"}})
	if all := slices.Collect(events(body)); len(all) != 2 || all[0].data != `{"stream":"stderr","attempt":1,"offset":2,"text":"r\n"}` {
		t.Errorf("after an event: %+v", all)
	}

	body = must("/v1/events", 200, request{path: "/v1/events?topics=tasks,host,gpus", enough: func(read string) bool { return strings.Count(read, "\n\n") >= 3 }})
	for i, e := range slices.Collect(events(body))[:3] {
		if want := []string{"tasks", "host", "gpus"}[i]; e.name != want {
			t.Errorf("event %s, want %s", e.name, want)
		}
	}
	must("/v1/events", 200, request{enough: func(read string) bool { return strings.Contains(read, "\n\n") }})

	// Dead letters, and what is done to tasks.
	must("/v1/dead/{key}", 200, request{path: "/v1/dead/bad"})
	must("/v1/dead/{key}", 200, request{path: "/v1/dead/killed", method: "DELETE"})
	must("/v1/dead/{key}/requeue", 200, request{path: "/v1/dead/bad/requeue", method: "POST"})
	for _, id := range []string{"w11", "w0", "again", "runs"} {
		must("/v1/tasks/{id}/cancel", 200, request{path: "/v1/tasks/" + id + "/cancel", method: "POST"})
	}

	// What is refused.
	for _, tt := range []struct {
		method, route, path, body string
		status                    int
		want                      string
	}{
		{"GET", "/v1/tasks", "/v1/tasks?stat=running", "", 400, "there are ended, status, state"},
		{"GET", "/v1/tasks", "/v1/tasks?status=walking", "", 400, "it is one or more of"},
		{"GET", "/v1/tasks", "/v1/tasks?state=failed,", "", 400, "cannot use state="},
		{"GET", "/v1/tasks", "/v1/tasks?status=running&status=ended", "", 400, "twice"},
		{"GET", "/v1/tasks", "/v1/tasks?limit=0", "", 400, "it is 1 to 1000"},
		{"GET", "/v1/tasks", "/v1/tasks?limit=1001", "", 400, "it is 1 to 1000"},
		{"GET", "/v1/tasks", "/v1/tasks?limit=5&ended=5", "", 400, "cannot use ended together"},
		{"GET", "/v1/tasks", "/v1/tasks?cursor=x9", "", 400, "no cursor"},
		{"GET", "/v1/tasks", "/v1/tasks?cursor=e-1", "", 400, "no cursor"},
		{"GET", "/v1/tasks", "/v1/tasks?text=" + strings.Repeat("x", 513), "", 400, "at most 512"},
		{"GET", "/v1/tasks", "/v1/tasks?text=%zz", "", 400, "cannot read the query"},
		{"GET", "/v1/series", "/v1/series?span=1y", "", 400, "15m, 1h, 6h or 24h"},
		{"GET", "/v1/events", "/v1/events?topics=all", "", 400, "cannot use topics"},
		{"GET", "/v1/tasks/{id}/logs", "/v1/tasks/good/logs?tail=1&offset=1", "", 400, "at one place"},
		{"GET", "/v1/tasks/{id}/logs", "/v1/tasks/good/logs?stream=both", "", 400, "stdout or stderr"},
		{"GET", "/v1/tasks/{id}/logs", "/v1/tasks/late/logs", "", 404, "never began"},
		{"GET", "/v1/tasks/{id}/explain", "/v1/tasks/nobody/explain", "", 404, "knows no task"},
		{"GET", "/v1/dead/{key}", "/v1/dead/nobody", "", 404, "no dead letter"},
		{"POST", "/v1/tasks", "/v1/tasks?pool=elsewhere", `{"command": ["true"]}`, 400, "serves only"},
		{"GET", "/v1/info", "/v1/info?x=1", "", 400, "it has none"},
	} {
		resp, body := ask(tt.route, request{method: tt.method, path: tt.path, body: tt.body})
		if resp.StatusCode != tt.status || !strings.Contains(string(body), tt.want) {
			t.Errorf("%s %s: %s %s, want %d with %q", tt.method, tt.path, resp.Status, body, tt.status, tt.want)
		}
	}
	must("/v1/tasks:cancel", 200, request{method: "POST", path: "/v1/tasks:cancel?label=batch=none"})
	ask("/v1/tasks:cancel", request{method: "POST", path: "/v1/tasks:cancel?label=batch"})
	must("/v1/drain", 202, request{method: "POST"})

	// Every operation was seen to succeed.
	for path, operations := range d.paths {
		for method := range operations {
			seen := false
			for checked := range d.checked {
				seen = seen || strings.HasPrefix(checked, strings.ToUpper(method)+" "+path+" 2")
			}
			if !seen {
				t.Errorf("%s %s was not tried", method, path)
			}
		}
	}
}

// TestAPIByTCP opens a port: who has the token may do all, also by the commands, and nobody else anything.
func TestAPIByTCP(t *testing.T) {
	t.Parallel()
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("a-token-of-some-length\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	h := newHost(t, "MAYFLY_LISTEN=127.0.0.1:0", "MAYFLY_TOKEN_FILE="+token)
	h.start()
	base := h.tcp()
	try := func(header map[string]string) (int, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base+"/v1/info", nil)
		if err != nil {
			t.Fatal(err)
		}
		for k, v := range header {
			req.Header.Set(k, v)
		}
		if host := req.Header.Get("Host"); host != "" {
			req.Host = host
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(body)
	}
	defer http.DefaultClient.CloseIdleConnections()
	for want, header := range map[int]map[string]string{
		401: {}, 200: {"Authorization": "Bearer a-token-of-some-length"},
		403: {"Authorization": "Bearer a-token-of-some-length", "Sec-Fetch-Site": "same-site"},
		421: {"Authorization": "Bearer a-token-of-some-length", "Host": "evil.example"},
	} {
		if status, body := try(header); status != want {
			t.Errorf("%v: %d %s, want %d", header, status, body, want)
		}
	}
	// The commands, without the socket.
	remote := &host{tb: t, env: []string{"MAYFLY_URL=" + base, "MAYFLY_TOKEN_FILE=" + token}}
	remote.expect(0, "hello", "", "submit", "--wait", "--", "echo", "hello")
	remote.expect(0, "echo hello", "", "ps", "-a")
	stranger := &host{tb: t, env: []string{"MAYFLY_URL=" + base}}
	stranger.expect(1, "", "cannot answer without a token", "ps")
	nowhere := &host{tb: t, env: []string{"MAYFLY_URL=localhost:1"}}
	nowhere.expect(1, "", "it is http://host:port or https://host:port", "ps")
	// A worker does not see the token, wherever its file lies.
	h.expect(1, "", "", "submit", "--wait", "--", "cat", token)
}

// tcp is the URL of a host that listens on 127.0.0.1:0.
func (h *host) tcp() string {
	h.tb.Helper()
	for line := range strings.Lines(h.logged()) {
		var said struct{ Msg, Listen string }
		if json.Unmarshal([]byte(line), &said) == nil && said.Listen != "" {
			return "http://" + said.Listen
		}
	}
	h.tb.Fatal("it does not listen by TCP")
	return ""
}

// TestAPINotOpened holds that a manager that would let anybody in does not start, and says what to do.
func TestAPINotOpened(t *testing.T) {
	t.Parallel()
	open := filepath.Join(t.TempDir(), "token")
	if err := errors.Join(os.WriteFile(open, []byte("a-token-of-some-length\n"), 0o600), os.Chmod(open, 0o644)); err != nil {
		t.Fatal(err)
	}
	for want, env := range map[string][]string{
		"name its file in MAYFLY_TOKEN_FILE": {"MAYFLY_LISTEN=127.0.0.1:0"},
		"chmod 600":                          {"MAYFLY_LISTEN=127.0.0.1:0", "MAYFLY_TOKEN_FILE=" + open},
		"MAYFLY_LISTEN, which is not set":    {"MAYFLY_TOKEN_FILE=" + open},
	} {
		h := newHost(t, env...)
		out, errs, code := h.mayfly("", "run")
		if code != 1 || out != "" || !strings.Contains(errs, want) {
			t.Errorf("%q: exit code %d: %s%s", env, code, out, errs)
		}
	}
}
