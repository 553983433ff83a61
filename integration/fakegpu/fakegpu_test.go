//go:build cgo

package fakegpu

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
)

func TestDevices(t *testing.T) {
	alone(t, Options{GPUs: 4}, func(h *Host, lib nvml.Interface) {
		is(t, must[int](t)(lib.DeviceGetCount()), 4)
		is(t, must[string](t)(lib.SystemGetDriverVersion()), Driver)
		is(t, must[int](t)(lib.SystemGetCudaDriverVersion()), CUDA)
		_, r := lib.DeviceGetHandleByIndex(4)
		is(t, r, nvml.ERROR_INVALID_ARGUMENT)
		for i := range 4 {
			d := must[nvml.Device](t)(lib.DeviceGetHandleByIndex(i))
			is(t, must[string](t)(d.GetUUID()), fmt.Sprintf("GPU-00000000-0000-0000-0000-00000000000%d", i))
			is(t, must[string](t)(d.GetName()), "NVIDIA H100 80GB HBM3")
			is(t, must[int](t)(d.GetMinorNumber()), i)
			is(t, must[int](t)(d.GetIndex()), i)
			is(t, must[bool](t)(d.IsMigDeviceHandle()), false)
			affinity := must[[]uint](t)(d.GetCpuAffinity(64))
			is(t, affinity[0], uint(0xFFFFFFFF)<<(32*(i/2)))
			is(t, must[[]uint](t)(d.GetMemoryAffinity(64, nvml.AFFINITY_SCOPE_NODE))[0], uint(1)<<(i/2))
			_, r := d.GetNumaNodeId()
			is(t, r, nvml.ERROR_NOT_SUPPORTED)

			pci := must[nvml.PciInfo](t)(d.GetPciInfo())
			var id strings.Builder
			for _, c := range pci.BusId {
				if c != 0 {
					id.WriteByte(byte(c))
				}
			}
			is(t, id.String(), h.GPU(i).PCI)
			is(t, int(pci.Bus), 0x18+8*i)
			is(t, must[nvml.Device](t)(lib.DeviceGetHandleByUUID(h.GPU(i).UUID)), d)
			for _, name := range []string{h.GPU(i).PCI, strings.ToLower(h.GPU(i).PCI[4:]), h.GPU(i).PCI[9:]} {
				is(t, must[nvml.Device](t)(lib.DeviceGetHandleByPciBusId(name)), d)
			}
		}
		_, r = lib.DeviceGetHandleByUUID("GPU-0")
		is(t, r, nvml.ERROR_NOT_FOUND)
		_, r = lib.DeviceGetHandleByPciBusId("0000:77:00.0")
		is(t, r, nvml.ERROR_NOT_FOUND)

		d := must[nvml.Device](t)(lib.DeviceGetHandleByIndex(1))
		h.Update(func(gpus []*GPU) { gpus[1].Lost = true })
		_, r = d.GetUUID()
		is(t, r, nvml.ERROR_GPU_IS_LOST)
		_, r = lib.DeviceGetHandleByIndex(1)
		is(t, r, nvml.ERROR_GPU_IS_LOST)
		ok(t, second(lib.DeviceGetHandleByIndex(2)))

		ok(t, lib.Init())
		ok(t, lib.Shutdown())
		ok(t, lib.Shutdown()) // go-nvml has now closed the library too
		is(t, lib.Shutdown(), nvml.ERROR_UNINITIALIZED)
		_, r = lib.DeviceGetCount()
		is(t, r, nvml.ERROR_UNINITIALIZED)
		ok(t, lib.Init())
	})
}

func second[T any](_ T, r nvml.Return) nvml.Return { return r }

