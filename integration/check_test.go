package integration

import (
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/mayfly/mayfly/integration/broker"
)

// found is a line of the host's self-check.
type found struct {
	What, Detail, Remedy string
	OK                   bool
}

// checked runs the self-check, and returns what it found and its exit code.
func (h *host) checked(uid uint32, argv ...string) (list []found, code int) {
	h.tb.Helper()
	argv = append(argv, binary, "check", "--json")
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(h.environ(), "HOME="+h.dir)
	cmd.Dir = "/"
	if uid != 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	}
	out, _ := cmd.Output()
	if err := json.Unmarshal(out, &list); err != nil {
		h.tb.Fatalf("%v: %s", err, out)
	}
	return list, cmd.ProcessState.ExitCode()
}

// expectWrong has the check find something wrong, say how it is mended, and exit with 1.
func (h *host) expectWrong(list []found, code int, what, detail, remedy string) {
	h.tb.Helper()
	i := slices.IndexFunc(list, func(f found) bool { return !f.OK && f.What == what && strings.Contains(f.Detail, detail) })
	if i < 0 || code != 1 || !strings.Contains(list[i].Remedy, remedy) || remedy == "" {
		h.tb.Errorf("exit code %d, want %s: %s (%s) among %+v", code, what, detail, remedy, list)
	}
}

