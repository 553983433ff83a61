package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/mayfly/mayfly/integration/broker"
	"github.com/mayfly/mayfly/integration/docker"
	"github.com/mayfly/mayfly/integration/need"
	"github.com/mayfly/mayfly/queue"
)

// composeUp has Compose run deploy/compose.yaml, but for Grafana, which cannot be had where tests run. Images of the others are stand-ins by the same names: Debian's
// RabbitMQ and Prometheus, set up by their official images' variables and places. The manager is the image that was built.
func composeUp(t *testing.T, built *docker.Engine) {
	for _, command := range []string{"docker-compose", "ip", "tar"} {
		need.Command(t, command)
	}
	engine := docker.Start(t, docker.OwnNetwork())
	elsewhere := "export DOCKER_HOST=" + engine.Host + "\n"
	services := composed(t)
	sh(t, `docker -H "$1" save mayfly:local | docker -H "$2" load`, built.Host, engine.Host)
	standIn(t, engine, services["rabbitmq"].Image, broker.V40.Root(t), `ENTRYPOINT ["/start"]`, map[string]string{"start": `#!/bin/sh -eu
		printf 'default_user = %s\ndefault_pass = %s\n' "$RABBITMQ_DEFAULT_USER" "$RABBITMQ_DEFAULT_PASS" >/etc/rabbitmq/rabbitmq.conf
		echo '[rabbitmq_management,rabbitmq_prometheus].' >/etc/rabbitmq/enabled_plugins
		chown -R rabbitmq: /var/lib/rabbitmq /var/log/rabbitmq
		exec rabbitmq-server
	`})
	root := t.TempDir()
	sh(t, `mkdir "$1"/bin "$1"/prometheus && cp "$2" "$1"/bin/prometheus && chown 65534:65534 "$1"/prometheus
		for library in $(ldd "$2" | grep -o '/[^ ]*'); do mkdir -p "$1$(dirname "$library")" && cp -L "$library" "$1$library"; done`, root, need.Tool(t, "prometheus"))
	standIn(t, engine, services["prometheus"].Image, root, "USER 65534:65534\n"+
		`ENTRYPOINT ["/bin/prometheus", "--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/prometheus"]`, nil)

	project, state := t.TempDir(), sharedDir(t)
	sh(t, `cp -r ../deploy "$1"`, project)
	file := adapted(t, read(t, project, "deploy/compose.yaml"), "/var/run/docker.sock:", strings.TrimPrefix(engine.Host, "unix://")+":", "/var/lib/mayfly:/var/lib/mayfly:", state+":"+state+":",
		"MAYFLY_TOKEN_FILE: ", "MAYFLY_STATE_DIR: "+state+"\n      MAYFLY_TOKEN_FILE: ")
	if !unifiedGroups() {
		file = unprivileged(t, file)
	}
	scrape := adapted(t, read(t, project, "deploy/prometheus/prometheus.yml"), "scrape_interval: 15s", "scrape_interval: 1s")
	for name, text := range map[string]string{"compose.yaml": file, "prometheus/prometheus.yml": scrape} {
		if err := os.WriteFile(filepath.Join(project, "deploy", name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	up := adapted(t, commandsIn(t, "install.md", "runs RabbitMQ, Mayfly, Prometheus and Grafana on one machine, to try it all:"), "docker compose", "docker-compose",
		"deploy/compose.yaml", project+"/deploy/compose.yaml", "up -d", "up -d --no-build rabbitmq mayfly prometheus")
	sh(t, elsewhere+up)
	t.Cleanup(func() {
		if t.Failed() {
			out, _ := engine.Command("logs", "--tail", "30", composeContainer(t, engine, "mayfly"))
			t.Log(out)
		}
	})

	// A producer on this machine, at the port that is published for it.
	p := newProducerBy(t, "amqp://mayfly:mayfly@127.0.0.1:5672/", engine.Dial)
	p.publish("default", `{"id": "composed", "shell": "id -u; exit 3", "resources": {"cpu": 1, "memory": "64MiB"}}`)
	if r := p.wait("composed"); r.Cause != queue.CauseExit || *r.ExitCode != 3 || r.StdoutTail == "0\n" || r.Usage.CPUSeconds <= 0 {
		t.Errorf("the result: %+v", r)
	}

	// Prometheus sees it, with the token that was made for it.
	client := &http.Client{Transport: &http.Transport{DialContext: func(_ context.Context, network, address string) (net.Conn, error) {
		return engine.Dial(network, address)
	}}}
	defer client.CloseIdleConnections()
	address := func(service string) string {
		return strings.TrimSpace(sh(t, elsewhere+`docker inspect --format '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' "$1"`, composeContainer(t, engine, service)))
	}
	ask := "http://" + address("prometheus") + ":9090/api/v1/query?query="
	h, asked := &host{tb: t}, ""
	query := func(q string) string {
		response, err := client.Get(ask + url.QueryEscape(q))
		if err != nil {
			asked = err.Error()
			return ""
		}
		defer response.Body.Close()
		body, _ := io.ReadAll(response.Body)
		asked = string(body)
		var found struct {
			Data struct{ Result []struct{ Value [2]any } }
		}
		if json.Unmarshal(body, &found) != nil || len(found.Data.Result) != 1 {
			return ""
		}
		return fmt.Sprint(found.Data.Result[0].Value[1])
	}
	for q, want := range map[string]string{`up{job="mayfly"}`: "1", `up{job="rabbitmq"}`: "1", `mayfly_tasks_total{cause="exit"}`: "1", `count(ALERTS) or vector(0)`: "0"} {
		h.until(q+" is "+want, func() bool { return query(q) == want }, func() any { return asked })
	}
	response, err := client.Get("http://" + address("mayfly") + ":7070/api/v1/tasks")
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusUnauthorized {
		t.Errorf("the manager's port without a token: %s", response.Status)
	}

	sh(t, elsewhere+`docker-compose -p mayfly -f "$1"/deploy/compose.yaml down --volumes 2>&1`, project)
	if left := engine.Containers(); len(left) > 0 {
		t.Errorf("containers left: %v", left)
	}
	need.Exercised(t, "deploy/compose.yaml, with stand-ins of RabbitMQ and Prometheus, without Grafana")
}

// unprivileged has the Compose file give the manager what docs/install.md says will do in place of all rights.
func unprivileged(t *testing.T, file string) string {
	t.Helper()
	_, rest, _ := strings.Cut(file, "privileged: true")
	comment, _, _ := strings.Cut(rest, "\n")
	instead := ""
	for flag, key := range map[string]string{"--cap-add": "cap_add", "--security-opt": "security_opt", "--device-cgroup-rule": "device_cgroup_rules"} {
		var values []string
		for _, found := range regexp.MustCompile(flag+` (?:'([^']*)'|(\S+))`).FindAllStringSubmatch(insteadOfPrivileged(t), -1) {
			values = append(values, strconv.Quote(found[1]+found[2]))
		}
		instead += key + ": [" + strings.Join(values, ", ") + "]\n    "
	}
	return adapted(t, file, "privileged: true"+comment+"\n    ", instead, "- /dev:/dev\n", "- /dev:/dev\n      - /sys/fs/cgroup:/sys/fs/cgroup\n")
}

// composeContainer finds the container of a service.
func composeContainer(t *testing.T, engine *docker.Engine, service string) string {
	t.Helper()
	out, err := engine.Command("ps", "-aq", "--filter", "label=com.docker.compose.service="+service)
	if err != nil || strings.TrimSpace(out) == "" {
		t.Fatalf("there is no container of %s: %s, %v", service, out, err)
	}
	return strings.TrimSpace(out)
}

// standIn makes an image of a root file system and of files, which are programs.
func standIn(t *testing.T, engine *docker.Engine, name, root string, changes string, files map[string]string) {
	t.Helper()
	added := t.TempDir()
	for path, text := range files {
		if err := os.WriteFile(filepath.Join(added, path), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	args := []string{engine.Host, name, root, added}
	for line := range strings.Lines(changes) {
		args = append(args, "--change", strings.TrimSpace(line))
	}
	sh(t, `host=$1 name=$2 root=$3 added=$4; shift 4
		tar -c -C "$root" --exclude=./proc --exclude=./dev --exclude=./sys --exclude=./var/cache --exclude=./usr/share/doc . -C "$added" $(ls "$added") | docker -H "$host" import "$@" - "$name"`, args...)
}
