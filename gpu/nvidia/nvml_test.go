//go:build cgo

package nvidia

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/dgxh200"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/server"

	"github.com/mayfly/mayfly/gpu"
)

// TestReader reads a DGX H200 as the authors of the bindings have it, completed by what a test wants.
func TestReader(t *testing.T) {
	t.Parallel()
	host := dgxh200.New()
	root := t.TempDir()
	r := &reader{nvml: host, root: root, has: func(f string) bool { return !strings.HasPrefix(f, "nvmlDeviceGetMPSComputeRunningProcesses") }}
	for i := range host.Devices {
		complete(host.Devices[i].(*server.Device))
	}
	inventory, err := r.inventory()
	if err != nil || len(inventory.Devices) != 8 {
		t.Fatalf("%+v, %v", inventory, err)
	}
	d := inventory.Devices[3]
	if !strings.Contains(d.Model, "H200") || d.Memory < 100<<30 || !strings.HasPrefix(d.UUID, "GPU-") || d.Index != 3 || d.Node != -1 || len(d.Links) != 7 || d.Divided {
		t.Errorf("%+v", d)
	}
	if d.Files != nil {
		t.Errorf("files that are not there: %+v", d.Files)
	}
	// The memory node is the host's to say.
	dir := filepath.Join(root, "sys/bus/pci/devices", d.PCI)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "numa_node"), []byte("1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if inventory, err = r.inventory(); err != nil || inventory.Devices[3].Node != 1 {
		t.Errorf("%+v, %v", inventory, err)
	}
	states, err := r.states([]string{d.UUID})
	if err != nil || len(states) != 1 {
		t.Fatalf("%+v, %v", states, err)
	}
	s := states[0]
	if s.Used != 5<<30 || s.Power != 300 || s.Energy != 7 || s.Utilization != 0.5 || s.Temperature != 40 || s.Recovery != recovery(2) || !s.RecoveryKnown || s.Remap != "" || s.Lost != "" {
		t.Errorf("%+v", s)
	}
	// One process computes and draws; of another one the driver does not know the memory.
	if len(s.Processes) != 2 || s.Processes[0] != (gpu.Process{PID: 7, Memory: 1 << 30}) || s.Processes[1] != (gpu.Process{PID: 8, Graphics: true}) {
		t.Errorf("%+v", s.Processes)
	}
}

// complete gives a device of the mock what it lacks.
func complete(d *server.Device) {
	d.GetTopologyCommonAncestorFunc = func(nvml.Device) (nvml.GpuTopologyLevel, nvml.Return) { return nvml.TOPOLOGY_SYSTEM, nvml.SUCCESS }
	d.GetNvLinkStateFunc = func(int) (nvml.EnableState, nvml.Return) { return 0, nvml.ERROR_NOT_SUPPORTED }
	d.GetCpuAffinityFunc = func(int) ([]uint, nvml.Return) { return []uint{0b1011}, nvml.SUCCESS }
	d.GetNumaNodeIdFunc = func() (int, nvml.Return) { return 0, nvml.ERROR_NOT_SUPPORTED }
	d.GetMemoryInfo_v2Func = func() (nvml.Memory_v2, nvml.Return) { return nvml.Memory_v2{Used: 5 << 30}, nvml.SUCCESS }
	d.GetPowerUsageFunc = func() (uint32, nvml.Return) { return 300_000, nvml.SUCCESS }
	d.GetEnforcedPowerLimitFunc = func() (uint32, nvml.Return) { return 0, nvml.ERROR_NOT_SUPPORTED }
	d.GetTotalEnergyConsumptionFunc = func() (uint64, nvml.Return) { return 7000, nvml.SUCCESS }
	d.GetTemperatureFunc = func(nvml.TemperatureSensors) (uint32, nvml.Return) { return 40, nvml.SUCCESS }
	d.GetUtilizationRatesFunc = func() (nvml.Utilization, nvml.Return) { return nvml.Utilization{Gpu: 50}, nvml.SUCCESS }
	d.GetTotalEccErrorsFunc = func(nvml.MemoryErrorType, nvml.EccCounterType) (uint64, nvml.Return) { return 3, nvml.SUCCESS }
	d.GetRemappedRowsFunc = func() (int, int, bool, bool, nvml.Return) { return 1, 0, false, false, nvml.SUCCESS }
	d.GetFieldValuesFunc = func(values []nvml.FieldValue) nvml.Return {
		values[0].Value[0] = 2
		return nvml.SUCCESS
	}
	d.GetComputeRunningProcessesFunc = func() ([]nvml.ProcessInfo, nvml.Return) {
		return []nvml.ProcessInfo{{Pid: 7, UsedGpuMemory: 1 << 30}}, nvml.SUCCESS
	}
	d.GetMPSComputeRunningProcessesFunc = func() ([]nvml.ProcessInfo, nvml.Return) { panic("the library lacks this") }
	d.GetGraphicsRunningProcessesFunc = func() ([]nvml.ProcessInfo, nvml.Return) {
		return []nvml.ProcessInfo{{Pid: 7, UsedGpuMemory: 1 << 20}, {Pid: 8, UsedGpuMemory: ^uint64(0)}}, nvml.SUCCESS
	}
}

// TestEventOfALostGPU has a GPU reported that cannot be asked for its name any more.
func TestEventOfALostGPU(t *testing.T) {
	t.Parallel()
	lost := &mock.Device{GetUUIDFunc: func() (string, nvml.Return) { return "", nvml.ERROR_GPU_IS_LOST }}
	r := &reader{has: func(string) bool { return false }, watched: map[nvml.Device]string{lost: "GPU-1"}}
	if f, ok := r.fault(&nvml.EventData{Device: lost, EventType: nvml.EventTypeXidCriticalError, EventData: 79}); !ok || f.GPU != "GPU-1" || f.Severity != gpu.Broken {
		t.Errorf("%+v, %t", f, ok)
	}
	if _, ok := r.fault(&nvml.EventData{Device: lost, EventType: nvml.EventTypeXidCriticalError, EventData: 63}); ok {
		t.Error("a report that asks for nothing is passed on")
	}
}

// TestPolicy holds that every number is judged, and the ones that stop a host are.
func TestPolicy(t *testing.T) {
	t.Parallel()
	for number, want := range map[uint64]gpu.Severity{13: gpu.Application, 31: gpu.Application, 43: gpu.Application, 63: ignored, 92: ignored, 94: gpu.Application, 121: ignored,
		46: gpu.Broken, 62: gpu.Broken, 64: gpu.Broken, 95: gpu.Broken, 109: gpu.Broken, 110: gpu.Broken, 119: gpu.Broken, 120: gpu.Broken, 140: gpu.Broken, 143: gpu.Broken,
		79: gpu.Broken, 45: gpu.Application, 48: gpu.Check, 74: gpu.Check, 154: gpu.Check, 99999: gpu.Check} {
		if got, text := judge(number); got != want || !strings.HasPrefix(text, "XID ") {
			t.Errorf("XID %d: %d (%s), want %d", number, got, text, want)
		}
	}
	for action := range uint64(9) {
		if words := recovery(action); (words == "") != (action == 0) {
			t.Errorf("recovery action %d: %q", action, words)
		}
	}
}

// TestList writes processors as Linux does.
func TestList(t *testing.T) {
	t.Parallel()
	for want, mask := range map[string][]uint{"": {0}, "0": {1}, "0-1,3": {0b1011}, "63-64": {1 << 63, 1}, "0-127": {^uint(0), ^uint(0)}} {
		if got := list(mask); got != want {
			t.Errorf("%v: %q, want %q", mask, got, want)
		}
	}
}
