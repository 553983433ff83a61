package integration

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mayfly/mayfly/integration/broker"
	"github.com/mayfly/mayfly/queue"
)

// userOf makes a user of a broker with rights in the virtual host of a URL, and returns the URL by which it logs in.
func userOf(t *testing.T, b *broker.Broker, url, password, configure, write, read string) string {
	t.Helper()
	vhost := broker.VhostName(url)
	user := "user-" + vhost
	_, err := b.Eval(fmt.Sprintf(`catch rabbit_auth_backend_internal:delete_user(<<"%[1]s">>, <<"test">>),
		rabbit_auth_backend_internal:add_user(<<"%[1]s">>, <<"%[2]s">>, <<"test">>),
		rabbit_auth_backend_internal:set_permissions(<<"%[1]s">>, <<"%[3]s">>, <<"%[4]s">>, <<"%[5]s">>, <<"%[6]s">>, <<"test">>).`,
		user, password, vhost, configure, write, read))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Replace(url, "guest:guest", user+":"+password, 1)
}

// TestSecrets looks for secrets where they must not be: the broker's password, a token and values of environment in logs, in the arguments and
// environments of processes, in what the API and the commands say, in results, metrics and what is remembered.
func TestSecrets(t *testing.T) {
	t.Parallel()
	const password, token, value = "Pa55word-of-the-broker", "Token-of-the-api-0123456789", "7777000077770000"
	b := broker.Shared(t, broker.V43)
	url := b.Vhost(t)
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	h := newHost(t, "MAYFLY_AMQP_URL_FILE="+file("url", userOf(t, b, url, password, ".*", ".*", ".*")), "MAYFLY_LISTEN=127.0.0.1:0", "MAYFLY_TOKEN_FILE="+file("token", token))
	h.start()
	p := newProducer(t, url)
	gate := filepath.Join(h.shared, "gate")
	environment := `"environment": {"SECRET": "` + value + `"}, `
	p.publish("default", `{"id": "runs", `+environment+`"shell": "test -n \"$SECRET\" || exit 1; while ! test -e `+gate+`; do sleep 0.02; done"}`)
	p.publish("default", `{"id": "fails", `+environment+`"command": ["false"]}`)
	p.publish("default", `{"id": "no-program", `+environment+`"command": ["no-such-program"]}`)
	p.publish("default", `{"id": "refused", "environment": {"SECRET": `+value+`}, "command": ["true"]}`)
	p.publish("default", `{"id": "spoilt", `+environment+`"command": ["true"]`)
	p.publish("default", `{"id": "unknown", `+environment+`"command": ["true"], "x": 1}`)
	results := fmt.Sprint(p.wait("fails"), p.wait("no-program"), p.wait("refused"), p.wait("spoilt"), p.wait("unknown"))
	h.until("it runs", func() bool { return h.running() == 1 })

	said := map[string][]byte{"results": []byte(results)}
	manager := h.cmd.Process.Pid
	for pid, args := range h.processes() {
		if env, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid)); bytes.Contains(env, []byte("\x00MAYFLY_TASK_ID=runs\x00")) {
			continue // the worker, whose variable it is
		}
		for _, name := range []string{"cmdline", "environ"} {
			said[fmt.Sprintf("%s of %s", name, args)], _ = os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, name))
		}
	}
	for _, name := range []string{"cmdline", "environ"} {
		said[name+" of the manager"], _ = os.ReadFile(fmt.Sprintf("/proc/%d/%s", manager, name))
	}
	if len(said["environ of the manager"]) == 0 {
		t.Fatal("no environment could be read")
	}
	for _, path := range []string{"/v1/tasks?ended=100", "/v1/tasks?limit=100", "/v1/tasks/runs", "/v1/tasks/fails", "/v1/tasks/spoilt", "/v1/tasks/runs/explain", "/v1/info", "/v1/hosts",
		"/v1/dead", "/v1/dead/fails", "/v1/dead/spoilt", "/v1/dead/refused", "/v1/counts", "/v1/demand", "/v1/series", "/metrics", "/v1/openapi.json"} {
		reply, body := h.ask(request{path: path})
		if reply.StatusCode != 200 {
			t.Errorf("%s: %d: %s", path, reply.StatusCode, body)
		}
		said[path] = body
	}
	for _, args := range []string{"ps -n 100", "show runs", "show fails", "show refused", "dead list", "dead show fails", "dead show refused", "dead show spoilt", "info", "check", "check --json", "run --help", "demand --broker"} {
		out, errs, _ := h.mayfly("", strings.Fields(args)...)
		said["mayfly "+args] = []byte(out + errs)
	}
	if !strings.Contains(string(said["mayfly dead show fails"]), `"SECRET": "(hidden)"`) || !strings.Contains(string(said["mayfly dead show refused"]), "environment.SECRET: must be a string") {
		t.Errorf("dead letters show\n%s\n%s", said["mayfly dead show fails"], said["mayfly dead show refused"])
	}
	// Put back, it has its value again.
	h.expect(0, "", "", "dead", "requeue", "fails")
	if err := os.WriteFile(gate, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if r := p.wait("runs"); r.State != queue.Succeeded {
		t.Errorf("runs: %+v", r)
	}
	for _, name := range []string{"history.db", "keeper.log"} {
		said[name], _ = os.ReadFile(filepath.Join(h.dir, "state", name))
	}
	h.stop()
	said["the log"] = []byte(h.logged())
	for where, text := range said {
		for _, secret := range []string{password, token, value} {
			if bytes.Contains(text, []byte(secret)) {
				t.Errorf("%s holds %s:\n%s", where, secret, tail(string(text), 2000))
			}
		}
	}
	h2 := newHost(t, "MAYFLY_AMQP_URL=amqp://user:"+password+"%@127.0.0.1:1/")
	if _, errs, code := h2.mayfly("", "run"); code != 1 || strings.Contains(errs, password) {
		t.Errorf("a URL that is none: code %d, %s", code, errs)
	}
}
