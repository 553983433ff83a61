package integration

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/mayfly/mayfly/integration/baseimage"
	"github.com/mayfly/mayfly/integration/broker"
	"github.com/mayfly/mayfly/integration/docker"
	"github.com/mayfly/mayfly/integration/need"
	"github.com/mayfly/mayfly/queue"
	"github.com/mayfly/mayfly/worker/keeper"
)

// TestImage builds the image as docs/install.md says, from bases that are made here, and runs it as it says, as the manager of this host
// beside a real broker: a process and a container get their limits, and a stop lets a running task finish.
func TestImage(t *testing.T) { //nolint:paralleltest // it builds the program
	engine := docker.Start(t)
	for _, command := range []string{"make", "git", "mount"} {
		need.Command(t, command)
	}
	// All commands are the documents': they are told what is elsewhere here.
	elsewhere := "export DOCKER_HOST=" + engine.Host + " DOCKER_BUILDKIT=0\n"
	source := buildImage(t, engine, elsewhere)
	const tag = "mayfly:local"
	t.Run("contents", func(t *testing.T) {
		if out, err := engine.Command("run", "--rm", "--network", "host", tag, "version"); err != nil || strings.TrimSpace(out) != imageVersion {
			t.Errorf("the image's version: %q, %v", out, err)
		}
		sh(t, elsewhere+`docker run --rm --network host --entrypoint cat "$1" /usr/bin/mayfly | cmp - "$2"/mayfly
			docker run --rm --network host --entrypoint cat "$1" /usr/share/doc/mayfly/copyright | grep -q '^---- github.com/docker/docker'`, tag, source)
		labels := sh(t, elsewhere+`docker inspect --format '{{json .Config.Labels}}' "$1"`, tag)
		for _, want := range []string{`"org.opencontainers.image.version":"` + imageVersion + `"`, `"org.opencontainers.image.licenses":"Apache-2.0"`} {
			if !strings.Contains(labels, want) {
				t.Errorf("it is not labelled %s: %s", want, labels)
			}
		}
	})

	t.Run("compose", func(t *testing.T) { composeUp(t, engine) })

	b := broker.Shared(t, broker.V43)
	url := b.Vhost(t)
	state, shared := sharedDir(t), t.TempDir()
	if err := errors.Join(os.Chmod(shared, 0o755), os.Chmod(filepath.Dir(shared), 0o755)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = engine.Command("rm", "--force", "mayfly") })
	run := commandsIn(t, "install.md", "lets only privileged containers write to theirs:")
	if !unifiedGroups() {
		run = adapted(t, run, "--privileged --cgroupns private", insteadOfPrivileged(t))
	}
	sh(t, elsewhere+adapted(t, run, "amqp://user:password@broker:5672/", url+" -e MAYFLY_STATE_DIR="+state+" -e MAYFLY_CONTAINER_NETWORK=host -e MAYFLY_HOST="+filepath.Base(state),
		"/var/run/docker.sock:", strings.TrimPrefix(engine.Host, "unix://")+":", "/var/lib/mayfly:/var/lib/mayfly:", state+":"+state+":",
		"--name mayfly", "--name mayfly --health-interval 1s -v "+shared+":/shared:ro"))
	inside := func(args ...string) string {
		out, _ := engine.Command(append([]string{"exec", "mayfly", "mayfly"}, args...)...)
		return out
	}
	h := &host{tb: t}
	h.until("the manager is healthy", func() bool {
		out, err := engine.Command("inspect", "--format", "{{.State.Health.Status}}", "mayfly")
		return err == nil && strings.TrimSpace(out) == "healthy"
	}, func() any {
		health, _ := engine.Command("inspect", "--format", "{{json .State}}", "mayfly")
		out, _ := engine.Command("logs", "mayfly")
		return health + out
	})
	said := sh(t, elsewhere+commandsIn(t, "install.md", "No worker gets any of it. See what holds, and run a task:"))
	for _, want := range []string{"limits hold on cpu, cpuset, memory, pids", "private file system, private IPC, network off, disk limit", "\nhello\n", "\nhealthy\n"} {
		if !strings.Contains(said, want) {
			t.Errorf("it does not say %q:\n%s", want, said)
		}
	}

	p := newProducer(t, url)
	publish := func(task map[string]any) {
		body, err := json.Marshal(task)
		if err != nil {
			t.Fatal(err)
		}
		p.publish("default", string(body))
	}
	limits := map[string]any{"cpu": 1, "memory": "64MiB", "disk": "20MB"}
	for id, image := range map[string]string{"process": "", "container": docker.Image} {
		task := map[string]any{"id": id, "shell": "id -u; df $MAYFLY_SCRATCH; echo '{\"n\": 1}' >$MAYFLY_RESULT; exit 3", "resources": limits}
		hog := map[string]any{"id": id + "-hog", "shell": "exec dd if=/dev/zero of=/dev/null bs=300M count=1", "resources": limits}
		if image != "" {
			task["image"], hog["image"] = image, image
		}
		publish(task)
		publish(hog)
		r := p.wait(id)
		user, disk, _ := strings.Cut(r.StdoutTail, "\n")
		if r.Cause != queue.CauseExit || *r.ExitCode != 3 || string(r.Result) != `{"n":1}` || user == "0" || !strings.Contains(disk, "/dev/loop") {
			t.Errorf("%s: %+v", id, r)
		}
		if r := p.wait(id + "-hog"); r.Cause != queue.CauseOOM {
			t.Errorf("%s: %s (%s), want oom", r.ID, r.Cause, r.Message)
		}
	}

	// A stop drains.
	publish(map[string]any{"id": "long", "shell": "while ! test -e /shared/go; do sleep 0.1; done; exit 7", "resources": map[string]any{"memory": "64MiB"}})
	h.until("the task runs", func() bool { return strings.Contains(inside("show", "--json", "long"), `"pid"`) })
	stopped := make(chan string, 1)
	go func() { out, _ := engine.Command("stop", "-t", "90", "mayfly"); stopped <- out }()
	h.until("the manager drains", func() bool { return strings.Contains(inside("info", "--json"), `"draining"`) })
	if err := os.WriteFile(filepath.Join(shared, "go"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if r := p.wait("long"); r.Cause != queue.CauseExit || *r.ExitCode != 7 || r.Attempt != 1 {
		t.Errorf("long: %+v", r)
	}
	if out := <-stopped; strings.TrimSpace(out) != "mayfly" {
		t.Errorf("docker stop: %s", out)
	}
	if out, _ := engine.Command("inspect", "--format", "{{.State.ExitCode}}", "mayfly"); strings.TrimSpace(out) != "0" {
		log, _ := engine.Command("logs", "mayfly")
		t.Errorf("the manager ended with %s\n%s", out, tail(log, 4000))
	}
	if left := engine.Containers(); len(left) != 1 {
		t.Errorf("containers left: %v", left)
	}
	if left := sh(t, `find /sys/fs/cgroup -name "*$1*"; grep -F "$2/" /proc/self/mountinfo || true`, keeper.Name(state), state); left != "" {
		t.Errorf("left: %s", left)
	}
	need.Exercised(t, "the image, built from sources and run as the manager beside RabbitMQ and Docker")
}

// unifiedGroups reports whether this host has control groups of version 2 alone.
func unifiedGroups() bool {
	var st unix.Statfs_t
	return unix.Statfs("/sys/fs/cgroup", &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC
}

// insteadOfPrivileged is what else will do, where there are others, as arguments of docker run.
func insteadOfPrivileged(t *testing.T) string {
	t.Helper()
	return strings.TrimSpace(commandsIn(t, "install.md", "in place of `--privileged --cgroupns private`:"))
}

// imageVersion is what the image is said to be.
const imageVersion = "v1.0.0-image"

// buildImage runs the documented build on a copy of the sources, and returns the folder of that copy, in which there is a binary that
// was built from the same sources outside.
func buildImage(t *testing.T, engine *docker.Engine, elsewhere string) (source string) {
	t.Helper()
	baseimage.Make(t, engine, baseimage.Image{Name: "mayfly-test-base:1", Packages: strings.Fields("base-files base-passwd dash coreutils e2fsprogs ca-certificates")})
	source = t.TempDir()
	copySources(t, source)
	// What Go has cached makes seconds of a minute. It keeps within bounds by itself.
	cache := filepath.Join(need.Cache(), "image-build")
	sh(t, `GOCACHE="$2" CGO_ENABLED=1 make -s -C "$1" build VERSION="$3" && cd "$1" && go mod download`, source, cache, imageVersion)
	output, err := exec.CommandContext(t.Context(), "go", "env", "GOROOT", "GOMODCACHE").Output()
	if err != nil {
		t.Fatal(err)
	}
	goroot, modules, _ := strings.Cut(strings.TrimSpace(string(output)), "\n")
	proxy := httptest.NewServer(http.FileServer(http.Dir(filepath.Join(modules, "cache", "download"))))
	t.Cleanup(proxy.Close)
	baseimage.Make(t, engine, baseimage.Image{Name: "mayfly-test-go:1", Packages: strings.Fields("base-files base-passwd dash coreutils findutils sed make gcc libc6-dev"),
		Folders: map[string]string{goroot: "/usr/local/go", cache: "/go/cache"},
		Env:     []string{"PATH=/usr/local/go/bin:/usr/sbin:/usr/bin:/sbin:/bin", "GOCACHE=/go/cache", "GOPATH=/go", "GOTOOLCHAIN=local", "GOSUMDB=off", "GOPROXY=" + proxy.URL}})
	sh(t, elsewhere+"cd \"$1\"\n"+adapted(t, commandsIn(t, "install.md", "## An image"), `"$(git describe --tags --always)"`, imageVersion,
		"docker build", "docker build --network host --build-arg GO_IMAGE=mayfly-test-go:1 --build-arg BASE_IMAGE=mayfly-test-base:1"), source)
	return source
}

// copySources copies what git has, or would have, of this project.
func copySources(t *testing.T, into string) {
	t.Helper()
	sh(t, `cd .. && git ls-files -z --cached --others --exclude-standard | tar --null --files-from=- --ignore-failed-read -cf - 2>/dev/null | tar -xf - -C "$1"`, into)
}

// sharedDir makes a state directory from which mounts reach other name spaces, as they do everywhere under systemd.
func sharedDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/var/tmp", "mfs-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = unix.Unmount(dir, unix.MNT_DETACH)
		os.RemoveAll(dir)
	})
	if err := errors.Join(os.Chmod(dir, 0o711), unix.Mount(dir, dir, "", unix.MS_BIND, ""), unix.Mount("", dir, "", unix.MS_SHARED, "")); err != nil {
		t.Fatal(err)
	}
	return dir
}
