package main

import (
	"context"
	"debug/buildinfo"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/mayfly/mayfly/integration/need"
)

// machine is what the benchmarks ran on.
type machine struct {
	CPU         string `json:"cpu"`
	Cores       int    `json:"cores"`
	MemoryBytes int64  `json:"memory_bytes"`
	Kernel      string `json:"kernel"`
	System      string `json:"system"`
	// ControlGroups is unified, hybrid or legacy.
	ControlGroups string `json:"control_groups"`
}

// look fills in what the benchmarks do not print.
func (m *machine) look() {
	m.Cores = runtime.NumCPU()
	m.Kernel = firstLine("/proc/sys/kernel/osrelease")
	if f := strings.Fields(firstLine("/proc/meminfo")); len(f) > 1 { // MemTotal: 123 kB
		kib, _ := strconv.ParseInt(f[1], 10, 64)
		m.MemoryBytes = kib << 10
	}
	text, _ := os.ReadFile("/etc/os-release")
	for line := range strings.Lines(string(text)) {
		if name, ok := strings.CutPrefix(line, "PRETTY_NAME="); ok {
			m.System = strings.Trim(strings.TrimSpace(name), `"`)
		}
	}
	exists := func(path string) bool { _, err := os.Stat(path); return err == nil }
	switch {
	case exists("/sys/fs/cgroup/cgroup.controllers"):
		m.ControlGroups = "unified"
	case exists("/sys/fs/cgroup/unified/cgroup.controllers"):
		m.ControlGroups = "hybrid"
	default:
		m.ControlGroups = "legacy"
	}
}

func firstLine(path string) string {
	text, _ := os.ReadFile(path)
	line, _, _ := strings.Cut(string(text), "\n")
	return line
}

// packages are those whose programs the benchmarks use.
var packages = []string{"bubblewrap", "docker.io", "findutils", "munge", "parallel", "python3-celery", "rabbitmq-server", "slurm-wlm", "systemd"}

// versions tells the version of all that took part, as far as it is installed.
func versions(mayfly string) map[string]string {
	all := map[string]string{"mayfly": mayfly, "go": runtime.Version()}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	// It fails over those that are not installed, and tells the others.
	out, _ := exec.CommandContext(ctx, "dpkg-query", append([]string{"-W", "-f", "${Package} ${Version}\n"}, packages...)...).Output()
	for line := range strings.Lines(string(out)) {
		if f := strings.Fields(line); len(f) == 2 {
			all[f[0]] = f[1]
		}
	}
	const server = "rabbitmq_server-"
	trees, _ := filepath.Glob(filepath.Join(need.Cache(), "*", "usr/lib/rabbitmq/lib", server+"*"))
	for _, path := range trees {
		version := strings.TrimPrefix(filepath.Base(path), server)
		major, rest, _ := strings.Cut(version, ".")
		minor, _, _ := strings.Cut(rest, ".")
		all["rabbitmq-"+major+"."+minor] = version
	}
	const consumer = "rabbitmq-cli-consumer"
	if info, err := buildinfo.ReadFile(filepath.Join(need.Cache(), consumer)); err == nil {
		all[consumer] = info.Main.Version
	}
	return all
}
