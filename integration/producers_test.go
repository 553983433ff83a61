package integration

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/santhosh-tekuri/jsonschema/v6"

	mayfly "github.com/mayfly/mayfly/clients/go"
	"github.com/mayfly/mayfly/integration/broker"
	"github.com/mayfly/mayfly/integration/need"
)

// producers are the examples in clients/: how each is run as it stands there, and what it needs.
var producers = []struct {
	name    string
	command func(t *testing.T) []string
}{
	{"python", func(*testing.T) []string {
		// The distribution's Python, which has the distribution's pika.
		return []string{"/usr/bin/python3", "../clients/python/submit.py"}
	}},
	{"node", func(t *testing.T) []string {
		need.Command(t, "node")
		modules := filepath.Join(need.Cache(), "node", "node_modules")
		if _, err := os.Stat(modules); err != nil {
			need.Missing(t, "the modules of clients/node are not there: run integration/setup.sh")
		}
		dir := t.TempDir() // Node looks for modules beside the script
		for _, name := range []string{"submit.js", "package.json"} {
			text, err := os.ReadFile(filepath.Join("../clients/node", name))
			if err == nil {
				err = os.WriteFile(filepath.Join(dir, name), text, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Symlink(modules, filepath.Join(dir, "node_modules")); err != nil {
			t.Fatal(err)
		}
		return []string{"node", filepath.Join(dir, "submit.js")}
	}},
	{"shell", func(t *testing.T) []string {
		need.Command(t, "amqp-publish")
		need.Command(t, "jq")
		return []string{"../clients/shell/submit.sh"}
	}},
	{"java", func(t *testing.T) []string {
		need.Command(t, "javac")
		var jars []string
		for _, name := range []string{"amqp-client.jar", "slf4j-api.jar", "gson.jar"} {
			path := filepath.Join("/usr/share/java", name)
			if _, err := os.Stat(path); err != nil {
				need.Missing(t, "%s is not there: run integration/setup.sh", path)
			}
			jars = append(jars, path)
		}
		return []string{"java", "-cp", strings.Join(jars, ":"), "../clients/java/Submit.java"}
	}},
	{"go", func(t *testing.T) []string {
		path := filepath.Join(t.TempDir(), "example")
		if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", path, "../clients/go/example").CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return []string{path}
	}},
}

// TestProducers runs the examples against a real manager: each submits a task, waits for its result, cancels another one, and
// leaves nothing behind. Their user has the rights that docs/producers.md names, and no others.
func TestProducers(t *testing.T) {
	t.Parallel()
	b := broker.Shared(t, broker.V43)
	url := b.Vhost(t)
	h := newHost(t, "MAYFLY_AMQP_URL="+url)
	h.start()
	h.connected()
	results := collectResults(t, url)
	const queues = `^(my-app|my-script)[.]replies[.]|^mayfly[.]reply[.]`
	if _, err := b.Eval(fmt.Sprintf(`rabbit_auth_backend_internal:add_user(<<"producer">>, <<"producer">>, <<"test">>),
		rabbit_auth_backend_internal:set_permissions(<<"producer">>, <<"%s">>, <<"%s">>, <<"^mayfly[.](tasks|control)$">>, <<"%s">>, <<"test">>).`,
		broker.VhostName(url), queues, queues)); err != nil {
		t.Fatal(err)
	}
	least := strings.Replace(url, "guest:guest", "producer:producer", 1)
	for _, c := range producers {
		t.Run(c.name, func(t *testing.T) {
			args := c.command(t)
			ctx, cancel := context.WithTimeout(t.Context(), patienceLimit)
			defer cancel()
			cmd := exec.CommandContext(ctx, args[0], args[1:]...)
			cmd.Env = append(os.Environ(), "AMQP_URL="+least)
			cmd.WaitDelay = time.Second // the shell's children may hold its output
			var stdout, stderr bytes.Buffer
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			if err := cmd.Run(); err != nil {
				t.Fatalf("%v\n%s%s", err, stdout.String(), stderr.String())
			}
			if want := "succeeded 0\nhello from " + c.name + "\ncancelled\n"; stdout.String() != want {
				t.Errorf("it said %q, want %q\n%s", stdout.String(), want, stderr.String())
			}
			need.Exercised(t, "a producer in "+c.name)
		})
	}
	h.until("all is idle", func() bool { return len(h.tasks()) == 0 })
	p := newProducer(t, url)
	for _, queue := range []string{"pool.default.high", "pool.default.normal", "pool.default.low", "dead"} {
		h.until("the queues are empty", func() bool { return p.depth("mayfly."+queue) == 0 })
	}
	if left, err := b.Eval(fmt.Sprintf(`[binary_to_list(element(4, Q)) || Q <- rabbit_amqqueue:list_names(<<"%s">>)].`, broker.VhostName(url))); err != nil ||
		!strings.Contains(left, `"mayfly.dead"`) || strings.Contains(left, ".repl") {
		t.Errorf("queues left: %s, %v", left, err)
	}
	results.check(t)
}

// TestProducersDocumented holds the code in the documentation to the examples, which are run.
func TestProducersDocumented(t *testing.T) {
	t.Parallel()
	read := func(path string) []string {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Split(string(text), "\n")
	}
	examples := map[string][]string{
		"python": read("../clients/python/submit.py"), "js": read("../clients/node/submit.js"), "sh": append(read("../clients/shell/submit.sh"), read("../clients/shell/sign.sh")...),
		"java": read("../clients/java/Submit.java"), "go": read("../clients/go/example/main.go"),
	}
	blocks := 0
	var block []string
	language, inside := "", false
	for _, line := range read("../docs/producers.md") {
		mark, fence := strings.CutPrefix(line, "```")
		switch {
		case fence && !inside:
			language, inside, block = mark, true, nil
		case fence:
			inside = false
			blocks++
			if !strings.Contains("\n"+strings.Join(examples[language], "\n")+"\n", "\n"+strings.Join(block, "\n")+"\n") {
				t.Errorf("this is not in the example for %q:\n%s", language, strings.Join(block, "\n"))
			}
		case inside:
			block = append(block, line)
		}
	}
	if blocks < 8 || inside {
		t.Errorf("%d blocks of code", blocks)
	}
}

// connected waits until the host's manager has made its queues.
func (h *host) connected() {
	h.tb.Helper()
	h.until("the manager is connected", func() bool {
		info, err := h.info()
		return err == nil && strings.HasSuffix(info.Queue, ", connected")
	})
}

// collected are the results of a virtual host as they were published.
type collected struct {
	mu     sync.Mutex
	bodies []string
}

func collectResults(t *testing.T, url string) *collected {
	t.Helper()
	c := &collected{}
	conn, err := amqp.Dial(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	q, err := ch.QueueDeclare("", false, false, true, false, nil)
	if err == nil {
		err = ch.QueueBind(q.Name, "#", "mayfly.results", false, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	in, err := ch.Consume(q.Name, "", true, true, false, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for d := range in {
			c.mu.Lock()
			c.bodies = append(c.bodies, string(d.Body))
			c.mu.Unlock()
		}
	}()
	return c
}

// check holds all results to the schema.
func (c *collected) check(t *testing.T) {
	t.Helper()
	compiler := jsonschema.NewCompiler()
	compiler.AssertFormat()
	schema, err := compiler.Compile("../docs/schema/result.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.bodies) == 0 {
		t.Error("no result came")
	}
	for _, body := range c.bodies {
		v, err := jsonschema.UnmarshalJSON(strings.NewReader(body))
		if err == nil {
			err = schema.Validate(v)
		}
		if err != nil {
			t.Errorf("%s: %v", body, err)
		}
	}
}

// TestGoClient has tasks end in every way that a host without GPUs can bring about.
func TestGoClient(t *testing.T) {
	t.Parallel()
	url := broker.Shared(t, broker.V43).Vhost(t)
	h := newHost(t, "MAYFLY_AMQP_URL="+url)
	h.start()
	h.connected()
	results := collectResults(t, url)
	ctx, cancel := context.WithTimeout(t.Context(), patienceLimit)
	defer cancel()
	client, err := mayfly.Dial(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	submit := func(task mayfly.Task) *mayfly.Handle {
		t.Helper()
		handle, err := client.Submit(ctx, task)
		if err != nil {
			t.Fatal(err)
		}
		return handle
	}
	wait := func(handle *mayfly.Handle) mayfly.Result {
		t.Helper()
		r, err := handle.Wait(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	for _, c := range []struct {
		task  mayfly.Task
		state mayfly.State
		cause mayfly.Cause
	}{
		{mayfly.Task{Shell: "cat > $MAYFLY_RESULT", Params: map[string]int{"answer": 42}, Labels: map[string]string{"a": "b"}}, mayfly.Succeeded, mayfly.CauseNone},
		{mayfly.Task{Shell: "exit 7", MaxAttempts: 2, Backoff: new(time.Duration(0))}, mayfly.Failed, mayfly.CauseExit},
		{mayfly.Task{Shell: "kill -KILL $$", Name: "näme", Priority: new(9)}, mayfly.Failed, mayfly.CauseSignal},
		{mayfly.Task{Shell: "sleep 600", Timeout: 200 * time.Millisecond, Grace: new(time.Duration(0))}, mayfly.Failed, mayfly.CauseTimeout},
		{mayfly.Task{Command: []string{"/nonexistent"}, Priority: new(0)}, mayfly.Failed, mayfly.CauseStartError},
		{mayfly.Task{Shell: "true", Deadline: time.Now().Add(-time.Hour)}, mayfly.Failed, mayfly.CauseDeadline},
		{mayfly.Task{Shell: "true", Command: []string{"true"}}, mayfly.Rejected, mayfly.CauseRejected},
	} {
		if r := wait(submit(c.task)); r.State != c.state || r.Cause != c.cause {
			t.Errorf("%+v ended as %+v", c.task, r)
		} else if c.state == mayfly.Succeeded && strings.TrimSpace(string(r.Result)) != `{"answer":42}` {
			t.Errorf("its result is %s", r.Result)
		}
	}
	// One is cancelled while it runs, one while it waits on the host.
	running := submit(mayfly.Task{Shell: "sleep 600", Resources: mayfly.Resources{CPU: 4}})
	h.until("it runs", func() bool { return h.running() == 1 })
	waiting := submit(mayfly.Task{Shell: "true", Resources: mayfly.Resources{CPU: 4}})
	for _, handle := range []*mayfly.Handle{waiting, running} {
		if err := handle.Cancel(ctx); err != nil {
			t.Fatal(err)
		}
		if r := wait(handle); r.State != mayfly.Cancelled || r.ID != handle.ID {
			t.Errorf("the cancelled task ended as %+v", r)
		}
	}
	h.until("all is idle", func() bool { return len(h.tasks()) == 0 })
	results.check(t)
}

// TestCancelledBeforeItCame has a cancellation that hosts remember: it is for tasks that are older, which their timestamp says, and for
// those that say nothing, or what cannot be.
func TestCancelledBeforeItCame(t *testing.T) {
	t.Parallel()
	url := broker.Shared(t, broker.V43).Vhost(t)
	h := newHost(t, "MAYFLY_AMQP_URL="+url)
	h.start()
	h.connected()
	p := newProducer(t, url)
	for id, c := range map[string]struct {
		timestamp time.Time
		want      mayfly.State
	}{
		"old": {time.Now(), mayfly.Cancelled}, "new": {time.Now().Add(3 * time.Second), mayfly.Succeeded}, "timeless": {time.Time{}, mayfly.Cancelled},
		"impossible": {time.Now().Add(time.Hour), mayfly.Cancelled}, // milliseconds, say: it says nothing
	} {
		h.expect(0, "all hosts were told", "", "cancel", id)
		p.publishWith("default", amqp.Publishing{Timestamp: c.timestamp, Body: fmt.Appendf(nil, `{"id": %q, "command": ["true"]}`, id)})
		if r := p.wait(id); string(r.State) != string(c.want) {
			t.Errorf("the %s task ended as %+v, want %s", id, r, c.want)
		}
	}
}

// TestGoClientOutlivesTheBroker restarts the broker while a task runs that a client waits for.
func TestGoClientOutlivesTheBroker(t *testing.T) {
	t.Parallel()
	b := broker.Start(t, broker.V43)
	h := newHost(t, "MAYFLY_AMQP_URL="+b.URL())
	h.start()
	h.connected()
	ctx, cancel := context.WithTimeout(t.Context(), 2*patienceLimit)
	defer cancel()
	client, err := mayfly.Dial(ctx, b.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	release := filepath.Join(h.marks(), "go")
	handle, err := client.Submit(ctx, mayfly.Task{Shell: fmt.Sprintf("while ! test -e %s; do sleep 0.05; done; echo done", release)})
	if err != nil {
		t.Fatal(err)
	}
	h.until("it runs", func() bool { return h.running() == 1 })
	if err := b.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(release, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	h.until("it has ended", func() bool { return h.running() == 0 })
	if err := b.Start(); err != nil {
		t.Fatal(err)
	}
	if r, err := handle.Wait(ctx); err != nil || r.State != mayfly.Succeeded || r.StdoutTail != "done\n" || r.Attempt != 1 {
		t.Errorf("result %+v, %v", r, err)
	}
}