func TestMemoryAndProcesses(t *testing.T) {
	alone(t, Options{GPUs: 2}, func(h *Host, lib nvml.Interface) {
		d := must[nvml.Device](t)(lib.DeviceGetHandleByIndex(1))
		m := must[nvml.Memory_v2](t)(d.GetMemoryInfo_v2())
		is(t, m.Total, 80<<30)
		is(t, m.Reserved, 560<<20)
		is(t, m.Used, 0)
		is(t, m.Free, 80<<30-560<<20)
		is(t, len(must[[]nvml.ProcessInfo](t)(d.GetComputeRunningProcesses())), 0)

		for pid := range 5 {
			h.AddProcess(h.GPU(1).UUID, 100+pid, 1<<30)
		}
		h.Update(func(gpus []*GPU) {
			gpus[1].Used = 3
			gpus[1].Processes = append(gpus[1].Processes, Process{PID: 7, Kind: Graphics, Bytes: 5}, Process{PID: 8, Kind: MPS, Bytes: Unknown})
		})
		all := must[[]nvml.ProcessInfo](t)(d.GetComputeRunningProcesses())
		is(t, len(all), 5)
		is(t, all[4], nvml.ProcessInfo{Pid: 104, UsedGpuMemory: 1 << 30, GpuInstanceId: whole, ComputeInstanceId: whole})
		is(t, must[[]nvml.ProcessInfo](t)(d.GetGraphicsRunningProcesses())[0].Pid, 7)
		is(t, must[[]nvml.ProcessInfo](t)(d.GetMPSComputeRunningProcesses())[0].UsedGpuMemory, Unknown)
		is(t, must[nvml.Memory_v2](t)(d.GetMemoryInfo_v2()).Used, 5<<30+8)
		is(t, must[nvml.Memory](t)(d.GetMemoryInfo()).Used, 5<<30+8+560<<20)
		h.RemoveProcess(100)
		is(t, len(must[[]nvml.ProcessInfo](t)(d.GetComputeRunningProcesses())), 4)
		is(t, must[nvml.Memory_v2](t)(must[nvml.Device](t)(lib.DeviceGetHandleByIndex(0)).GetMemoryInfo_v2()).Used, 0)
	})
}

func TestTopology(t *testing.T) {
	alone(t, Options{}, func(h *Host, lib nvml.Interface) {
		var d []nvml.Device
		for i := range must[int](t)(lib.DeviceGetCount()) {
			d = append(d, must[nvml.Device](t)(lib.DeviceGetHandleByIndex(i)))
		}
		is(t, len(d), 8)
		near := func(a, b int) nvml.GpuTopologyLevel {
			return must[nvml.GpuTopologyLevel](t)(d[a].GetTopologyCommonAncestor(d[b]))
		}
		is(t, near(0, 1), nvml.TOPOLOGY_SINGLE)
		is(t, near(3, 0), nvml.TOPOLOGY_NODE)
		is(t, near(3, 4), nvml.TOPOLOGY_SYSTEM)
		linked := func(a, b int) bool {
			return must[nvml.GpuP2PStatus](t)(d[a].GetP2PStatus(d[b], nvml.P2P_CAPS_INDEX_NVLINK)) == nvml.P2P_STATUS_OK
		}
		is(t, linked(0, 3), true)
		is(t, linked(0, 4), false)

		ends := func(a int) map[uint32]int {
			buses := map[uint32]int{}
			for link := range nvml.NVLINK_MAX_LINKS {
				if must[nvml.EnableState](t)(d[a].GetNvLinkState(link)) == nvml.FEATURE_ENABLED {
					buses[must[nvml.PciInfo](t)(d[a].GetNvLinkRemotePciInfo(link)).Bus]++
				}
			}
			return buses
		}
		is(t, fmt.Sprint(ends(1)), fmt.Sprint(map[uint32]int{0x18: 4, 0x28: 4, 0x30: 4}))
		_, r := d[0].GetNvLinkState(nvml.NVLINK_MAX_LINKS)
		is(t, r, nvml.ERROR_INVALID_ARGUMENT)

		h.Update(func(gpus []*GPU) {
			for i := range gpus {
				for peer := range i {
					Connect(gpus, i, peer, LevelNode, 0)
				}
				if i < 6 {
					gpus[i].Switched = 18
				}
			}
			Connect(gpus, 6, 7, LevelSingle, 2)
		})
		is(t, linked(0, 5), true)
		is(t, linked(0, 6), false)
		is(t, near(0, 7), nvml.TOPOLOGY_NODE)
		is(t, fmt.Sprint(ends(0)), fmt.Sprint(map[uint32]int{0xC1: 18}))
		is(t, fmt.Sprint(ends(7)), fmt.Sprint(map[uint32]int{0x48: 2}))
	})
}

