package container_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/mayfly/mayfly/integration/docker"
	"github.com/mayfly/mayfly/isolation"
)

// hook stands in for the one of the vendor, which Docker calls when a container is to have devices. It knows all but one of them.
const hook = `#!/bin/sh
state=$(cat)
bundle=${state#*\"bundle\":\"}
echo called >>"$(dirname "$0")/calls"
grep -q GPU-none "${bundle%%\"*}/config.json" || exit 0
echo "nvidia-container-cli: device error: GPU-none: unknown device" >&2
exit 1
`

const hookName = "nvidia-container-runtime-hook"

// hookDir makes a directory with commands of the vendor: the hook, and a runtime that says when it is used.
func hookDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{hookName: hook, "giving-runtime": "#!/bin/sh\ncase \"$*\" in *create*) echo used >>\"$(dirname \"$0\")/uses\" ;; esac\nexec runc \"$@\"\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// gpus are the names of devices.
func gpus(ids ...string) func(*isolation.Spec) {
	return func(s *isolation.Spec) {
		for _, id := range ids {
			s.CDI = append(s.CDI, "nvidia.com/gpu="+id)
		}
	}
}

// noDevices asks an engine for devices that knows no way to give them.
func (b *bench) noDevices(t *testing.T) {
	if _, err := exec.LookPath(hookName); err == nil {
		t.Skip("this host's engine can give devices")
	}
	const cannot, remedy, no = "cannot give the container its devices ", ": install nvidia-container-toolkit and restart Docker (CDI said: ", "this engine does not have it, or has it switched off"
	const runtime = `the runtime said: could not select device driver "nvidia" with capabilities: [[gpu]])`
	for device, want := range map[string][]string{ // of engines without CDI and with it
		"nvidia.com/gpu=GPU-1": {": Docker has neither CDI nor the nvidia runtime" + remedy + no + "; " + runtime,
			": Docker finds them neither by CDI nor by the nvidia runtime" + remedy + "CDI device injection failed: unresolvable CDI devices nvidia.com/gpu=GPU-1; " + runtime},
		"vendor.com/class=1": {": Docker has no CDI: it takes version 25 or later, with the feature cdi switched on (CDI said: " + no + ")",
			" (CDI said: CDI device injection failed: unresolvable CDI devices vendor.com/class=1)"},
	} {
		s := b.spec("no-devices-"+filepath.Base(device), "true")
		s.CDI = []string{device}
		if e, err := b.Run(t.Context(), s, nil); err == nil || !slices.Contains(want, strings.TrimPrefix(err.Error(), cannot+device)) {
			t.Errorf("%s: %v, %+v", device, err, e)
		}
	}
	if e := b.run(b.spec("after-no-devices", "exit 3")); e.Code != 3 {
		t.Errorf("after that: %+v", e)
	}
	b.nothingLeft()
}

// TestDevices gives containers devices in the way that engines had before CDI.
func TestDevices(t *testing.T) {
	t.Parallel()
	dir := hookDir(t)
	b := newBench(t, docker.Path(dir), docker.Args("--add-runtime", "nvidia="+filepath.Join(dir, "giving-runtime"), "--default-runtime", "nvidia"))
	lines := func(name string) int {
		text, _ := os.ReadFile(filepath.Join(dir, name))
		return bytes.Count(text, []byte("\n"))
	}
	const look = "env | grep NVIDIA"
	none := b.spec("none", look+" || echo none")
	if b.run(none); b.read("none", "out") != "none\n" || lines("calls") > 0 {
		t.Errorf("without devices: %q, the hook was called %d times", b.read("none", "out"), lines("calls"))
	}
	two := b.spec("two", look)
	gpus("GPU-1", "GPU-2")(&two)
	two.Env = append(two.Env, "NVIDIA_VISIBLE_DEVICES=all") // which is not the program's to say
	e := b.run(two)
	if out := strings.Split(strings.TrimSpace(b.read("two", "out")), "\n"); out[len(out)-1] != "NVIDIA_VISIBLE_DEVICES=GPU-1,GPU-2" || lines("calls") != 1 {
		t.Errorf("two devices: %q, the hook was called %d times (%+v)", out, lines("calls"), e)
	}
	if lines("uses") > 0 {
		t.Error("a runtime was used that gives devices to who names them")
	}
	s := b.spec("unknown", look)
	gpus("GPU-none")(&s)
	if e, err := b.Run(t.Context(), s, nil); err == nil || !strings.HasPrefix(err.Error(), "cannot give the container its devices nvidia.com/gpu=GPU-none (CDI said: ") ||
		!strings.Contains(err.Error(), "GPU-none: unknown device") {
		t.Errorf("an unknown device: %v, %+v", err, e)
	}
	s = b.spec("fault", "")
	s.Args = []string{"/bin/nothing"}
	gpus("GPU-1")(&s)
	if e := b.run(s); !strings.Contains(strings.ToLower(e.StartError), "no such file") {
		t.Errorf("no such command: %+v", e)
	}
	b.nothingLeft()
}

// TestOwnCDI gives containers devices by the interface of an engine that has it.
func TestOwnCDI(t *testing.T) {
	t.Parallel()
	if help, err := exec.CommandContext(t.Context(), "dockerd", "--help").Output(); err != nil || !bytes.Contains(help, []byte("--cdi-spec-dir")) {
		t.Skip("the engine that is installed here is older than the interface")
	}
	dir := t.TempDir()
	const known = `{"cdiVersion": "0.6.0", "kind": "nvidia.com/gpu", "devices": [
		{"name": "GPU-1", "containerEdits": {"env": ["CDI=1"], "deviceNodes": [{"path": "/dev/mayfly0", "hostPath": "/dev/full"}]}},
		{"name": "GPU-broken", "containerEdits": {"hooks": [{"hookName": "createRuntime", "path": "/bin/false"}]}}]}`
	if err := os.WriteFile(filepath.Join(dir, "nvidia.json"), []byte(known), 0o644); err != nil {
		t.Fatal(err)
	}
	b := newBench(t, docker.Path(hookDir(t)), docker.Args("--feature", "cdi=true", "--cdi-spec-dir", dir))
	for _, c := range []struct{ id, out string }{
		{"GPU-1", "1 /dev/mayfly0\n"},
		{"GPU-broken", "GPU-broken\n"}, // by the hook
		{"GPU-2", "GPU-2\n"},
	} {
		b.again()
		s := b.spec(c.id, "echo $CDI $NVIDIA_VISIBLE_DEVICES $(ls -d /dev/mayfly* 2>/dev/null)")
		gpus(c.id)(&s)
		if e := b.run(s); b.read(c.id, "out") != c.out {
			t.Errorf("%s: %q, want %q (%+v)", c.id, b.read(c.id, "out"), c.out, e)
		}
	}
	s := b.spec("neither", "true")
	gpus("GPU-none")(&s)
	if e, err := b.Run(t.Context(), s, nil); err == nil || !strings.Contains(err.Error(), "unresolvable CDI devices nvidia.com/gpu=GPU-none") || !strings.Contains(err.Error(), "GPU-none: unknown device") {
		t.Errorf("neither way: %v, %+v", err, e)
	}
	b.nothingLeft()
}

// TestCDI gives containers devices by the interface, and in the other way where that fails. The engine that is installed here is older
// than the interface, so a proxy before it does that part.
func TestCDI(t *testing.T) {
	t.Parallel()
	b := newBench(t, docker.Path(hookDir(t)))
	p := startProxy(t, b)
	b.config.Host = p.host
	b.again()
	const look = "echo $CDI $NVIDIA_VISIBLE_DEVICES; cat"
	ask := func(id string, devices ...string) (asked string) {
		s := b.spec(id, look)
		s.CDI = devices
		s.Stdin = filepath.Join(b.dir, id, "in")
		err := os.MkdirAll(filepath.Dir(s.Stdin), 0o700)
		if err == nil {
			err = os.WriteFile(s.Stdin, []byte("input\n"), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		p.take()
		if e := b.run(s); e.Code != 0 || e.StartError != "" {
			t.Errorf("%s: %+v", id, e)
		}
		return p.take()
	}
	for _, c := range []struct{ id, devices, asked, out string }{
		{"none", "", "-", "\ninput\n"},
		{"known", "nvidia.com/gpu=0 nvidia.com/gpu=1", "cdi", "nvidia.com/gpu=0,nvidia.com/gpu=1\ninput\n"},
		{"other-vendor", "vendor.com/class=1", "cdi", "vendor.com/class=1\ninput\n"},
		{"unknown", "nvidia.com/gpu=unknown", "cdi nvidia", "unknown\ninput\n"},
		{"then", "nvidia.com/gpu=0", "nvidia", "0\ninput\n"},
		{"other-vendor-then", "vendor.com/class=1", "cdi", "vendor.com/class=1\ninput\n"},
		{"back", "nvidia.com/gpu=GPU-none", "cdi", "nvidia.com/gpu=GPU-none\ninput\n"},
	} {
		if asked, out := ask(c.id, strings.Fields(c.devices)...), b.read(c.id, "out"); asked != c.asked || out != c.out {
			t.Errorf("%s: asked for %s, got %q, want %s, %q (%s)", c.id, asked, out, c.asked, c.out, b.read(c.id, "err"))
		}
	}
	for id, c := range map[string]struct{ device, want string }{
		"neither": {"nvidia.com/gpu=GPU-none-unknown", "cannot give the container its devices nvidia.com/gpu=GPU-none-unknown (CDI said: CDI device injection failed: unresolvable CDI devices " +
			"nvidia.com/gpu=GPU-none-unknown; the runtime said: "},
		"no-other-way": {"vendor.com/class=unknown", "cannot give the container its devices vendor.com/class=unknown (CDI said: CDI device injection failed: unresolvable CDI devices vendor.com/class=unknown)"},
	} {
		s := b.spec(id, look)
		s.CDI = []string{c.device}
		if e, err := b.Run(t.Context(), s, nil); err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%s: %v, %+v", id, err, e)
		}
	}
	b.nothingLeft()
}

// proxy is an engine that has CDI, of which it knows all devices but those with unknown in their names. A container has the names of its
// own in the variable CDI.
type proxy struct {
	host string

	mu      sync.Mutex
	asked   []string            // the drivers of each container that was made
	devices map[string][]string // by container
}

// take returns the drivers of the containers that were made since it was called before.
func (p *proxy) take() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	text := strings.Join(p.asked, " ")
	p.asked = nil
	return text
}

func startProxy(t *testing.T, b *bench) *proxy {
	t.Helper()
	path := filepath.Join(b.dir, "proxy.sock")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{host: "unix://" + path, devices: map[string][]string{}}
	forward := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: "docker"})
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", strings.TrimPrefix(b.docker.Host, "unix://"))
	}}
	forward.Transport, forward.FlushInterval = transport, -1
	forward.ErrorHandler = func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) }
	forward.ModifyResponse = func(r *http.Response) error {
		switch path := r.Request.URL.Path; {
		case strings.HasSuffix(path, "/info"):
			return edit(&r.Body, &r.ContentLength, r.Header, func(info map[string]any) { info["CDISpecDirs"] = []string{"/etc/cdi"} })
		case strings.HasSuffix(path, "/containers/create") && r.StatusCode == http.StatusCreated:
			return edit(&r.Body, &r.ContentLength, r.Header, func(made map[string]any) {
				p.mu.Lock()
				defer p.mu.Unlock()
				p.devices[made["Id"].(string)] = p.devices[""]
			})
		}
		return nil
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/containers/create") {
			if err := edit(&r.Body, &r.ContentLength, r.Header, p.create); err != nil {
				t.Error(err)
			}
		}
		if id, ok := strings.CutSuffix(r.URL.Path, "/start"); ok {
			p.mu.Lock()
			devices := p.devices[filepath.Base(id)]
			p.mu.Unlock()
			if i := slices.IndexFunc(devices, func(d string) bool { return strings.Contains(d, "unknown") }); i >= 0 {
				w.Header().Set("Content-Type", "application/json")
				w.WriteHeader(http.StatusInternalServerError)
				_, _ = io.WriteString(w, `{"message":"CDI device injection failed: unresolvable CDI devices `+devices[i]+`"}`)
				return
			}
		}
		forward.ServeHTTP(w, r)
	})}
	go func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	}()
	t.Cleanup(func() { server.Close(); transport.CloseIdleConnections() })
	return p
}

