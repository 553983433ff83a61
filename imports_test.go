package main

import (
	"os/exec"
	"strings"
	"testing"
)

const module = "github.com/mayfly/mayfly"

// TestImports holds the directions in which the rooms may know each other.
func TestImports(t *testing.T) {
	t.Parallel()
	rules := []struct {
		room    string   // a package, or a package and all below it with a trailing /...
		allowed []string // what it may import of ours; a trailing /... as above
		reason  string
	}{
		{"internal/...", nil, "words and tools that all rooms share stand on nothing"},
		{"queue", nil, "what a task is must not depend on who runs it"},
		{"queue/...", []string{"queue", "internal/..."}, "a queue knows tasks as bytes with a duty, never hosts or workers"},
		{"queue/queuetest", []string{"queue"}, "the conformance suite knows the contract only, never one implementation"},
		{"isolation", nil, "isolation runs programs: it never learns the words task or GPU"},
		{"isolation/...", []string{"isolation", "internal/..."}, "a mechanism of isolation stands alone"},
		{"isolation/container", []string{"isolation", "isolation/cgroup", "internal/..."}, "an engine makes the groups of its containers; ours only reads them"},
		{"gpu", []string{"internal/..."}, "which GPUs there are and who holds them: it knows holders by name only"},
		{"gpu/...", []string{"gpu", "internal/..."}, "one vendor's driver: it tells of devices and never lends them"},
		{"worker", []string{"queue", "isolation", "gpu", "internal/..."}, "an attempt is a task run in a sandbox, whichever mechanism that is"},
		{"worker/keeper", []string{"isolation", "isolation/process", "isolation/cgroup", "isolation/systemd", "internal/..."}, "the keeper is the process that forks: it holds the mechanisms, and knows nothing of tasks"},
		{"manager", []string{"queue", "worker", "isolation", "gpu", "internal/..."}, "the manager decides; what it decides upon is handed to it by main"},
		{"manager/history", []string{"manager", "queue", "internal/..."}, "one outside dependency: the embedded store"},
		{"api", []string{"api/dashboard", "manager", "queue", "gpu", "internal/..."}, "the API shows the manager; it never reaches around it"},
		{"api/metrics", []string{"manager", "queue", "gpu", "internal/..."}, "one outside dependency, Prometheus: it counts what the manager tells, and asks at a scrape"},
		{"api/spans", []string{"manager", "queue", "worker", "internal/..."}, "one outside protocol, OTLP: it is told what the manager tells, and asks nothing"},
		{"api/dashboard", nil, "a page and its files: what they show they ask the API for, as every client does"},
		{"clients/...", []string{"clients/go"}, "what submitters import stands on nothing of ours: others build it without the rest"},
		{"cli", []string{"api", "manager", "queue", "gpu", "internal/..."}, "commands speak to the manager through its API only"},
	}
	matches := func(pattern, pkg string) bool {
		below, tree := strings.CutSuffix(pattern, "/...")
		return pkg == pattern || tree && strings.HasPrefix(pkg, below+"/")
	}
	out, err := exec.CommandContext(t.Context(), "go", "list", "-f", `{{.ImportPath}}{{range .Imports}} {{.}}{{end}}`, "./...").CombinedOutput()
	if err != nil {
		t.Fatalf("cannot list the packages: %v\n%s", err, out)
	}
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		pkg, ours := strings.CutPrefix(fields[0], module+"/")
		if !ours || strings.HasPrefix(pkg, "integration") {
			continue // main wires everything, and the integration tests drive it
		}
		rule := -1
		for i := range rules { // the most exact rule is the one that holds
			if matches(rules[i].room, pkg) && (rule < 0 || len(rules[i].room) >= len(rules[rule].room)) {
				rule = i
			}
		}
		if rule < 0 {
			t.Errorf("%s has no rule: say what it may import, and why", pkg)
			continue
		}
	imports:
		for _, imported := range fields[1:] {
			name, ours := strings.CutPrefix(imported, module+"/")
			if !ours {
				continue
			}
			for _, pattern := range rules[rule].allowed {
				if matches(pattern, name) {
					continue imports
				}
			}
			t.Errorf("%s must not import %s: %s", pkg, name, rules[rule].reason)
		}
	}
}
