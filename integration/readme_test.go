package integration

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/mayfly/mayfly/integration/broker"
	"github.com/mayfly/mayfly/integration/need"
	"github.com/mayfly/mayfly/queue"
)

// TestReadme does what the README tells people to do once a manager runs.
func TestReadme(t *testing.T) {
	t.Parallel()
	need.Command(t, "amqp-publish")
	url := broker.Shared(t, broker.V40).Vhost(t)
	h := newHost(t, "MAYFLY_AMQP_URL="+url, "MAYFLY_CPUS=4")
	h.start()
	h.connected()
	p := newProducer(t, url)
	const readme = "../README.md"

	dir := t.TempDir()
	err := os.Symlink(binary, filepath.Join(dir, "mayfly"))
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "tasks.jsonl"), []byte(`{"id": "one", "shell": "true"}`+"\n"+`{"id": "two", "shell": "true"}`+"\n"), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	shell := adapted(t, commandsIn(t, readme, "(`./mayfly` where it was built by hand):"), "make -j2 && ./simulate", "echo 7", "mayfly submit --cpu 2", "mayfly submit --id job --cpu 2",
		" ID", " job")
	cmd := exec.CommandContext(t.Context(), "sh", "-c", shell)
	cmd.Dir, cmd.Env = dir, append(h.environ(), "PATH="+dir+":"+os.Getenv("PATH"))
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		t.Errorf("%v\n%s%s", err, &out, &said)
	}
	for _, want := range []string{"(?m)^42$", "(?m)^job$", "(?m)^ID +NAME +STATUS ", "(?m)^id +job$", "(?m)^job: nothing to cancel: it has ended", "(?m)^KEY +POOL "} {
		if !regexp.MustCompile(want).MatchString(out.String()) {
			t.Errorf("it does not say %q:\n%s", want, &out)
		}
	}
	if !strings.Contains(said.String(), "2 tasks: 2 succeeded") {
		t.Errorf("it says on standard error:\n%s", &said)
	}
	if r := p.wait("job"); string(r.Result) != "7" {
		t.Errorf("the job's result is %s", r.Result)
	}

	sh(t, adapted(t, commandsIn(t, readme, "publish to the exchange `mayfly.tasks` with the pool as routing key."), "amqp://guest:guest@localhost", url))
	if r := p.wait("job_456"); r.Cause != queue.CauseNone || r.StdoutTail != "hello\n" {
		t.Errorf("%+v", r)
	}

	block := regexp.MustCompile("(?s)\n```python\n(.*?)```").FindStringSubmatch(read(t, ".", readme))
	if block == nil {
		t.Fatal("there is no Python in the README")
	}
	python := exec.CommandContext(t.Context(), "/usr/bin/python3", "-c", adapted(t, block[1], "amqp://guest:guest@localhost", url)) // the distribution's, which has its pika
	python.Stderr = t.Output()
	if answer, err := python.Output(); err != nil || !strings.HasPrefix(string(answer), "42\n") {
		t.Errorf("%s, %v", answer, err)
	}
}
