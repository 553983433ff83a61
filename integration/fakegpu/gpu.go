package fakegpu

import (
	"fmt"
	"strings"
)

// GPU is what the driver says of a GPU. Amounts of memory are in bytes.
type GPU struct {
	UUID, Name string
	// Minor is the number of its device file.
	Minor int
	// PCI is the address, as "00000000:18:00.0".
	PCI string

	// Memory is all; Reserved is the driver's own share of it; Used is what is used beside what Processes do.
	Memory, Reserved, Used uint64
	Processes              []Process

	// Node is the memory node of the host that it is beside, CPUs the processors there. They are seen through nvmlDeviceGetMemoryAffinity,
	// nvmlDeviceGetCpuAffinity, and the root's /sys.
	Node int
	CPUs []int
	// OwnNode is the node that its own memory is, or -1, as on all hosts but those where GPU and processor share their memory: this is
	// what nvmlDeviceGetNumaNodeId tells.
	OwnNode int
	// Levels and Links say how near each GPU is, by its index, as one of nvmlGpuTopologyLevel_t, and how many NVLinks go there; use
	// [Connect]. Switched is how many go to a switch, beyond which is every GPU that has such.
	Levels, Links []int
	Switched      int

	// NoMIG says that it cannot be divided; MIG that it is, and MIGPending that it will be when it was reset.
	NoMIG, MIG, MIGPending bool
	Instances              []*Instance

	// Power, PowerLimit are in milliwatts. Energy is in millijoules, and grows with the power.
	Power, PowerLimit, Energy uint64
	// Temperature is in degrees Celsius, Busy and MemoryBusy in percent.
	Temperature, Busy, MemoryBusy int

	// Recovery is one of nvmlDeviceGpuRecoveryAction_t, or -1 where the driver cannot tell.
	Recovery    int
	Remapped    Remapped
	ECC         ECC
	Persistence bool
	// Lost says that it has fallen off the bus.
	Lost bool
}

// Instance is a MIG device: a compute instance CI of a GPU instance GI. Their numbers are below 8 and 16.
type Instance struct {
	UUID string
	// Index is its number among the GPU's MIG devices, below 7.
	Index, GI, CI int
	// Profile is its kind, as "1g.10gb".
	Profile string
	// Memory is all, Used what is used beside what Processes do.
	Memory, Used uint64
	// Slices and ComputeSlices say how large a part of the GPU it is.
	Slices, ComputeSlices, Multiprocessors int
	Processes                              []Process
}

// Kind is what a process does with a GPU.
type Kind string

// The kinds.
const (
	Compute  Kind = "compute"
	Graphics Kind = "graphics"
	MPS      Kind = "mps"
)

// Unknown is how much memory a process uses where the driver cannot tell.
const Unknown = ^uint64(0)

// Process is a process on a GPU or a MIG device, for which no process is needed. The kind is Compute where it is empty.
type Process struct {
	PID   int
	Bytes uint64
	Kind  Kind
}

// Remapped says which rows of bad memory were replaced.
type Remapped struct {
	Correctable, Uncorrectable int
	Pending, Failed            bool
}

// ECC counts memory errors: since the driver was loaded, and in the GPU's life.
type ECC struct {
	Corrected, Uncorrected       uint64
	AllCorrected, AllUncorrected uint64
}

// How near two GPUs are.
const (
	LevelSingle = 10 // below one PCIe switch
	LevelNode   = 40 // beside one memory node
	LevelSystem = 50
)

// maxLinks is how many NVLinks a GPU like these has.
const maxLinks = 18

// defaults are GPUs like the H100s of a host.
func defaults(n int) []*GPU {
	gpus := make([]*GPU, n)
	half := (n + 1) / 2
	for i := range gpus {
		node := i / half
		cpus := make([]int, 32)
		for c := range cpus {
			cpus[c] = 32*node + c
		}
		gpus[i] = &GPU{
			UUID: fmt.Sprintf("GPU-00000000-0000-0000-0000-%012x", i), Name: "NVIDIA H100 80GB HBM3", Minor: i,
			PCI:    fmt.Sprintf("00000000:%02X:00.0", 0x18+8*i),
			Memory: 80 << 30, Reserved: 560 << 20, Node: node, CPUs: cpus, OwnNode: -1, Levels: make([]int, n), Links: make([]int, n),
			Power: 70_000, PowerLimit: 700_000, Energy: 1_000_000, Temperature: 30, Persistence: true,
		}
	}
	for a := range gpus {
		for b := range a {
			level, links := LevelSystem, 0
			if gpus[a].Node == gpus[b].Node {
				level, links = LevelNode, min(4, maxLinks/(half-1))
			}
			if a/2 == b/2 && level == LevelNode {
				level = LevelSingle
			}
			Connect(gpus, a, b, level, links)
		}
	}
	return gpus
}

// Connect sets how near two GPUs are and how many NVLinks join them.
func Connect(gpus []*GPU, a, b, level, links int) {
	for range 2 {
		gpus[a].Levels[b], gpus[a].Links[b] = level, links
		a, b = b, a
	}
}

// profiles are the kinds of MIG devices of an H100. The numbers of GPU instances begin at first.
var profiles = map[string]struct {
	slices, multiprocessors, first int
	memory                         uint64 // MiB
}{
	"1g.10gb": {1, 16, 7, 9984},
	"1g.20gb": {1, 26, 7, 20096},
	"2g.20gb": {2, 32, 3, 20096},
	"3g.40gb": {3, 60, 1, 40448},
	"4g.40gb": {4, 64, 1, 40448},
	"7g.80gb": {7, 132, 0, 81152},
}

// Divide turns MIG on, with a MIG device of each of the profiles given ("1g.10gb"), and ends what ran. Whether they would all find
// room on a GPU is not looked at. With no profiles it leaves the GPU divided into nothing.
func (g *GPU) Divide(kinds ...string) error {
	var instances []*Instance
	taken := map[int]bool{}
	for i, kind := range kinds {
		p, ok := profiles[kind]
		if !ok {
			return fmt.Errorf("there is no profile %q", kind)
		}
		gi := p.first
		for taken[gi] {
			gi++
		}
		taken[gi] = true
		instances = append(instances, &Instance{
			UUID:  fmt.Sprintf("MIG-00000000-0000-%04x-0000-%s", gi, g.UUID[strings.LastIndexByte(g.UUID, '-')+1:]),
			Index: i, GI: gi, Profile: kind, Memory: p.memory << 20, Slices: p.slices, ComputeSlices: p.slices, Multiprocessors: p.multiprocessors,
		})
	}
	g.MIG, g.MIGPending, g.Instances, g.Processes = true, true, instances, nil
	return nil
}

// EnableMIG is Divide for one of the host's GPUs.
func (h *Host) EnableMIG(gpu int, profiles ...string) {
	h.tb.Helper()
	h.Update(func(gpus []*GPU) {
		if err := gpus[gpu].Divide(profiles...); err != nil {
			h.tb.Fatal(err)
		}
	})
}

// DisableMIG makes a GPU whole again.
func (h *Host) DisableMIG(gpu int) {
	h.tb.Helper()
	h.Update(func(gpus []*GPU) {
		g := gpus[gpu]
		g.MIG, g.MIGPending, g.Instances = false, false, nil
	})
}