// TestCheck provokes what can be wrong with a host.
func TestCheck(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	open := filepath.Join(dir, "open")
	if err := os.Mkdir(open, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(open, 0o777); err != nil {
		t.Fatal(err)
	}
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := closed.Addr().String()
	closed.Close()
	for _, tt := range []struct{ env, what, detail, remedy string }{
		{"MAYFLY_CPUS=many", "configuration", "MAYFLY_CPUS", "run --help"},
		{"MAYFLY_STATE_DIR=" + open, "state directory", "others may write", "MAYFLY_STATE_DIR"},
		{"MAYFLY_STATE_DIR=/dev/shm/mayfly-check", "state directory", "lies in memory", "MAYFLY_STATE_DIR"},
		{"MAYFLY_MEMORY=1EiB", "configuration", "MAYFLY_MEMORY", "run --help"},
		{"MAYFLY_RESERVED_DISK=900PB", "disk", "no free space", "MAYFLY_RESERVED_DISK"},
		{"MAYFLY_TYPES_DIR=" + filepath.Dir(write("types/a.yaml", "comand: [x]", 0o600)), "task types", "did you mean command", "mend the file"},
		{"MAYFLY_AMQP_URL=amqp://guest:guest@" + nobody + "/", "queue", "out of reach", "rabbitmq-diagnostics"},
		{"MAYFLY_REGISTRY_AUTH=" + write("auth.json", "{}", 0o644), "secrets", "others may read", "chmod 600"},
		{"MAYFLY_CONTAINERS=on MAYFLY_DOCKER=unix:///no/docker.sock", "containers", "cannot reach Docker", "systemctl start docker"},
		{"MAYFLY_TASK_KEYS=" + dir, "signed tasks", "cannot find a key", "mend"},
		{"MAYFLY_LISTEN=:7070 MAYFLY_TOKEN_FILE=" + write("token", "short", 0o600), "API by TCP", "a token is a line of at least 16", "mend"},
		{"OTEL_EXPORTER_OTLP_ENDPOINT=collector:4318", "traces", "OTEL_EXPORTER_OTLP_ENDPOINT", "mend"},
		{"MAYFLY_TASK_USER=0-100", "configuration", "MAYFLY_TASK_USER", "run --help"},
		{"MAYFLY_TASK_USER=1-100", "workers' users", "has the numbers", "70000-70999"},
	} {
		h := newHost(t, strings.Fields(tt.env)...)
		list, code := h.checked(0)
		h.expectWrong(list, code, tt.what, tt.detail, tt.remedy)
	}
	h := newHost(t)
	if list, code := h.checked(0); code != 0 || slices.ContainsFunc(list, func(f found) bool { return !f.OK }) {
		t.Errorf("a host without a fault: exit code %d, %+v", code, list)
	}
	out := h.expect(0, "control groups", "", "check")
	if strings.Contains(out, "FAIL") {
		t.Errorf("said for people: %s", out)
	}
	if os.Geteuid() != 0 {
		return
	}
	// Without control groups, and as a user with no rights.
	list, code := h.checked(0, "unshare", "--mount", "sh", "-c", `umount -R -l /sys/fs/cgroup && exec "$@"`, "without")
	h.expectWrong(list, code, "control groups", "cannot", "Delegate=yes")
	if err := os.Chmod(h.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	program := write("mayfly", "", 0o755)
	text, err := os.ReadFile(binary)
	if err == nil {
		err = os.WriteFile(program, text, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	for path := dir; path != os.TempDir(); path = filepath.Dir(path) {
		if err := os.Chmod(path, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	list, code = h.checked(65534, "sh", "-c", `shift; exec `+program+` "$@"`, "sh")
	h.expectWrong(list, code, "state directory", "cannot write", "chown 65534")
	h.expectWrong(list, code, "own user", "", "run as root")
	h.expectWrong(list, code, "control groups", "", "run as root")
	h.expectWrong(list, code, "network off", "", "run as root")
}

// TestCheckSecondNode holds that a node that is silent does not hide one that answers.
func TestCheckSecondNode(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	dead := "amqp://guest:guest@" + silent.Addr().String() + "/"
	h := newHost(t, "MAYFLY_AMQP_URL="+dead)
	list, code := h.checked(0)
	h.expectWrong(list, code, "queue", "did not answer within 5s", "MAYFLY_AMQP_URL")
	h = newHost(t, "MAYFLY_AMQP_URL="+dead+","+broker.Shared(t, broker.V310).Vhost(t))
	if list, code = h.checked(0); code != 0 {
		t.Errorf("exit code %d, %+v", code, list)
	}
}

// TestCheckBroker provokes what can be wrong with a broker and the rights on it, and holds that the documented rights suffice.
func TestCheckBroker(t *testing.T) {
	t.Parallel()
	eachVersion(t, func(t *testing.T, b *broker.Broker, url string) {
		h := newHost(t, "MAYFLY_AMQP_URL="+url)
		list, code := h.checked(0)
		if i := slices.IndexFunc(list, func(f found) bool { return f.What == "ack timeout" }); code != 0 || i < 0 || !strings.Contains(list[i].Remedy, "consumer") {
			t.Errorf("exit code %d, %+v", code, list)
		} else if r := list[i].Remedy; strings.Contains(r, "set_policy") && !strings.Contains(r, "set_policy -p "+broker.VhostName(url)+" ") {
			t.Errorf("a policy of another virtual host: %s", r)
		}
		h = newHost(t, "MAYFLY_AMQP_URL="+url, "MAYFLY_DECLARE=passive")
		list, code = h.checked(0)
		for _, name := range []string{"exchange mayfly.tasks", "exchange mayfly.wait.10s", "queue mayfly.pool.default.high"} {
			h.expectWrong(list, code, "broker's rights", name+" does not exist", "MAYFLY_DECLARE=auto")
		}
		wrong := newHost(t, "MAYFLY_AMQP_URL="+strings.Replace(url, "guest:guest", "guest:wrong", 1))
		list, code = wrong.checked(0)
		wrong.expectWrong(list, code, "queue", "cannot log in", "MAYFLY_AMQP_URL")

		declared := newHost(t, "MAYFLY_AMQP_URL="+userOf(t, b, url, "secret", "^mayfly[.]", "^(mayfly[.].*|amq[.]default)$", "^mayfly[.]"))
		if list, code := declared.checked(0); code != 0 {
			t.Errorf("the documented rights of a host: exit code %d, %+v", code, list)
		}
		declared.start()
		declared.connected()
		p := newProducer(t, url)
		p.publish("default", `{"id": "a", "shell": "exit 1", "max_attempts": 2, "backoff": "100ms"}`)
		p.wait("a")
		declared.stop()
		if err := p.ch.ExchangeDeclare("mayfly.wait.10s", "fanout", true, false, false, false, nil); err != nil { // made when it is needed
			t.Fatal(err)
		}
		passive := newHost(t, "MAYFLY_DECLARE=passive", "MAYFLY_AMQP_URL="+userOf(t, b, url, "secret", "^mayfly[.]host[.]", "^(mayfly[.].*|amq[.]default)$", "^mayfly[.]"))
		if list, code := passive.checked(0); code != 0 {
			t.Errorf("the documented rights of a passive host: exit code %d, %+v", code, list)
		}
		before := p.total
		deaf := newHost(t, "MAYFLY_AMQP_URL="+userOf(t, b, url, "secret", "^mayfly[.]", "^(mayfly[.](tasks|results|control|dead|host[.].*)|amq[.]default)$", "^mayfly[.](pool|host)[.]"))
		list, code = deaf.checked(0)
		for _, lack := range []string{"write to the exchange mayfly.events", "write to the exchange mayfly.wait.10s", "read from the queue mayfly.dead", "hear what is said to the exchange mayfly.control"} {
			deaf.expectWrong(list, code, "broker's rights", lack, "rabbitmqctl set_permissions -p "+broker.VhostName(url)+" ")
		}
		poor := newHost(t, "MAYFLY_AMQP_URL="+userOf(t, b, url, "secret", "^$", "^mayfly[.]tasks$", "^mayfly[.]pulse$"))
		list, code = poor.checked(0)
		for _, lack := range []string{"write to the exchange mayfly.results", "write to the exchange mayfly.dead", "write to the default exchange", "read from the queue mayfly.pool.default.low",
			"make and read the queues mayfly.host."} {
			poor.expectWrong(list, code, "broker's rights", lack, "rabbitmqctl set_permissions")
		}
		if slices.ContainsFunc(list, func(f found) bool { return strings.Contains(f.Detail, "mayfly.tasks") }) || p.total != before {
			t.Errorf("a right that there is, or a message that was sent: %+v", list)
		}
	})
}
