//go:build cgo

package nvidia

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"github.com/mayfly/mayfly/gpu"
)

// reader asks NVML.
type reader struct {
	nvml nvml.Interface
	// has reports whether the driver's library has a function: to call one that it lacks ends the process.
	has  func(function string) bool
	root string
	// set has the events, report takes the faults. watched are the UUIDs of the GPUs in it; one that is lost cannot be asked for its own.
	set     nvml.EventSet
	report  func(gpu.Fault)
	watched map[nvml.Device]string
}

// open loads the library and initializes it.
func open(s settings) (library, error) {
	var options []nvml.LibraryOption
	if s.Library != "" {
		options = append(options, nvml.WithLibraryPath(s.Library))
	}
	lib := nvml.New(options...)
	switch r := lib.Init(); {
	case r == nvml.ERROR_LIBRARY_NOT_FOUND:
		return nil, fmt.Errorf("%w: NVIDIA's driver is not installed (no libnvidia-ml.so.1)", gpu.ErrNone)
	case r == nvml.ERROR_DRIVER_NOT_LOADED:
		return nil, fmt.Errorf("%w: NVIDIA's library is there, but its driver is not loaded (modprobe nvidia)", gpu.ErrNone)
	case r != nvml.SUCCESS:
		return nil, fmt.Errorf("cannot start NVML: %s", said(r))
	}
	r := &reader{nvml: lib, root: s.Root, watched: map[nvml.Device]string{}}
	r.has = func(function string) bool { return lib.Extensions().LookupSymbol(function) == nil }
	r.makeFiles()
	return r, nil
}

// makeFiles has the driver's tool make the device files of unified memory, which programs without rights cannot have made.
func (r *reader) makeFiles() {
	if _, err := os.Stat(filepath.Join(r.root, "dev/nvidia-uvm")); r.root != "/" || err == nil || os.Geteuid() != 0 {
		return
	}
	if path, err := exec.LookPath("nvidia-modprobe"); err == nil {
		// Without it, the first CUDA program of a user with rights does.
		_ = exec.CommandContext(context.Background(), path, "-u", "-c=0").Run()
	}
}

// said are NVML's own words for an error.
func said(r nvml.Return) string { return nvml.ErrorString(r) }

