package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/mayfly/mayfly/gpu"
	"github.com/mayfly/mayfly/gpu/nvidia"
	"github.com/mayfly/mayfly/isolation"
	"github.com/mayfly/mayfly/queue"
)

// testRoot, in the environment, is where the fake GPUs of tests have their dev and proc.
const testRoot = "MAYFLY_TEST_GPU_ROOT"

// openGPUs finds the host's GPUs; nil where none are wanted.
func openGPUs(ctx context.Context, c *config, log *slog.Logger, changed func()) (host *gpu.Host, stop func(), err error) {
	if len(c.GPUs) == 1 && c.GPUs[0] == "none" {
		return nil, func() {}, nil
	}
	client := newGPUClient(c, log)
	host, err = gpu.Open(ctx, gpu.Config{Driver: client, Only: c.onlyGPUs(), Shared: c.GPUSharing == "memory", Clean: time.Duration(c.GPUClean),
		Changed: changed, FormatSize: queue.FormatSize, Log: log})
	if err != nil {
		client.Close()
		return nil, nil, fmt.Errorf("cannot use MAYFLY_GPUS=%s: %w", strings.Join(c.GPUs, ","), err)
	}
	return host, func() { host.Close(); client.Close() }, nil
}

// seenGPUs shows the host's GPUs without asking the driver; nil where it has none to do with.
func seenGPUs(host *gpu.Host) func() gpu.Overview {
	if host == nil {
		return nil
	}
	return host.Seen
}

// newGPUClient returns a client of the driver.
func newGPUClient(c *config, log *slog.Logger) *nvidia.Client {
	settings := nvidia.DefaultConfig
	settings.Argv, settings.Library, settings.Log = []string{"/proc/self/exe", "gpu-helper"}, c.NVML, log
	settings.CallLimit, settings.Root = time.Duration(c.GPUCall), gpuRoot()
	return nvidia.New(settings)
}

func gpuRoot() string {
	if root := os.Getenv(testRoot); root != "" {
		return root
	}
	return "/"
}

// onlyGPUs are the GPUs that are lent; nil for all.
func (c *config) onlyGPUs() []string {
	if len(c.GPUs) == 1 && c.GPUs[0] == "all" {
		return nil
	}
	return c.GPUs
}

// gpuFiles says which device files the holder of GPUs may open, in the words of isolation; nil where the host has none. Those that are
// there when the manager starts are closed even where no GPU is lent, or none can be found.
func gpuFiles(host *gpu.Host) func([]gpu.Grant) (open, closed []isolation.Device) {
	there := nvidia.Files(gpuRoot())
	if len(there) == 0 && (host == nil || host.Empty()) {
		return nil
	}
	return func(grants []gpu.Grant) (open, closed []isolation.Device) {
		var mine, others []gpu.File
		if host != nil {
			mine, others = host.Files(grants)
		}
		seen := map[gpu.File]bool{}
		for _, f := range mine {
			seen[f] = true
			open = append(open, isolation.Device{Path: f.Path, Major: f.Major, Minor: f.Minor})
		}
		for _, f := range slices.Concat(others, there) {
			if !seen[f] {
				seen[f] = true
				closed = append(closed, isolation.Device{Path: f.Path, Major: f.Major, Minor: f.Minor})
			}
		}
		return open, closed
	}
}
