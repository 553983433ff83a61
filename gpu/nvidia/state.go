//go:build cgo

package nvidia

import (
	"encoding/binary"
	"math"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"github.com/mayfly/mayfly/gpu"
)

// states looks at GPUs.
func (r *reader) states(gpus []string) ([]gpu.State, error) {
	var all []gpu.State
	for _, uuid := range gpus {
		h, ret := r.handle(uuid)
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

// handle finds a GPU.
func (r *reader) handle(uuid string) (nvml.Device, nvml.Return) {
	if r.has("nvmlDeviceGetHandleByUUID") {
		return r.nvml.DeviceGetHandleByUUID(uuid)
	}
	n, _ := r.nvml.DeviceGetCount()
	for index := range n {
		if h, ret := r.nvml.DeviceGetHandleByIndex(index); ret == nvml.SUCCESS {
			if name, ret := h.GetUUID(); ret == nvml.SUCCESS && name == uuid {
				return h, ret
			}
		}
	}
	return nil, nvml.ERROR_NOT_FOUND
}

// state reads what changes of a GPU. What a driver does not tell stays zero.
func (r *reader) state(h nvml.Device, s *gpu.State) {
	used, ret := r.used(h)
	if ret == nvml.ERROR_GPU_IS_LOST || ret == nvml.ERROR_RESET_REQUIRED {
		s.Lost = "the driver has lost it: " + said(ret)
		return
	}
	s.Used = used
	if mw, ok := read(r, "nvmlDeviceGetPowerUsage", h.GetPowerUsage); ok {
		s.Power = float64(mw) / 1000
	}
	if mw, ok := read(r, "nvmlDeviceGetEnforcedPowerLimit", h.GetEnforcedPowerLimit); ok {
		s.PowerLimit = float64(mw) / 1000
	}
	if mj, ok := read(r, "nvmlDeviceGetTotalEnergyConsumption", h.GetTotalEnergyConsumption); ok {
		s.Energy = float64(mj) / 1000
	}
	if t, ok := read(r, "nvmlDeviceGetTemperature", func() (uint32, nvml.Return) { return h.GetTemperature(nvml.TEMPERATURE_GPU) }); ok {
		s.Temperature = int(t)
	}
	if u, ok := read(r, "nvmlDeviceGetUtilizationRates", h.GetUtilizationRates); ok {
		s.Utilization = float64(u.Gpu) / 100
	}
	errorCount := func() (uint64, nvml.Return) {
		return h.GetTotalEccErrors(nvml.MEMORY_ERROR_TYPE_UNCORRECTED, nvml.VOLATILE_ECC)
	}
	if n, ok := read(r, "nvmlDeviceGetTotalEccErrors", errorCount); ok {
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
	add := func(function string, call func() ([]nvml.ProcessInfo, nvml.Return), graphics bool) {
		list, _ := read(r, function, call)
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
	add("nvmlDeviceGetComputeRunningProcesses", h.GetComputeRunningProcesses, false)
	add("nvmlDeviceGetMPSComputeRunningProcesses", h.GetMPSComputeRunningProcesses, false)
	add("nvmlDeviceGetGraphicsRunningProcesses", h.GetGraphicsRunningProcesses, true)
}
