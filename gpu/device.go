package gpu

import (
	"slices"
	"strings"
	"time"
)

// Device is what can be lent: a GPU, or a MIG instance of one.
type Device struct {
	// UUID is how CUDA and NVML name it: GPU-... or MIG-...
	UUID string `json:"uuid"`
	// Index is the GPU's number in the order of PCI addresses, also for an instance.
	Index int `json:"index"`
	// Model is as the driver says it, as "NVIDIA H100 80GB HBM3".
	Model string `json:"model"`
	// Memory is in bytes.
	Memory int64 `json:"memory_bytes"`
	// Parent is the UUID of the GPU that it is an instance of, and Profile the instance's kind, as "1g.10gb"; empty for a GPU.
	Parent  string `json:"parent,omitempty"`
	Profile string `json:"profile,omitempty"`
	// Divided says that the GPU is in MIG mode: its instances are lent, never itself.
	Divided bool `json:"mig,omitempty"`
	// PCI is the address on the bus, Node the number of the memory node beside it or -1, CPUs the processors beside it as Linux lists
	// them ("0-31,64-95").
	PCI  string `json:"pci"`
	Node int    `json:"numa_node"`
	CPUs string `json:"cpu_affinity,omitempty"`
	// Links say how it is connected to other GPUs, by their UUIDs.
	Links map[string]Link `json:"links,omitempty"`
	// Files are the device files that are its own.
	Files []File `json:"files,omitempty"`
}

// gpu is the UUID of the GPU that it is or is a part of.
func (d *Device) gpu() string {
	if d.Parent != "" {
		return d.Parent
	}
	return d.UUID
}

// Link is the best connection between two GPUs.
type Link struct {
	// NVLinks is how many of them join the two, directly or through a switch.
	NVLinks int `json:"nvlinks,omitempty"`
	// Level says what the PCIe path between them crosses: one of internal, single, multiple, hostbridge, node, system, as in NVML's
	// nvmlGpuTopologyLevel_t from near to far.
	Level string `json:"level"`
}

// levels are from near to far.
var levels = []string{"internal", "single", "multiple", "hostbridge", "node", "system"}

// score is how good a connection is: any NVLink is better than any PCIe path.
func (l Link) score() int {
	near := len(levels) - 1 - slices.Index(levels, l.Level)
	if near >= len(levels) {
		near = 0 // not known
	}
	return 10*l.NVLinks + near
}

// File is a device file.
type File struct {
	Path  string `json:"path"`
	Major uint32 `json:"major"`
	Minor uint32 `json:"minor"`
}

// Inventory is what a host has.
type Inventory struct {
	Driver string `json:"driver"`
	CUDA   string `json:"cuda"`
	// Devices are sorted by Index; a GPU stands before its instances.
	Devices []Device `json:"devices"`
	// Common are the files that every user of a device needs; Others are the files of devices that nobody is lent.
	Common []File `json:"common,omitempty"`
	Others []File `json:"others,omitempty"`
}

// State is how a GPU is at a moment.
type State struct {
	UUID string    `json:"uuid"`
	At   time.Time `json:"at"`
	// Used is in bytes, without what the driver reserves.
	Used      int64     `json:"memory_used_bytes"`
	Processes []Process `json:"processes,omitempty"`
	// Power is in watts, its limit too; Energy in joules since the driver was loaded, 0 where it does not count. Utilization is 0 to 1.
	Power       float64 `json:"power_watts"`
	PowerLimit  float64 `json:"power_limit_watts"`
	Energy      float64 `json:"energy_joules"`
	Temperature int     `json:"temperature_celsius"`
	Utilization float64 `json:"utilization"`
	// Recovery is what the driver wants done to the GPU: empty for nothing, else as "reset the GPU". RecoveryKnown says that the driver can tell.
	Recovery      string `json:"recovery,omitempty"`
	RecoveryKnown bool   `json:"recovery_known"`
	// Uncorrected counts memory errors that could not be corrected, since the driver was loaded.
	Uncorrected int64 `json:"ecc_uncorrected"`
	// Remap says what is wrong with the remapping of bad memory rows, or is empty.
	Remap string `json:"remap,omitempty"`
	// Lost says why the driver cannot look at the GPU, or is empty. Nothing else is known then.
	Lost string `json:"lost,omitempty"`
	// Instances are the bytes used of each MIG instance, by UUID.
	Instances map[string]int64 `json:"instances,omitempty"`
}

// Process is one that uses a GPU.
type Process struct {
	PID int `json:"pid"`
	// Memory is in bytes, 0 where the driver does not tell.
	Memory int64 `json:"memory_bytes"`
	// Graphics says that it draws and does not compute.
	Graphics bool `json:"graphics,omitempty"`
	// Instance is the UUID of the MIG instance that it uses, or empty.
	Instance string `json:"instance,omitempty"`
}

// Unfit says in a few words why the GPU must not be lent, or is empty.
func (s *State) Unfit() string {
	switch {
	case s.Lost != "":
		return s.Lost
	case s.Recovery != "":
		return "the driver wants to " + s.Recovery
	}
	return s.Remap
}

// used is what is used of a device, in bytes.
func (s *State) used(d *Device) int64 {
	if d.Parent != "" {
		return s.Instances[d.UUID]
	}
	return s.Used
}

// on are the processes on a device.
func (s *State) on(d *Device) []Process {
	if d.Parent == "" {
		return s.Processes
	}
	var list []Process
	for _, p := range s.Processes {
		if p.Instance == d.UUID {
			list = append(list, p)
		}
	}
	return list
}

// is reports whether a device is of a model as a task names it: whole words of the driver's name, as H100 or A100-SXM4-80GB, or an
// instance's profile; the case does not matter.
func (d *Device) is(model string) bool {
	if model == "" || strings.EqualFold(model, d.Profile) {
		return true
	}
	words := func(s string) []string {
		return strings.FieldsFunc(strings.ToLower(s), func(c rune) bool { return c == ' ' || c == '-' || c == '_' || c == '/' })
	}
	have, want := words(d.Model), words(model)
	for i := 0; i+len(want) <= len(have); i++ {
		if len(want) > 0 && slices.Equal(have[i:i+len(want)], want) {
			return true
		}
	}
	return false
}
