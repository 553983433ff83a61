//go:build cgo

package nvidia

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"github.com/mayfly/mayfly/gpu"
)

func (r *reader) inventory() (*gpu.Inventory, error) {
	for _, f := range []string{"nvmlDeviceGetCount", "nvmlDeviceGetHandleByIndex", "nvmlDeviceGetUUID", "nvmlDeviceGetMemoryInfo"} {
		if !r.offers(f) {
			return nil, errors.New("cannot list the GPUs: the driver's library lacks " + f)
		}
	}
	n, ret := r.nvml.DeviceGetCount()
	if ret != nvml.SUCCESS {
		return nil, fmt.Errorf("cannot count the GPUs: %s", said(ret))
	}
	i := &gpu.Inventory{}
	i.Driver, _ = read(r, "nvmlSystemGetDriverVersion", r.nvml.SystemGetDriverVersion)
	if v, ok := read(r, "nvmlSystemGetCudaDriverVersion", r.nvml.SystemGetCudaDriverVersion); ok {
		i.CUDA = fmt.Sprintf("%d.%d", v/1000, v%1000/10)
	}
	var handles []nvml.Device
	var uuids []string
	for index := range n {
		handle, ret := r.nvml.DeviceGetHandleByIndex(index)
		if ret != nvml.SUCCESS {
			continue // lost: whoever holds it by its UUID hears so
		}
		d, err := r.device(handle, index)
		if err != nil {
			return nil, err
		}
		handles, uuids = append(handles, handle), append(uuids, d.UUID)
		i.Devices = append(i.Devices, d)
	}
	all := i.Devices
	i.Devices = nil
	caps := map[gpu.File]bool{}
	for at, d := range all {
		d.Links = r.links(handles, uuids, at)
		i.Devices = append(i.Devices, d)
		if d.Divided {
			i.Devices = append(i.Devices, r.instances(handles[at], &d)...)
		}
	}
	for _, name := range []string{"nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-modeset"} {
		if f, ok := r.file(name); ok {
			i.Common = append(i.Common, f)
		}
	}
	for _, d := range i.Devices {
		for _, f := range d.Files {
			caps[f] = true
		}
	}
	entries, _ := os.ReadDir(filepath.Join(r.root, "dev/nvidia-caps"))
	for _, e := range entries { // those that manage instances, or belong to none
		if f, ok := r.file("nvidia-caps/" + e.Name()); ok && !caps[f] {
			i.Others = append(i.Others, f)
		}
	}
	return i, nil
}

// device reads what does not change of a GPU.
func (r *reader) device(h nvml.Device, index int) (gpu.Device, error) {
	d := gpu.Device{Index: index, Node: -1}
	var ret nvml.Return
	if d.UUID, ret = h.GetUUID(); ret != nvml.SUCCESS {
		return d, fmt.Errorf("cannot read the UUID of GPU %d: %s", index, said(ret))
	}
	d.Model, _ = read(r, "nvmlDeviceGetName", h.GetName)
	if m, ret := h.GetMemoryInfo(); ret == nvml.SUCCESS {
		d.Memory = int64(m.Total)
	}
	if p, ok := read(r, "nvmlDeviceGetPciInfo", h.GetPciInfo); ok {
		d.PCI = address(p)
		d.Node = nodeOf(r.root, d.PCI)
	}
	if d.Node < 0 {
		if n, ok := read(r, "nvmlDeviceGetNumaNodeId", h.GetNumaNodeId); ok {
			d.Node = n
		}
	}
	mask, _ := read(r, "nvmlDeviceGetCpuAffinity", func() ([]uint, nvml.Return) { return h.GetCpuAffinity(max(runtime.NumCPU(), 1024)) })
	d.CPUs = list(mask)
	d.Divided = r.divided(h)
	if minor, ok := read(r, "nvmlDeviceGetMinorNumber", h.GetMinorNumber); ok {
		if f, ok := r.file(fmt.Sprintf("nvidia%d", minor)); ok {
			d.Files = []gpu.File{f}
		}
	}
	return d, nil
}

// address is a PCI address in the short form that sysfs has.
func address(p nvml.PciInfo) string {
	return fmt.Sprintf("%04x:%02x:%02x.0", p.Domain, p.Bus, p.Device)
}

// nodeOf reads the memory node of a PCI device; -1 where there is none.
func nodeOf(root, pci string) int {
	n := -1
	text, err := os.ReadFile(filepath.Join(root, "sys/bus/pci/devices", pci, "numa_node"))
	if err == nil {
		_, _ = fmt.Sscan(string(text), &n)
	}
	return n
}

// list writes a mask of processors as Linux does.
func list(mask []uint) string {
	var parts []string
	first := -1
	bits := len(mask) * 64
	on := func(n int) bool { return n < bits && mask[n/64]>>(n%64)&1 == 1 }
	for n := 0; n <= bits; n++ {
		switch {
		case on(n) && first < 0:
			first = n
		case !on(n) && first >= 0:
			if n-1 == first {
				parts = append(parts, fmt.Sprint(first))
			} else {
				parts = append(parts, fmt.Sprintf("%d-%d", first, n-1))
			}
			first = -1
		}
	}
	return strings.Join(parts, ",")
}

