package container

import (
	"context"
	"slices"
	"strings"
)

// Setup is how an engine is set up, as far as it matters for workers.
type Setup struct {
	Version string
	// Groups is the driver of control groups: cgroupfs or systemd.
	Groups string
	// Runtimes are those that are installed, Runtime the one that containers have where none is named.
	Runtimes []string
	Runtime  string
	// CDI are the directories in which the engine looks for descriptions of devices, empty where it does not know them.
	CDI []string
	// Devices are those of NVIDIA that it has found a description of; it says so from version 28.3 on.
	Devices []string
	// Warnings are the engine's own.
	Warnings []string
}

// Inspect asks the engine how it is set up.
func (e *Engine) Inspect(ctx context.Context) (Setup, error) {
	version, err := e.Ping(ctx)
	if err != nil {
		return Setup{}, err
	}
	info, err := e.docker.Info(ctx)
	if err != nil {
		return Setup{}, err
	}
	s := Setup{Version: version, Groups: info.CgroupDriver, Runtime: info.DefaultRuntime, CDI: info.CDISpecDirs, Warnings: info.Warnings}
	for name := range info.Runtimes {
		s.Runtimes = append(s.Runtimes, name)
	}
	slices.Sort(s.Runtimes)
	for _, d := range info.DiscoveredDevices {
		if strings.HasPrefix(d.ID, "nvidia.com/gpu=") {
			s.Devices = append(s.Devices, d.ID)
		}
	}
	return s, nil
}