func TestMIG(t *testing.T) {
	alone(t, Options{GPUs: 2}, func(h *Host, lib nvml.Interface) {
		d := must[nvml.Device](t)(lib.DeviceGetHandleByIndex(1))
		current, pending, r := d.GetMigMode()
		ok(t, r)
		is(t, [2]int{current, pending}, [2]int{})
		is(t, must[int](t)(d.GetMaxMigDeviceCount()), 0)
		_, r = d.GetMigDeviceHandleByIndex(0)
		is(t, r, nvml.ERROR_NOT_FOUND)

		h.EnableMIG(1, "3g.40gb", "1g.10gb", "1g.10gb")
		current, _, _ = d.GetMigMode()
		is(t, current, 1)
		is(t, must[int](t)(d.GetMaxMigDeviceCount()), 7)
		_, r = d.GetMigDeviceHandleByIndex(3)
		is(t, r, nvml.ERROR_NOT_FOUND)
		_, r = d.GetMigDeviceHandleByIndex(7)
		is(t, r, nvml.ERROR_INVALID_ARGUMENT)
		m := must[nvml.Device](t)(d.GetMigDeviceHandleByIndex(2))
		is(t, must[bool](t)(m.IsMigDeviceHandle()), true)
		is(t, must[string](t)(m.GetName()), "NVIDIA H100 80GB HBM3 MIG 1g.10gb")
		is(t, must[int](t)(m.GetGpuInstanceId()), 8)
		is(t, must[int](t)(m.GetComputeInstanceId()), 0)
		is(t, must[int](t)(m.GetIndex()), 2)
		is(t, must[nvml.Device](t)(m.GetDeviceHandleFromMigDeviceHandle()), d)
		uuid := must[string](t)(m.GetUUID())
		is(t, uuid, "MIG-00000000-0000-0008-0000-000000000001")
		is(t, must[nvml.Device](t)(lib.DeviceGetHandleByUUID(uuid)), m)
		a := must[nvml.DeviceAttributes](t)(m.GetAttributes())
		is(t, a, nvml.DeviceAttributes{MultiprocessorCount: 16, GpuInstanceSliceCount: 1, ComputeInstanceSliceCount: 1, MemorySizeMB: 9984})

		h.AddProcess(uuid, 42, 1<<20)
		want := nvml.ProcessInfo{Pid: 42, UsedGpuMemory: 1 << 20, GpuInstanceId: 8, ComputeInstanceId: 0}
		for _, device := range []nvml.Device{d, m} {
			all := must[[]nvml.ProcessInfo](t)(device.GetComputeRunningProcesses())
			is(t, len(all), 1)
			is(t, all[0], want)
			is(t, must[nvml.Memory_v2](t)(device.GetMemoryInfo_v2()).Used, 1<<20)
		}
		other := must[nvml.Device](t)(d.GetMigDeviceHandleByIndex(1))
		is(t, len(must[[]nvml.ProcessInfo](t)(other.GetComputeRunningProcesses())), 0)
		is(t, must[nvml.Memory_v2](t)(other.GetMemoryInfo_v2()).Used, 0)

		is(t, second(m.GetPowerUsage()), nvml.ERROR_NOT_SUPPORTED)
		is(t, second(m.GetTotalEnergyConsumption()), nvml.ERROR_NOT_SUPPORTED)
		is(t, second(m.GetUtilizationRates()), nvml.ERROR_NOT_SUPPORTED)
		is(t, second(d.GetUtilizationRates()), nvml.ERROR_NOT_SUPPORTED)
		h.DisableMIG(1)
		is(t, second(m.GetUUID()), nvml.ERROR_INVALID_ARGUMENT)
		ok(t, second(d.GetUtilizationRates()))
	})
}

