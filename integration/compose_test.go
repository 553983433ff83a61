package integration

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v2"

	"github.com/mayfly/mayfly/integration/need"
)

// composeService is what deploy/compose.yaml says of a container, as far as it matters here.
type composeService struct {
	Image       string
	Build       string
	Entrypoint  []string
	Command     []string
	PID         string `yaml:"pid"`
	Environment map[string]string
	Volumes     []string
	Privileged  bool
	DependsOn   any                    `yaml:"depends_on"`
	Rest        map[string]interface{} `yaml:",inline"`
}

// composed reads deploy/compose.yaml.
func composed(t *testing.T) map[string]composeService {
	t.Helper()
	var file struct {
		Services map[string]composeService
		Volumes  map[string]any
	}
	if err := yaml.UnmarshalStrict([]byte(read(t, "../deploy", "compose.yaml")), &file); err != nil {
		t.Fatal(err)
	}
	for name, s := range file.Services {
		for _, v := range s.Volumes {
			from, _, _ := strings.Cut(v, ":")
			_, declared := file.Volumes[from]
			switch _, err := os.Stat(filepath.Join("../deploy", from)); {
			case strings.HasPrefix(from, "./") && err != nil:
				t.Errorf("%s: %v", name, err)
			case !strings.HasPrefix(from, "./") && !strings.HasPrefix(from, "/") && !declared:
				t.Errorf("%s: there is no volume %s", name, from)
			}
		}
	}
	return file.Services
}

var pinned = regexp.MustCompile(`^[a-z0-9./-]+:v?\d+\.\d+(\.\d+)?(-[a-z]+)?$`)

// TestCompose looks through what deploy/ has for others to run: the Compose file as Compose reads it, what is mounted there, that images are
// pinned, and that the manager gets what docs/install.md says it needs.
func TestCompose(t *testing.T) {
	t.Parallel()
	services := composed(t)
	if names := slices.Sorted(maps.Keys(services)); strings.Join(names, " ") != "grafana mayfly prometheus rabbitmq token" {
		t.Errorf("services: %v", names)
	}
	for name, s := range services {
		if s.Image != "mayfly:local" && !pinned.MatchString(s.Image) {
			t.Errorf("%s: the image %q is not pinned", name, s.Image)
		}
	}
	bases := regexp.MustCompile(`(?m)^ARG \w+_IMAGE=(.*)$`).FindAllStringSubmatch(read(t, "..", "Dockerfile"), -1)
	if len(bases) != 2 || !pinned.MatchString(bases[0][1]) || !pinned.MatchString(bases[1][1]) {
		t.Errorf("the image is made from %v", bases)
	}

	t.Run("rights", func(t *testing.T) {
		t.Parallel()
		run, m := commandsIn(t, "install.md", "lets only privileged containers write to theirs:"), services["mayfly"]
		if !m.Privileged || !strings.Contains(run, " --privileged ") || !strings.Contains(run, "--pid "+m.PID+" ") {
			t.Errorf("the Compose file and the documents say different things: %+v\n%s", m, run)
		}
		for _, v := range m.Volumes {
			if !strings.HasPrefix(v, "token:") && !strings.Contains(run, "-v "+v+" ") {
				t.Errorf("the documents do not say -v %s", v)
			}
		}
	})
	t.Run("settings", func(t *testing.T) {
		t.Parallel()
		accepts(t, services["mayfly"].Environment)
	})
	t.Run("provisioned", func(t *testing.T) {
		t.Parallel()
		var source struct{ Datasources []struct{ Type, URL string } }
		var boards struct {
			Providers []struct {
				Type    string
				Options struct{ Path string }
			}
		}
		decode(t, "grafana/provisioning/datasources/prometheus.yml", &source)
		decode(t, "grafana/provisioning/dashboards/mayfly.yml", &boards)
		if len(source.Datasources) != 1 || source.Datasources[0].Type != "prometheus" || source.Datasources[0].URL != "http://prometheus:9090" {
			t.Errorf("data sources: %+v", source)
		}
		if mount := "./grafana/mayfly.json:" + boards.Providers[0].Options.Path + "/mayfly.json:ro"; !slices.Contains(services["grafana"].Volumes, mount) {
			t.Errorf("Grafana does not mount %s", mount)
		}
		var prometheus struct {
			Scrape []struct {
				Job           string `yaml:"job_name"`
				Authorization struct {
					File string `yaml:"credentials_file"`
				}
				Static []struct{ Targets []string } `yaml:"static_configs"`
			} `yaml:"scrape_configs"`
		}
		decode(t, "prometheus/prometheus.yml", &prometheus)
		for _, s := range prometheus.Scrape {
			host, port, _ := strings.Cut(s.Static[0].Targets[0], ":")
			if _, there := services[host]; !there || host == "mayfly" && (":"+port != services["mayfly"].Environment["MAYFLY_LISTEN"] ||
				!slices.Contains(services["prometheus"].Volumes, "token:"+filepath.Dir(s.Authorization.File)+":ro")) {
				t.Errorf("job %s: nobody answers at %v, or it has no token", s.Job, s.Static)
			}
		}
		out, err := exec.CommandContext(t.Context(), need.Tool(t, "promtool"), "check", "config", "--syntax-only", "../deploy/prometheus/prometheus.yml").CombinedOutput()
		if err != nil {
			t.Errorf("promtool: %v\n%s", err, out)
		}
	})
	t.Run("compose", func(t *testing.T) {
		t.Parallel()
		need.Command(t, "docker-compose")
		if out, err := exec.CommandContext(t.Context(), "docker-compose", "-f", "../deploy/compose.yaml", "config", "-q").CombinedOutput(); err != nil {
			t.Errorf("docker-compose: %v\n%s", err, out)
		}
	})
}