// links says how one GPU is connected to the others.
func (r *reader) links(handles []nvml.Device, uuids []string, at int) map[string]gpu.Link {
	if len(handles) < 2 {
		return nil
	}
	direct, switched := r.nvlinks(handles[at])
	links := map[string]gpu.Link{}
	for other, h := range handles {
		if other == at {
			continue
		}
		l := gpu.Link{Level: "system"}
		level, ok := read(r, "nvmlDeviceGetTopologyCommonAncestor", func() (nvml.GpuTopologyLevel, nvml.Return) { return handles[at].GetTopologyCommonAncestor(h) })
		if ok {
			l.Level = levelName(level)
		}
		if p, ok := read(r, "nvmlDeviceGetPciInfo", h.GetPciInfo); ok {
			l.NVLinks = direct[address(p)]
		}
		if l.NVLinks == 0 && switched > 0 && r.has("nvmlDeviceGetP2PStatus") {
			if status, ret := handles[at].GetP2PStatus(h, nvml.P2P_CAPS_INDEX_NVLINK); ret == nvml.SUCCESS && status == nvml.P2P_STATUS_OK {
				l.NVLinks = switched // all of them lead to the switch, and the switch to everybody
			}
		}
		links[uuids[other]] = l
	}
	return links
}

// nvlinks counts a GPU's NVLinks: by the PCI address at their other end, and those that are up at all.
func (r *reader) nvlinks(h nvml.Device) (direct map[string]int, up int) {
	direct = map[string]int{}
	if !r.has("nvmlDeviceGetNvLinkState") {
		return direct, 0
	}
	for link := range nvml.NVLINK_MAX_LINKS {
		state, ret := h.GetNvLinkState(link)
		if ret == nvml.ERROR_NOT_SUPPORTED || ret == nvml.ERROR_INVALID_ARGUMENT {
			break
		}
		if ret != nvml.SUCCESS || state != nvml.FEATURE_ENABLED {
			continue
		}
		up++
		if p, ok := read(r, "nvmlDeviceGetNvLinkRemotePciInfo", func() (nvml.PciInfo, nvml.Return) { return h.GetNvLinkRemotePciInfo(link) }); ok {
			direct[address(p)]++
		}
	}
	return direct, up
}

func levelName(l nvml.GpuTopologyLevel) string {
	switch l {
	case nvml.TOPOLOGY_INTERNAL:
		return "internal"
	case nvml.TOPOLOGY_SINGLE:
		return "single"
	case nvml.TOPOLOGY_MULTIPLE:
		return "multiple"
	case nvml.TOPOLOGY_HOSTBRIDGE:
		return "hostbridge"
	case nvml.TOPOLOGY_NODE:
		return "node"
	}
	return "system"
}

// divided reports whether a GPU is in MIG mode.
func (r *reader) divided(h nvml.Device) bool {
	for _, f := range []string{"nvmlDeviceGetMigMode", "nvmlDeviceGetMaxMigDeviceCount", "nvmlDeviceGetMigDeviceHandleByIndex", "nvmlDeviceGetGpuInstanceId", "nvmlDeviceGetComputeInstanceId"} {
		if !r.has(f) { // before R450
			return false
		}
	}
	mode, _, ret := h.GetMigMode()
	return ret == nvml.SUCCESS && mode == nvml.DEVICE_MIG_ENABLE
}

// migHandles lists the handles of a GPU's instances.
func migHandles(h nvml.Device) []nvml.Device {
	n, ret := h.GetMaxMigDeviceCount()
	if ret != nvml.SUCCESS {
		return nil
	}
	var handles []nvml.Device
	for index := range n {
		if m, ret := h.GetMigDeviceHandleByIndex(index); ret == nvml.SUCCESS {
			handles = append(handles, m)
		}
	}
	return handles
}

// instances reads the MIG instances of a GPU.
func (r *reader) instances(h nvml.Device, parent *gpu.Device) []gpu.Device {
	var all []gpu.Device
	for _, m := range migHandles(h) {
		d := gpu.Device{Index: parent.Index, Model: parent.Model, Parent: parent.UUID, PCI: parent.PCI, Node: parent.Node, CPUs: parent.CPUs}
		var ret nvml.Return
		if d.UUID, ret = m.GetUUID(); ret != nvml.SUCCESS {
			continue
		}
		if name, ret := m.GetName(); ret == nvml.SUCCESS {
			if _, profile, ok := strings.Cut(name, " MIG "); ok {
				d.Profile = strings.TrimSpace(profile)
			}
		}
		if info, ret := m.GetMemoryInfo(); ret == nvml.SUCCESS {
			d.Memory = int64(info.Total)
		}
		d.Files = slices.Clone(parent.Files)
		gi, ret1 := m.GetGpuInstanceId()
		ci, ret2 := m.GetComputeInstanceId()
		minor, ret3 := h.GetMinorNumber()
		if ret1 == nvml.SUCCESS && ret2 == nvml.SUCCESS && ret3 == nvml.SUCCESS {
			// See NVIDIA's MIG User Guide, "Device Nodes and Capabilities".
			for _, access := range []string{fmt.Sprintf("gi%d/access", gi), fmt.Sprintf("gi%d/ci%d/access", gi, ci)} {
				if f, ok := r.capability(fmt.Sprintf("gpu%d/mig/%s", minor, access)); ok {
					d.Files = append(d.Files, f)
				}
			}
		}
		all = append(all, d)
	}
	return all
}

// capability finds the device file that stands for a capability.
func (r *reader) capability(name string) (gpu.File, bool) {
	text, err := os.ReadFile(filepath.Join(r.root, "proc/driver/nvidia/capabilities", name))
	if err != nil {
		return gpu.File{}, false
	}
	for line := range strings.Lines(string(text)) {
		if n, ok := strings.CutPrefix(strings.TrimSpace(line), "DeviceFileMinor:"); ok {
			return r.file("nvidia-caps/nvidia-cap" + strings.TrimSpace(n))
		}
	}
	return gpu.File{}, false
}

// file looks at a device file.
func (r *reader) file(name string) (gpu.File, bool) {
	path := filepath.Join(r.root, "dev", name)
	major, minor, err := deviceNumber(path)
	return gpu.File{Path: path, Major: major, Minor: minor}, err == nil
}