// create notes the devices that a container is to have by the interface, and has the engine not see them.
func (p *proxy) create(config map[string]any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.devices[""] = nil
	host := config["HostConfig"].(map[string]any)
	requests, _ := host["DeviceRequests"].([]any)
	if len(requests) == 0 {
		p.asked = append(p.asked, "-")
		return
	}
	for _, q := range requests {
		request := q.(map[string]any)
		p.asked = append(p.asked, request["Driver"].(string))
		if request["Driver"] == "cdi" {
			for _, d := range request["DeviceIDs"].([]any) {
				p.devices[""] = append(p.devices[""], d.(string))
			}
			config["Env"] = append(config["Env"].([]any), "CDI="+strings.Join(p.devices[""], ","))
			delete(host, "DeviceRequests")
		}
	}
}

// edit changes the JSON of a message.
func edit(body *io.ReadCloser, length *int64, header http.Header, change func(map[string]any)) error {
	var message map[string]any
	if err := json.NewDecoder(*body).Decode(&message); err != nil {
		return err
	}
	(*body).Close()
	change(message)
	text, err := json.Marshal(message)
	if err != nil {
		return err
	}
	*body, *length = io.NopCloser(bytes.NewReader(text)), int64(len(text))
	header.Set("Content-Length", strconv.Itoa(len(text)))
	return nil
}