// TestDaemonSet looks through the example for Kubernetes.
func TestDaemonSet(t *testing.T) {
	t.Parallel()
	var set daemonSet
	if err := yaml.UnmarshalStrict([]byte(read(t, "../deploy", "kubernetes/daemonset.yaml")), &set); err != nil {
		t.Fatal(err)
	}
	pod := set.Spec.Template.Spec
	if set.APIVersion != "apps/v1" || set.Kind != "DaemonSet" || len(pod.Containers) != 1 || pod.Automount == nil || *pod.Automount {
		t.Fatalf("%+v", set)
	}
	c := pod.Containers[0]
	if !pinned.MatchString(c.Image) || !maps.Equal(set.Spec.Selector.MatchLabels, set.Spec.Template.Metadata.Labels) {
		t.Errorf("%+v", set)
	}
	for _, m := range c.VolumeMounts {
		if !slices.ContainsFunc(pod.Volumes, func(v volume) bool { return v.Name == m.Name && v.HostPath.Path == m.MountPath }) {
			t.Errorf("there is no volume %s", m.Name)
		}
	}
	settings := map[string]string{}
	for _, e := range c.Env {
		if settings[e.Name] = e.Value; e.Value == "" {
			settings[e.Name] = "node-1" // Kubernetes fills it in
		}
	}
	accepts(t, settings)
	if pod.ServiceLinks == nil || *pod.ServiceLinks {
		t.Error("a service that is called mayfly would put what is no setting into the environment")
	}
	if !slices.ContainsFunc(pod.Volumes, func(v volume) bool { return v.HostPath.Path == "/dev" }) {
		t.Error("loop devices that are made later would not show")
	}
	if settings["MAYFLY_DRAIN_TIMEOUT"] != "10m" || pod.GraceSeconds <= 600 {
		t.Errorf("the pod is killed after %d s, before it has drained", pod.GraceSeconds)
	}
}

type (
	labels map[string]string
	// daemonSet has those fields of Kubernetes's (API reference, apps/v1) that the example uses: what is misspelt is none of them.
	daemonSet struct {
		APIVersion string `yaml:"apiVersion"`
		Kind       string
		Metadata   struct {
			Name, Namespace string
			Labels          labels
		}
		Spec struct {
			Selector struct {
				MatchLabels labels `yaml:"matchLabels"`
			}
			UpdateStrategy struct {
				RollingUpdate struct {
					MaxUnavailable int `yaml:"maxUnavailable"`
				} `yaml:"rollingUpdate"`
			} `yaml:"updateStrategy"`
			Template struct {
				Metadata struct{ Labels labels }
				Spec     pod
			}
		}
	}
	pod struct {
		NodeSelector labels `yaml:"nodeSelector"`
		Automount    *bool  `yaml:"automountServiceAccountToken"`
		ServiceLinks *bool  `yaml:"enableServiceLinks"`
		GraceSeconds int    `yaml:"terminationGracePeriodSeconds"`
		Containers   []podContainer
		Volumes      []volume
	}
	podContainer struct {
		Name, Image string
		EnvFrom     []struct {
			SecretRef struct{ Name string } `yaml:"secretRef"`
		} `yaml:"envFrom"`
		Env []struct {
			Name, Value string
			ValueFrom   struct {
				FieldRef struct {
					FieldPath string `yaml:"fieldPath"`
				} `yaml:"fieldRef"`
			} `yaml:"valueFrom"`
		}
		Resources       struct{ Requests, Limits labels }
		SecurityContext struct{ Privileged bool } `yaml:"securityContext"`
		ReadinessProbe  probe                     `yaml:"readinessProbe"`
		LivenessProbe   probe                     `yaml:"livenessProbe"`
		VolumeMounts    []struct {
			Name      string
			MountPath string `yaml:"mountPath"`
		} `yaml:"volumeMounts"`
	}
	probe struct {
		Exec    struct{ Command []string }
		Initial int `yaml:"initialDelaySeconds"`
		Period  int `yaml:"periodSeconds"`
		Timeout int `yaml:"timeoutSeconds"`
	}
	volume struct {
		Name     string
		HostPath struct{ Path, Type string } `yaml:"hostPath"`
	}
)

// decode reads a file of deploy/.
func decode(t *testing.T, name string, into any) {
	t.Helper()
	text := []byte(read(t, "../deploy", name))
	var whole any // so a key that is there twice is refused, and one that is not asked for is not
	if err := yaml.UnmarshalStrict(text, &whole); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	if err := yaml.Unmarshal(text, into); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

// accepts fails where the program does not take the settings.
func accepts(t *testing.T, settings map[string]string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), binary, "check")
	for name, value := range settings {
		switch name {
		case "MAYFLY_AMQP_URL", "MAYFLY_AMQP_URL_FILE": // it would be looked for
			cmd.Env = append(cmd.Env, "MAYFLY_AMQP_URL=amqps://127.0.0.1:1/")
		default:
			cmd.Env = append(cmd.Env, name+"="+value)
		}
	}
	if out, _ := cmd.CombinedOutput(); !strings.Contains(string(out), "ok    configuration") {
		t.Errorf("the settings are refused: %s", out)
	}
}
