package fakegpu

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/mayfly/mayfly/integration/need"
)

// Numbers of character devices.
const (
	memMajor = 1   // the kernel's memory devices
	gpuMajor = 195 // nvidia
	capMajor = 240 // nvidia-caps, which real drivers are given anew at each start
)

// standIns are the memory devices that are opened in place of the first GPUs: full, zero, random, urandom.
var standIns = []uint32{7, 5, 8, 9}

// null is what stands in for the files that all GPUs share.
const null = 3

// Root is a directory with what a driver and the kernel show of the GPUs, made when it is first asked for, and kept up to date:
//
//   - dev/nvidia0 and so on. The first four are memory devices, which can be opened; further ones have the driver's numbers, and to open
//     them fails as where the driver has none (ENXIO), or as something forbids it (EPERM). dev/nvidiactl, nvidia-uvm and nvidia-uvm-tools
//     are the null device. dev/nvidia-caps has the numbers 240 and those that proc/driver/nvidia/capabilities says.
//   - proc/devices, and proc/driver/nvidia/capabilities with the numbers and modes of MIG devices
//   - sys/bus/pci/devices with each GPU's memory node and processors
func (h *Host) Root() string {
	h.tb.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.root != "" {
		return h.root
	}
	if os.Geteuid() != 0 {
		need.Missing(h.tb, "device files need root")
	}
	h.root, h.placed = directory(h.tb), map[string]string{}
	h.furnish()
	f, err := os.Open(filepath.Join(h.root, "dev/nvidiactl"))
	if err != nil {
		need.Missing(h.tb, "device files cannot be opened where temporary directories are: %v", err)
	}
	f.Close()
	return h.root
}

// device says of a path that it is a device file.
func device(mode, major, minor uint32) string {
	return fmt.Sprintf("device %o %d %d", mode, major, minor)
}

// wanted is what the root should have, by path: text, or a device.
func (h *Host) wanted() map[string]string {
	w := map[string]string{
		"dev/nvidiactl":        device(0o666, memMajor, null),
		"dev/nvidia-uvm":       device(0o666, memMajor, null),
		"dev/nvidia-uvm-tools": device(0o666, memMajor, null),
		"proc/devices": fmt.Sprintf("Character devices:\n  %d mem\n%3d nvidia\n%3d nvidiactl\n%3d nvidia-caps\n\nBlock devices:\n  7 loop\n",
			memMajor, gpuMajor, gpuMajor, capMajor),
	}
	const capabilities = "proc/driver/nvidia/capabilities/"
	capability := func(path string, minor, mode uint32) {
		w[capabilities+path] = fmt.Sprintf("DeviceFileMinor: %d\nDeviceFileMode: %d\nDeviceFileModify: 1\n", minor, mode)
		w[fmt.Sprintf("dev/nvidia-caps/nvidia-cap%d", minor)] = device(mode, capMajor, minor)
	}
	capability("mig/config", 1, 0o400)
	capability("mig/monitor", 2, 0o444)
	for _, g := range h.gpus {
		number := device(0o666, gpuMajor, uint32(g.Minor))
		if g.Minor < len(standIns) {
			number = device(0o666, memMajor, standIns[g.Minor])
		}
		w[fmt.Sprintf("dev/nvidia%d", g.Minor)] = number
		pci := "sys/bus/pci/devices/" + strings.ToLower(g.PCI[max(0, len(g.PCI)-len("0000:18:00.0")):])
		w[pci+"/numa_node"] = fmt.Sprintf("%d\n", g.Node)
		w[pci+"/local_cpulist"] = list(g.CPUs) + "\n"
		if !g.MIG {
			continue
		}
		for _, in := range g.Instances {
			// The driver gives each GPU numbers for 15 instances, and each of these for 8 parts and itself.
			gi := uint32(3 + 15*9*g.Minor + 9*in.GI)
			capability(fmt.Sprintf("gpu%d/mig/gi%d/access", g.Minor, in.GI), gi, 0o444)
			capability(fmt.Sprintf("gpu%d/mig/gi%d/ci%d/access", g.Minor, in.GI, in.CI), gi+1+uint32(in.CI), 0o444)
		}
	}
	return w
}

// furnish makes the root have what is wanted, and touches nothing that is already right. The lock is held.
func (h *Host) furnish() {
	h.tb.Helper()
	wanted := h.wanted()
	for path, what := range h.placed {
		if wanted[path] == what {
			continue
		}
		delete(h.placed, path)
		full := filepath.Join(h.root, path)
		for err := os.Remove(full); err == nil && full != h.root; err = os.Remove(full) {
			full = filepath.Dir(full) // an empty directory goes too
		}
	}
	for _, path := range slices.Sorted(maps.Keys(wanted)) {
		if _, there := h.placed[path]; there {
			continue
		}
		if err := place(filepath.Join(h.root, path), wanted[path]); err != nil {
			need.Missing(h.tb, "cannot make %s: %v", path, err)
		}
		h.placed[path] = wanted[path]
	}
}

func place(path, what string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	var mode, major, minor uint32
	if n, _ := fmt.Sscanf(what, "device %o %d %d", &mode, &major, &minor); n != 3 {
		return os.WriteFile(path, []byte(what), 0o444)
	}
	if err := unix.Mknod(path, unix.S_IFCHR|mode, int(unix.Mkdev(major, minor))); err != nil {
		return err
	}
	return os.Chmod(path, os.FileMode(mode)) // whatever the umask is
}

// list writes numbers as Linux does: "0-3,8".
func list(numbers []int) string {
	var ranges []string
	sorted := slices.Sorted(slices.Values(numbers))
	for i := 0; i < len(sorted); {
		first := i
		for i++; i < len(sorted) && sorted[i] == sorted[i-1]+1; i++ {
		}
		text := fmt.Sprint(sorted[first])
		if last := sorted[i-1]; last > sorted[first] {
			text += fmt.Sprintf("-%d", last)
		}
		ranges = append(ranges, text)
	}
	return strings.Join(ranges, ",")
}
