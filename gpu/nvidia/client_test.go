//go:build cgo

package nvidia_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mayfly/mayfly/gpu"
	"github.com/mayfly/mayfly/gpu/nvidia"
	"github.com/mayfly/mayfly/integration/fakegpu"
)

func inventory(t *testing.T, c *nvidia.Client) *gpu.Inventory {
	t.Helper()
	i, err := c.Inventory(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func state(t *testing.T, c *nvidia.Client, uuid string) gpu.State {
	t.Helper()
	list, err := c.States(t.Context(), []string{uuid}, false)
	if err != nil || len(list) != 1 || list[0].UUID != uuid {
		t.Fatalf("%+v, %v", list, err)
	}
	return list[0]
}

// names are the last parts of files' paths.
func names(files []gpu.File) string {
	var list []string
	for _, f := range files {
		list = append(list, f.Path[strings.Index(f.Path, "/dev/")+5:])
	}
	slices.Sort(list)
	return strings.Join(list, " ")
}

func TestInventory(t *testing.T) {
	t.Parallel()
	h := fakegpu.New(t, fakegpu.Options{})
	h.EnableMIG(7, "1g.10gb", "2g.20gb")
	i := inventory(t, newClient(t, h, nil))
	if len(i.Devices) != 10 || i.Driver != fakegpu.Driver || i.CUDA == "" {
		t.Fatalf("%d devices, driver %s, CUDA %s", len(i.Devices), i.Driver, i.CUDA)
	}
	d := i.Devices[5]
	if d.UUID != h.GPU(5).UUID || d.Index != 5 || d.Model != "NVIDIA H100 80GB HBM3" || d.Memory != 80<<30 || d.Node != 1 || d.Divided || d.Parent != "" ||
		d.CPUs == "" || len(d.PCI) != len("0000:00:00.0") {
		t.Errorf("%+v", d)
	}
	if len(d.Links) != 7 || d.Links[i.Devices[4].UUID].NVLinks != 4 || d.Links[i.Devices[0].UUID] != (gpu.Link{Level: "system"}) {
		t.Errorf("links: %+v", d.Links)
	}
	if names(d.Files) != "nvidia5" || d.Files[0].Major != 195 || d.Files[0].Minor != 5 || i.Devices[0].Files[0].Major != 1 || i.Devices[0].Files[0].Minor != 7 {
		t.Errorf("files: %+v, %+v", d.Files, i.Devices[0].Files)
	}
	whole, small := i.Devices[7], i.Devices[8]
	if !whole.Divided || small.Parent != whole.UUID || small.Profile != "1g.10gb" || small.Index != 7 || small.Memory < 9<<30 || small.Memory > 10<<30 || !strings.HasPrefix(small.UUID, "MIG-") {
		t.Errorf("%+v", small)
	}
	if n := strings.Count(names(small.Files), "nvidia-caps/nvidia-cap"); n != 2 || !strings.HasSuffix(names(small.Files), "nvidia7") || names(small.Files) == names(i.Devices[9].Files) {
		t.Errorf("files of instances: %s; %s", names(small.Files), names(i.Devices[9].Files))
	}
	if names(i.Common) != "nvidia-uvm nvidia-uvm-tools nvidiactl" || !strings.Contains(names(i.Others), "nvidia-caps/nvidia-cap1") {
		t.Errorf("common: %s, others: %s", names(i.Common), names(i.Others))
	}
	if all := names(nvidia.Files(h.Root())); !strings.Contains(all, "nvidia0 ") || !strings.Contains(all, "nvidiactl") || !strings.Contains(all, "nvidia-caps/nvidia-cap1 ") {
		t.Errorf("all files: %s", all)
	}
}

// TestSwitch has GPUs that are joined by an NVSwitch.
func TestSwitch(t *testing.T) {
	t.Parallel()
	h := fakegpu.New(t, fakegpu.Options{GPUs: 2})
	h.Update(func(gpus []*fakegpu.GPU) {
		fakegpu.Connect(gpus, 0, 1, fakegpu.LevelSystem, 0)
		gpus[0].Switched, gpus[1].Switched = 18, 18
	})
	if i := inventory(t, newClient(t, h, nil)); i.Devices[0].Links[i.Devices[1].UUID].NVLinks != 18 {
		t.Errorf("%+v", i.Devices[0].Links)
	}
}

func TestStates(t *testing.T) {
	t.Parallel()
	h := fakegpu.New(t, fakegpu.Options{GPUs: 2})
	h.EnableMIG(1, "1g.10gb")
	c := newClient(t, h, nil)
	i := inventory(t, c)
	uuid, instance := i.Devices[0].UUID, i.Devices[2].UUID
	h.AddProcess(uuid, 123, 3<<30)
	h.AddProcess(instance, 124, 1<<30)
	h.Update(func(gpus []*fakegpu.GPU) { gpus[0].Recovery = 1 })
	s := state(t, c, uuid)
	if s.Used != 3<<30 || len(s.Processes) != 1 || s.Processes[0] != (gpu.Process{PID: 123, Memory: 3 << 30}) || s.Power <= 0 || s.PowerLimit <= s.Power || s.Temperature <= 0 ||
		!s.RecoveryKnown || !strings.Contains(s.Recovery, "reset the GPU") || s.Lost != "" || time.Since(s.At) > time.Minute {
		t.Errorf("%+v", s)
	}
	if again := state(t, c, uuid); s.Energy <= 0 || again.Energy < s.Energy {
		t.Errorf("energy: %v, then %v", s.Energy, again.Energy)
	}
	if m := state(t, c, i.Devices[1].UUID); m.Instances[instance] != 1<<30 || len(m.Processes) != 1 || m.Processes[0].Instance != instance {
		t.Errorf("%+v", m)
	}
	h.Update(func(gpus []*fakegpu.GPU) { gpus[0].Lost = true })
	if s := state(t, c, uuid); !strings.Contains(s.Lost, "lost") {
		t.Errorf("%+v", s)
	}
	if list, err := c.States(t.Context(), []string{"GPU-nonsense"}, false); err != nil || list[0].Lost == "" {
		t.Errorf("%+v, %v", list, err)
	}
}

// TestFaults has errors reported while they are watched for, and no longer.
func TestFaults(t *testing.T) {
	t.Parallel()
	h := fakegpu.New(t, fakegpu.Options{GPUs: 2})
	c := newClient(t, h, nil)
	uuid := inventory(t, c).Devices[1].UUID
	reported := make(chan gpu.Fault, 10)
	c.Watch(func(f gpu.Fault) { reported <- f })
	_ = state(t, c, uuid) // from now on, that is
	for _, number := range []uint64{31, 63, 79, 48, 4711} {
		h.Xid(1, number)
	}
	if _, err := c.States(t.Context(), []string{uuid}, true); err != nil {
		t.Fatal(err)
	}
	want := map[gpu.Fault]bool{
		{GPU: uuid, Severity: gpu.Application, Text: "XID 31: GPU memory page fault"}:                             true,
		{GPU: uuid, Severity: gpu.Broken, Text: "XID 79: GPU has fallen off the bus: the host must be restarted"}: true,
		{GPU: uuid, Severity: gpu.Check, Text: "XID 48: double bit ECC error"}:                                    true,
		{GPU: uuid, Severity: gpu.Check, Text: "XID 4711: not in the policy table"}:                               true,
	}
	for len(want) > 0 { // in any order: the loop and the call take them side by side
		f := <-reported
		if !want[f] {
			t.Fatalf("%+v, want one of %+v", f, want)
		}
		delete(want, f)
	}
	// A new helper goes on watching.
	h.Crash("nvmlSystemGetDriverVersion")
	if _, err := c.Inventory(t.Context()); err == nil {
		t.Error("a crash went unnoticed")
	}
	h.ClearFaults()
	_ = state(t, c, uuid)
	h.Xid(1, 13)
	if f := <-reported; f.Severity != gpu.Application {
		t.Errorf("%+v", f)
	}
	c.Watch(nil)
	h.Xid(1, 13)
	_ = state(t, c, uuid)
	if len(reported) > 0 {
		t.Error("reported after all")
	}
}

// TestDriverTrouble has the driver hang, crash, fail and lack functions: an error each time, in time, and the next call is well.
func TestDriverTrouble(t *testing.T) {
	t.Parallel()
	h := fakegpu.New(t, fakegpu.Options{GPUs: 1, Without: []string{"nvmlDeviceGetFieldValues", "nvmlDeviceGetMemoryInfo_v2", "nvmlDeviceGetMPSComputeRunningProcesses_v3",
		"nvmlDeviceGetRemappedRows", "nvmlDeviceGetP2PStatus", "nvmlDeviceGetNvLinkState", "nvmlDeviceGetMigMode"}})
	c := newClient(t, h, func(c *nvidia.Config) { c.CallLimit, c.InventoryLimit = 300*time.Millisecond, time.Second })
	uuid := inventory(t, c).Devices[0].UUID
	if s := state(t, c, uuid); s.Lost != "" || s.RecoveryKnown {
		t.Errorf("with a poor library: %+v", s)
	}
	for name, fault := range map[string]func(){
		"hangs":   func() { h.Hang("nvmlDeviceGetHandleByUUID") },
		"is slow": func() { h.Slow("nvmlDeviceGetHandleByUUID", time.Second) },
		"crashes": func() { h.Crash("nvmlDeviceGetHandleByUUID") },
	} {
		fault()
		begun := time.Now()
		if list, err := c.States(t.Context(), []string{uuid}, false); err == nil || time.Since(begun) > 10*time.Second {
			t.Errorf("%s: %+v, %v after %s", name, list, err, time.Since(begun))
		}
		h.ClearFaults()
		if s := state(t, c, uuid); s.Lost != "" {
			t.Errorf("after it %s: %+v", name, s)
		}
	}
	h.Fail("nvmlInit_v2", 999)
	h.Crash("nvmlDeviceGetHandleByUUID")
	_, _ = c.States(t.Context(), []string{uuid}, false)
	if _, err := c.Inventory(t.Context()); err == nil || errors.Is(err, gpu.ErrNone) {
		t.Errorf("a driver that does not start: %v", err)
	}
}

// TestPoorLibrary has the library of a driver that has little more than a list of GPUs.
func TestPoorLibrary(t *testing.T) {
	t.Parallel()
	h := fakegpu.New(t, fakegpu.Options{GPUs: 2, Without: []string{"nvmlErrorString", "nvmlSystemGetDriverVersion", "nvmlSystemGetNVMLVersion", "nvmlSystemGetCudaDriverVersion",
		"nvmlSystemGetCudaDriverVersion_v2", "nvmlDeviceGetHandleByUUID", "nvmlDeviceGetName", "nvmlDeviceGetMinorNumber", "nvmlDeviceGetPciInfo_v3", "nvmlDeviceGetMemoryInfo_v2",
		"nvmlDeviceGetNumaNodeId", "nvmlDeviceGetCpuAffinity", "nvmlDeviceGetTopologyCommonAncestor", "nvmlDeviceGetP2PStatus", "nvmlDeviceGetNvLinkRemotePciInfo_v2",
		"nvmlDeviceGetMaxMigDeviceCount", "nvmlDeviceGetGraphicsRunningProcesses_v3", "nvmlDeviceGetGraphicsRunningProcesses_v2", "nvmlDeviceGetGraphicsRunningProcesses",
		"nvmlDeviceGetPowerUsage", "nvmlDeviceGetEnforcedPowerLimit", "nvmlDeviceGetTemperature", "nvmlDeviceGetUtilizationRates", "nvmlDeviceGetTotalEnergyConsumption",
		"nvmlDeviceGetFieldValues", "nvmlDeviceGetRemappedRows", "nvmlDeviceGetTotalEccErrors", "nvmlDeviceGetSupportedEventTypes", "nvmlEventSetWait_v2"}})
	c := newClient(t, h, nil)
	i := inventory(t, c)
	if len(i.Devices) != 2 || i.Devices[1].Memory != 80<<30 {
		t.Fatalf("%+v", i)
	}
	uuid := i.Devices[1].UUID
	reported := make(chan gpu.Fault, 1)
	c.Watch(func(f gpu.Fault) { reported <- f })
	h.AddProcess(uuid, 123, 1<<30)
	if s := state(t, c, uuid); s.Used < 1<<30 || len(s.Processes) != 1 || s.Lost != "" {
		t.Errorf("%+v", s)
	}
	h.Xid(1, 31)
	if f := <-reported; f.GPU != uuid {
		t.Errorf("%+v", f)
	}
	if list, err := c.States(t.Context(), []string{"GPU-nonsense"}, false); err != nil || list[0].Lost == "" {
		t.Errorf("%+v, %v", list, err)
	}
}

// TestNoDriver has hosts without.
func TestNoDriver(t *testing.T) {
	t.Parallel()
	c := newClient(t, nil, func(c *nvidia.Config) { c.Library = t.TempDir() + "/libnvidia-ml.so.1" })
	if _, err := c.Inventory(t.Context()); !errors.Is(err, gpu.ErrNone) || !strings.Contains(err.Error(), "driver is not installed") || strings.Count(err.Error(), gpu.ErrNone.Error()) != 1 {
		t.Errorf("no library: %v", err)
	}
	h := fakegpu.New(t, fakegpu.Options{GPUs: 1})
	h.Fail("nvmlInit_v2", 9)
	if _, err := newClient(t, h, nil).Inventory(t.Context()); !errors.Is(err, gpu.ErrNone) || !strings.Contains(err.Error(), "modprobe nvidia") {
		t.Errorf("no driver: %v", err)
	}
}

// TestIdle holds that the helper lives only while there is something to do.
func TestIdle(t *testing.T) {
	t.Parallel()
	h := fakegpu.New(t, fakegpu.Options{GPUs: 1})
	c := newClient(t, h, func(c *nvidia.Config) { c.Idle = 50 * time.Millisecond })
	if helpers(h.Library) != 0 {
		t.Error("a helper before anything was asked")
	}
	inventory(t, c)
	until(t, "the helper is gone", func() bool { return helpers(h.Library) == 0 })
	c.Watch(func(gpu.Fault) {})
	inventory(t, c)
	time.Sleep(300 * time.Millisecond) // many times as long as an idle one lives
	if helpers(h.Library) != 1 {
		t.Error("gone while faults are watched for")
	}
	c.Watch(nil)
	until(t, "the helper is gone", func() bool { return helpers(h.Library) == 0 })
}