func (r *reader) inventory() (*gpu.Inventory, error) {
	n, ret := r.nvml.DeviceGetCount()
	if ret != nvml.SUCCESS {
		return nil, fmt.Errorf("cannot count the GPUs: %s", said(ret))
	}
	i := &gpu.Inventory{}
	i.Driver, _ = r.nvml.SystemGetDriverVersion()
	if v, ret := r.nvml.SystemGetCudaDriverVersion(); ret == nvml.SUCCESS {
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
	d.Model, _ = h.GetName()
	if m, ret := h.GetMemoryInfo(); ret == nvml.SUCCESS {
		d.Memory = int64(m.Total)
	}
	if p, ret := h.GetPciInfo(); ret == nvml.SUCCESS {
		d.PCI = address(p)
		d.Node = nodeOf(r.root, d.PCI)
	}
	if d.Node < 0 && r.has("nvmlDeviceGetNumaNodeId") {
		if n, ret := h.GetNumaNodeId(); ret == nvml.SUCCESS {
			d.Node = n
		}
	}
	if mask, ret := h.GetCpuAffinity(max(runtime.NumCPU(), 1024)); ret == nvml.SUCCESS {
		d.CPUs = list(mask)
	}
	d.Divided = r.divided(h)
	if minor, ret := h.GetMinorNumber(); ret == nvml.SUCCESS {
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
		if level, ret := handles[at].GetTopologyCommonAncestor(h); ret == nvml.SUCCESS {
			l.Level = levelName(level)
		}
		if p, ret := h.GetPciInfo(); ret == nvml.SUCCESS {
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
		if p, ret := h.GetNvLinkRemotePciInfo(link); ret == nvml.SUCCESS {
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
	if !r.has("nvmlDeviceGetMigMode") { // before R450
		return false
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

// states looks at GPUs.
func (r *reader) states(gpus []string) ([]gpu.State, error) {
	var all []gpu.State
	for _, uuid := range gpus {
		h, ret := r.nvml.DeviceGetHandleByUUID(uuid)
		s := gpu.State{UUID: uuid, At: time.Now()}
		if ret == nvml.SUCCESS {
			r.state(h, &s)
		} else {
			s.Lost = "the driver has lost it: " + said(ret)
		}
		all = append(all, s)
	}
	return all, nil
}

// state reads what changes of a GPU. What a driver does not tell stays zero.
func (r *reader) state(h nvml.Device, s *gpu.State) {
	used, ret := r.used(h)
	if ret == nvml.ERROR_GPU_IS_LOST || ret == nvml.ERROR_RESET_REQUIRED {
		s.Lost = "the driver has lost it: " + said(ret)
		return
	}
	s.Used = used
	if mw, ret := h.GetPowerUsage(); ret == nvml.SUCCESS {
		s.Power = float64(mw) / 1000
	}
	if mw, ret := h.GetEnforcedPowerLimit(); ret == nvml.SUCCESS {
		s.PowerLimit = float64(mw) / 1000
	}
	if mj, ret := h.GetTotalEnergyConsumption(); ret == nvml.SUCCESS {
		s.Energy = float64(mj) / 1000
	}
	if t, ret := h.GetTemperature(nvml.TEMPERATURE_GPU); ret == nvml.SUCCESS {
		s.Temperature = int(t)
	}
	if u, ret := h.GetUtilizationRates(); ret == nvml.SUCCESS {
		s.Utilization = float64(u.Gpu) / 100
	}
	if n, ret := h.GetTotalEccErrors(nvml.MEMORY_ERROR_TYPE_UNCORRECTED, nvml.VOLATILE_ECC); ret == nvml.SUCCESS {
		s.Uncorrected = int64(n)
	}
	if r.has("nvmlDeviceGetRemappedRows") {
		if _, _, pending, failed, ret := h.GetRemappedRows(); ret == nvml.SUCCESS {
			switch {
			case failed:
				s.Remap = "the remapping of bad memory rows has failed: the GPU is to be replaced"
			case pending:
				s.Remap = "bad memory rows are remapped at its next reset (nvidia-smi --gpu-reset)"
			}
		}
	}
	s.Recovery, s.RecoveryKnown = r.recovery(h)
	r.processes(h, s)
}

// used reads the memory in use, without what the driver reserves where it tells.
func (r *reader) used(h nvml.Device) (int64, nvml.Return) {
	if r.has("nvmlDeviceGetMemoryInfo_v2") {
		if m, ret := h.GetMemoryInfo_v2(); ret != nvml.ERROR_NOT_SUPPORTED {
			return int64(m.Used), ret
		}
	}
	m, ret := h.GetMemoryInfo()
	return int64(m.Used), ret
}

// recovery asks what the driver wants done.
func (r *reader) recovery(h nvml.Device) (string, bool) {
	if !r.has("nvmlDeviceGetFieldValues") {
		return "", false
	}
	values := []nvml.FieldValue{{FieldId: nvml.FI_DEV_GET_GPU_RECOVERY_ACTION}}
	if h.GetFieldValues(values) != nvml.SUCCESS || nvml.Return(values[0].NvmlReturn) != nvml.SUCCESS {
		return "", false
	}
	n := uint64(binary.NativeEndian.Uint32(values[0].Value[:4])) // an unsigned int (nvmlValue_t)
	return recovery(n), true
}

// processes lists who uses a GPU, and what its instances use.
func (r *reader) processes(h nvml.Device, s *gpu.State) {
	type key struct{ gi, ci uint32 }
	uuids := map[key]string{}
	if r.divided(h) {
		s.Instances = map[string]int64{}
		for _, m := range migHandles(h) {
			uuid, ret := m.GetUUID()
			gi, ret1 := m.GetGpuInstanceId()
			ci, ret2 := m.GetComputeInstanceId()
			if ret != nvml.SUCCESS || ret1 != nvml.SUCCESS || ret2 != nvml.SUCCESS {
				continue
			}
			uuids[key{uint32(gi), uint32(ci)}] = uuid
			s.Instances[uuid], _ = r.used(m)
		}
	}
	seen := map[int]int{} // positions by PID
	add := func(list []nvml.ProcessInfo, ret nvml.Return, graphics bool) {
		if ret != nvml.SUCCESS {
			return
		}
		for _, p := range list {
			memory := int64(0)
			if p.UsedGpuMemory < math.MaxInt64 { // NVML_VALUE_NOT_AVAILABLE is all ones
				memory = int64(p.UsedGpuMemory)
			}
			instance := uuids[key{p.GpuInstanceId, p.ComputeInstanceId}]
			if at, ok := seen[int(p.Pid)]; ok && s.Processes[at].Instance == instance {
				s.Processes[at].Graphics = s.Processes[at].Graphics && graphics
				s.Processes[at].Memory = max(s.Processes[at].Memory, memory)
				continue
			}
			seen[int(p.Pid)] = len(s.Processes)
			s.Processes = append(s.Processes, gpu.Process{PID: int(p.Pid), Memory: memory, Graphics: graphics, Instance: instance})
		}
	}
	list, ret := h.GetComputeRunningProcesses()
	add(list, ret, false)
	if r.has("nvmlDeviceGetMPSComputeRunningProcesses_v3") || r.has("nvmlDeviceGetMPSComputeRunningProcesses") {
		list, ret = h.GetMPSComputeRunningProcesses()
		add(list, ret, false)
	}
	list, ret = h.GetGraphicsRunningProcesses()
	add(list, ret, true)
}

const (
	// waitLimit is how long the event loop waits at a time.
	waitLimit = time.Second
	// settleLimit is how long there must have been no event for settle: a driver reports an error before it fails the calls of the program
	// that it belongs to, or next to it.
	settleLimit = 20 * time.Millisecond
)

// watch implements library.
func (r *reader) watch(report func(gpu.Fault)) error {
	for _, f := range []string{"nvmlEventSetCreate", "nvmlDeviceRegisterEvents", "nvmlEventSetWait_v2"} {
		if !r.has(f) {
			return errors.New("cannot watch for GPU errors: the driver's library lacks " + f)
		}
	}
	set, ret := r.nvml.EventSetCreate()
	if ret != nvml.SUCCESS {
		return fmt.Errorf("cannot watch for GPU errors: %s", said(ret))
	}
	n, _ := r.nvml.DeviceGetCount()
	for index := range n {
		h, ret := r.nvml.DeviceGetHandleByIndex(index)
		if ret != nvml.SUCCESS {
			continue
		}
		wanted := uint64(nvml.EventTypeXidCriticalError | nvml.EventTypeDoubleBitEccError)
		if known, ret := h.GetSupportedEventTypes(); ret == nvml.SUCCESS {
			wanted &= known
		}
		if uuid, ret := h.GetUUID(); ret == nvml.SUCCESS && wanted != 0 {
			r.watched[h] = uuid
			_ = h.RegisterEvents(wanted, set) // one that cannot be watched is looked at all the same
		}
	}
	r.set, r.report = set, report
	go func() {
		for { // until the process ends
			if ret := r.wait(waitLimit); ret != nvml.SUCCESS && ret != nvml.ERROR_TIMEOUT {
				<-time.After(waitLimit) // the driver is in trouble, which the states tell
			}
		}
	}()
	return nil
}

// wait reports the next event.
func (r *reader) wait(limit time.Duration) nvml.Return {
	e, ret := r.set.Wait(uint32(limit.Milliseconds()))
	if ret != nvml.SUCCESS {
		return ret
	}
	if f, ok := r.fault(&e); ok {
		r.report(f)
	}
	return ret
}

// settle implements library. It waits beside the event loop, which may have to wait for long.
func (r *reader) settle() {
	for r.wait(settleLimit) == nvml.SUCCESS { //nolint:revive // reports
	}
}

// fault puts an event in our words; ok is false for one that asks for nothing.
func (r *reader) fault(e *nvml.EventData) (gpu.Fault, bool) {
	f := gpu.Fault{Severity: gpu.Check, Text: "double bit ECC error"}
	if e.EventType == nvml.EventTypeXidCriticalError {
		if f.Severity, f.Text = judge(e.EventData); f.Severity == ignored {
			return f, false
		}
	}
	if f.GPU = r.watched[e.Device]; f.GPU == "" {
		return f, false
	}
	if !r.divided(e.Device) {
		return f, true
	}
	for _, m := range migHandles(e.Device) {
		gi, ret1 := m.GetGpuInstanceId()
		ci, ret2 := m.GetComputeInstanceId()
		if ret1 == nvml.SUCCESS && ret2 == nvml.SUCCESS && uint32(gi) == e.GpuInstanceId && uint32(ci) == e.ComputeInstanceId {
			f.Instance, _ = m.GetUUID()
		}
	}
	return f, true
}