func TestCondition(t *testing.T) {
	alone(t, Options{GPUs: 1}, func(h *Host, lib nvml.Interface) {
		d := must[nvml.Device](t)(lib.DeviceGetHandleByIndex(0))
		h.Update(func(gpus []*GPU) {
			g := gpus[0]
			g.Power, g.Temperature, g.Busy, g.MemoryBusy, g.Recovery = 500_000, 61, 97, 40, 4
			g.Remapped = Remapped{Correctable: 1, Uncorrectable: 2, Pending: true}
			g.ECC = ECC{Corrected: 3, Uncorrected: 4, AllCorrected: 5, AllUncorrected: 6}
		})
		is(t, must[uint32](t)(d.GetPowerUsage()), 500_000)
		is(t, must[uint32](t)(d.GetEnforcedPowerLimit()), 700_000)
		is(t, must[uint32](t)(d.GetTemperature(nvml.TEMPERATURE_GPU)), 61)
		is(t, must[nvml.Utilization](t)(d.GetUtilizationRates()), nvml.Utilization{Gpu: 97, Memory: 40})
		is(t, must[nvml.EnableState](t)(d.GetPersistenceMode()), nvml.FEATURE_ENABLED)
		correctable, uncorrectable, pending, failed, r := d.GetRemappedRows()
		ok(t, r)
		is(t, fmt.Sprint(correctable, uncorrectable, pending, failed), "1 2 true false")
		is(t, must[uint64](t)(d.GetTotalEccErrors(nvml.MEMORY_ERROR_TYPE_UNCORRECTED, nvml.VOLATILE_ECC)), 4)
		is(t, must[uint64](t)(d.GetTotalEccErrors(nvml.MEMORY_ERROR_TYPE_CORRECTED, nvml.AGGREGATE_ECC)), 5)

		values := []nvml.FieldValue{{FieldId: nvml.FI_DEV_GET_GPU_RECOVERY_ACTION}, {FieldId: nvml.FI_DEV_NVLINK_BANDWIDTH_C0_L0}}
		ok(t, d.GetFieldValues(values))
		is(t, nvml.Return(values[0].NvmlReturn), nvml.SUCCESS)
		is(t, nvml.ValueType(values[0].ValueType), nvml.VALUE_TYPE_UNSIGNED_INT)
		is(t, values[0].Value, [8]byte{4})
		is(t, nvml.Return(values[1].NvmlReturn), nvml.ERROR_NOT_SUPPORTED)
		h.Update(func(gpus []*GPU) { gpus[0].Recovery = -1 })
		ok(t, d.GetFieldValues(values))
		is(t, nvml.Return(values[0].NvmlReturn), nvml.ERROR_NOT_SUPPORTED)

		// The energy never goes back, whatever is written in between, and grows as fast as the power says.
		begin := time.Now()
		first := must[uint64](t)(d.GetTotalEnergyConsumption())
		last := first
		for time.Since(begin) < 100*time.Millisecond {
			h.Update(func([]*GPU) {})
			now := must[uint64](t)(d.GetTotalEnergyConsumption())
			if now < last {
				t.Fatalf("the energy fell from %d to %d", last, now)
			}
			last = now
		}
		if most := uint64(500 * (time.Since(begin).Milliseconds() + 2)); last-first < 40_000 || last-first > most {
			t.Fatalf("used %d mJ", last-first)
		}
	})
}

func TestEvents(t *testing.T) {
	alone(t, Options{GPUs: 3}, func(h *Host, lib nvml.Interface) {
		d := must[nvml.Device](t)(lib.DeviceGetHandleByIndex(0))
		last := must[nvml.Device](t)(lib.DeviceGetHandleByIndex(2))
		is(t, must[uint64](t)(d.GetSupportedEventTypes())&nvml.EventTypeXidCriticalError, nvml.EventTypeXidCriticalError)
		h.Xid(0, 13)
		set := must[nvml.EventSet](t)(lib.EventSetCreate())
		ok(t, d.RegisterEvents(nvml.EventTypeXidCriticalError, set))
		h.Xid(2, 43) // before it is registered
		ok(t, last.RegisterEvents(nvml.EventTypeXidCriticalError, set))
		is(t, last.RegisterEvents(1<<40, set), nvml.ERROR_NOT_SUPPORTED)
		begin := time.Now()
		is(t, second(set.Wait(50)), nvml.ERROR_TIMEOUT)
		if passed := time.Since(begin); passed < 50*time.Millisecond {
			t.Fatalf("waited only %v", passed)
		}
		h.Xid(1, 31)
		h.Event(0, 1, 0, whole, whole)
		h.Xid(2, 79)
		h.Event(0, xidEvent, 94, 8, 0)
		e := must[nvml.EventData](t)(set.Wait(1000))
		is(t, e, nvml.EventData{Device: last, EventType: xidEvent, EventData: 79, GpuInstanceId: whole, ComputeInstanceId: whole})
		e = must[nvml.EventData](t)(set.Wait(1000))
		is(t, e, nvml.EventData{Device: d, EventType: xidEvent, EventData: 94, GpuInstanceId: 8, ComputeInstanceId: 0})
		is(t, second(set.Wait(0)), nvml.ERROR_TIMEOUT)

		heard := make(chan nvml.EventData)
		go func() {
			e, _ := set.Wait(10_000)
			heard <- e
		}()
		h.Xid(0, 48)
		is(t, (<-heard).EventData, 48)
		ok(t, set.Free())
		is(t, second(set.Wait(0)), nvml.ERROR_INVALID_ARGUMENT)
	})
}

