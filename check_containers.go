package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/mayfly/mayfly/gpu/nvidia"
	"github.com/mayfly/mayfly/isolation/container"
)

const (
	toolkitRemedy = "install nvidia-container-toolkit, nvidia-ctk runtime configure --runtime=docker, nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml, and restart Docker"
	dockerRemedy  = "systemctl start docker, check MAYFLY_DOCKER, or set MAYFLY_CONTAINERS=off"
)

// checkContainers looks at the engine that runs images.
func checkContainers(ctx context.Context, c *config) []finding {
	const what = "containers"
	if c.Containers == "off" {
		return []finding{{What: what, OK: true, Detail: "no images are run (MAYFLY_CONTAINERS=off)"}}
	}
	engine, err := container.New(container.Config{Host: c.Docker})
	if err != nil {
		return []finding{{What: what, Detail: err.Error(), Remedy: "check MAYFLY_DOCKER"}}
	}
	defer func() { _ = engine.Close() }()
	ctx, cancel := context.WithTimeout(ctx, dockerPatience)
	defer cancel()
	setup, err := engine.Inspect(ctx)
	if err != nil {
		f := finding{What: what, OK: c.Containers == "auto", Detail: err.Error(), Remedy: dockerRemedy}
		if f.OK {
			f.Detail = "no images are run: " + f.Detail
			if _, gone := os.Stat(strings.TrimPrefix(c.Docker, "unix://")); errors.Is(gone, os.ErrNotExist) {
				f.Remedy = "" // there is no Docker, and nobody said that there should be
			}
		}
		return []finding{f}
	}
	return append(judgeSetup(&setup, len(nvidia.Files(gpuRoot())) > 0 && !slices.Equal(c.GPUs, []string{"none"})), checkPlace(c))
}

// judgeSetup says what an engine lacks. gpus says that containers are to be given some.
func judgeSetup(s *container.Setup, gpus bool) []finding {
	const what = "containers"
	list := []finding{{What: what, OK: true, Detail: fmt.Sprintf("Docker %s, runtimes %s, control groups by %s", s.Version, strings.Join(s.Runtimes, " "), s.Groups)}}
	if !slices.Contains(s.Runtimes, "runc") {
		list = append(list, finding{What: what, Detail: "the runtime runc is not there, which workers have", Remedy: "install runc, and restart Docker"})
	}
	for _, w := range s.Warnings {
		if strings.Contains(w, "limit") { // that do not hold
			list = append(list, finding{What: what, Detail: "Docker says: " + w, Remedy: "mount the controller, or boot with systemd.unified_cgroup_hierarchy=1"})
		}
	}
	if !gpus {
		return list
	}
	described := len(s.Devices)
	for _, dir := range s.CDI {
		found, _ := filepath.Glob(filepath.Join(dir, "*nvidia*"))
		described += len(found)
	}
	switch {
	case len(s.CDI) > 0 && described > 0:
		list = append(list, finding{What: "CDI", OK: true, Detail: "GPUs are described in " + strings.Join(s.CDI, ", ")})
	case slices.Contains(s.Runtimes, "nvidia"):
		list = append(list, finding{What: "CDI", OK: true, Detail: "GPUs are not described; containers are given them by the runtime nvidia"})
	default:
		list = append(list, finding{What: "CDI", Detail: "Docker can give containers no GPU: it has neither a description of them (CDI) nor the runtime nvidia", Remedy: toolkitRemedy})
	}
	return list
}

// checkPlace looks at whether the engine finds the directories that we mount.
func checkPlace(c *config) finding {
	f := finding{What: "containers' files", OK: true, Detail: "Docker finds the state directory where it is"}
	if _, err := os.Stat("/.dockerenv"); err != nil {
		return f
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	for line := range strings.Lines(string(mounts)) {
		if fields := strings.Fields(line); len(fields) > 6 && fields[4] == c.StateDir {
			return f
		}
	}
	if err == nil {
		f.OK, f.Detail, f.Remedy = false, "we are in a container, and the state directory is not mounted from the host",
			fmt.Sprintf("docker run -v %[1]s:%[1]s:rshared ..., or set MAYFLY_CONTAINERS=off", c.StateDir)
	}
	return f
}