func TestFaults(t *testing.T) {
	alone(t, Options{GPUs: 1}, func(h *Host, lib nvml.Interface) {
		d := must[nvml.Device](t)(lib.DeviceGetHandleByIndex(0))
		h.Fail("nvmlDeviceGetMemoryInfo_v2", int(nvml.ERROR_UNKNOWN))
		is(t, second(d.GetMemoryInfo_v2()), nvml.ERROR_UNKNOWN)
		ok(t, second(d.GetMemoryInfo()))
		h.Slow(All, 50*time.Millisecond)
		begin := time.Now()
		ok(t, second(d.GetUUID()))
		if passed := time.Since(begin); passed < 50*time.Millisecond {
			t.Fatalf("waited only %v", passed)
		}
		h.ClearFaults()
		ok(t, second(d.GetMemoryInfo_v2()))
		h.Fail(All, int(nvml.ERROR_DRIVER_NOT_LOADED))
		is(t, lib.Init(), nvml.ERROR_DRIVER_NOT_LOADED)
		is(t, lib.ErrorString(nvml.ERROR_DRIVER_NOT_LOADED), "Driver Not Loaded")
		h.ClearFaults()

		h.Hang("nvmlDeviceGetPowerUsage")
		returned := make(chan struct{})
		go func() { // until the process ends
			_, _ = d.GetPowerUsage()
			close(returned)
		}()
		select {
		case <-returned:
			t.Fatal("it did not hang")
		case <-time.After(100 * time.Millisecond):
		}
		ok(t, second(d.GetUUID()))
		os.Exit(0) // without a search for leaks: one is meant
	})
}

func TestCrash(t *testing.T) {
	if os.Getenv(aloneVariable) == t.Name() {
		alone(t, Options{GPUs: 1}, func(h *Host, lib nvml.Interface) {
			h.Crash("nvmlDeviceGetCount_v2")
			_, _ = lib.DeviceGetCount()
		})
		return
	}
	t.Parallel()
	if out, err := child(t); err == nil || !strings.Contains(out, "SIGABRT") {
		t.Fatalf("%v\n%s", err, out)
	}
}

func TestMissingSymbols(t *testing.T) {
	without := []string{"nvmlDeviceGetFieldValues", "nvmlInit_v2", "nvmlDeviceGetComputeRunningProcesses_v3",
		"nvmlDeviceGetMPSComputeRunningProcesses_v2", "nvmlDeviceGetMPSComputeRunningProcesses_v3"}
	alone(t, Options{GPUs: 1, Without: without}, func(h *Host, lib nvml.Interface) {
		for _, symbol := range without {
			if err := lib.Extensions().LookupSymbol(symbol); err == nil {
				t.Fatalf("%s is there", symbol)
			}
		}
		if err := lib.Extensions().LookupSymbol("nvmlDeviceGetCount_v2"); err != nil {
			t.Fatal(err)
		}
		h.AddProcess(h.GPU(0).UUID, 5, 1) // seen through older versions of the functions
		h.Update(func(gpus []*GPU) { gpus[0].Processes = append(gpus[0].Processes, Process{PID: 6, Kind: MPS}) })
		d := must[nvml.Device](t)(lib.DeviceGetHandleByIndex(0))
		is(t, must[[]nvml.ProcessInfo](t)(d.GetComputeRunningProcesses())[0].Pid, 5)
		is(t, must[[]nvml.ProcessInfo](t)(d.GetMPSComputeRunningProcesses())[0].Pid, 6)
	})
}

// TestChangesWhileUsed reads with several threads while the state, the events and the faults change.
func TestChangesWhileUsed(t *testing.T) {
	alone(t, Options{GPUs: 2}, func(h *Host, lib nvml.Interface) {
		var group sync.WaitGroup
		done := make(chan struct{})
		for range 4 {
			group.Go(func() {
				d, _ := lib.DeviceGetHandleByIndex(0)
				set, _ := lib.EventSetCreate()
				_ = d.RegisterEvents(nvml.EventTypeXidCriticalError, set)
				for {
					select {
					case <-done:
						_ = set.Free()
						return
					default:
					}
					all, r := d.GetComputeRunningProcesses()
					if r != nvml.SUCCESS || len(all) > 1 {
						t.Errorf("got %v, %v", all, r)
						return
					}
					if m, r := d.GetMigDeviceHandleByIndex(0); r == nvml.SUCCESS {
						if name, r := m.GetName(); r == nvml.SUCCESS && !strings.HasSuffix(name, "MIG 7g.80gb") {
							t.Errorf("got %q", name)
						}
					}
					_, _ = set.Wait(1)
				}
			})
		}
		for i := range 200 {
			if i%2 == 0 {
				h.EnableMIG(0, "7g.80gb")
			} else {
				h.DisableMIG(0)
			}
			h.AddProcess(h.GPU(0).UUID, 1, 1)
			h.Xid(0, uint64(i))
			h.RemoveProcess(1)
			h.Slow("nvmlDeviceGetName", time.Millisecond)
			h.ClearFaults()
		}
		close(done)
		group.Wait()
	})
}
