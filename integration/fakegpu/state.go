package fakegpu

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// The versions that hosts have.
const (
	Driver = "580.95.05"
	CUDA   = 13000
)

// whole is the number of the GPU and compute instance of what has none.
const whole = 0xFFFFFFFF

// settle adds the energy that was used since it was last called, or the Host was made. The lock is held.
func (h *Host) settle() {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		h.tb.Fatal(err)
	}
	now := t.Nano()
	if h.written > 0 {
		// What is too short to be counted is left for the next time, so that the sum is the library's.
		passed := (now - h.written) / 1_000_000
		now = h.written + passed*1_000_000
		for _, g := range h.gpus {
			g.Energy += uint64(passed) * g.Power / 1000
		}
	}
	h.written = now
}

// state writes down how the GPUs are. The lock is held.
func (h *Host) state() string {
	h.tb.Helper()
	var b strings.Builder
	line := func(format string, args ...any) {
		text := fmt.Sprintf(format, args...)
		if strings.ContainsRune(text, '\n') {
			h.tb.Fatalf("cannot say this on a line: %q", text)
		}
		b.WriteString(text + "\n")
	}
	line("host driver %s", Driver)
	line("host nvml 13.%s", Driver)
	line("host cuda %d", CUDA)
	line("host gpus %d", len(h.gpus))
	line("host written %d", h.written)
	line("switch pci 00000000:C1:00.0")
	for i, g := range h.gpus {
		o := fmt.Sprintf("gpu%d ", i)
		g.identity(line, o)
		g.condition(line, o)
		for peer := range h.gpus {
			if peer != i {
				line(o+"peer %d %d %d", peer, g.Levels[peer], g.Links[peer])
			}
		}
		processes(line, o, g.Processes, whole, whole)
		if !g.MIG {
			continue
		}
		for _, in := range g.Instances {
			if in.Index < 0 || in.Index >= 7 || in.GI < 0 || in.GI >= 16 || in.CI < 0 || in.CI >= 8 {
				h.tb.Fatalf("there is no room for the MIG device %s", in.UUID)
			}
			in.write(line, i, g.Name)
			processes(line, o, in.Processes, in.GI, in.CI)
		}
	}
	return b.String()
}

type writeLine func(format string, args ...any)

func (g *GPU) identity(line writeLine, o string) {
	line(o+"uuid %s", g.UUID)
	line(o+"name %s", g.Name)
	line(o+"minor %d", g.Minor)
	line(o+"pci %s", g.PCI)
	if g.Node >= 0 {
		line(o+"node %d", g.Node)
	}
	if g.OwnNode >= 0 {
		line(o+"own-node %d", g.OwnNode)
	}
	if len(g.CPUs) > 0 {
		var words []string
		for _, c := range g.CPUs {
			for len(words) <= c/64 {
				words = append(words, "")
			}
		}
		for w := range words {
			var mask uint64
			for _, c := range g.CPUs {
				if c/64 == w {
					mask |= 1 << (c % 64)
				}
			}
			words[w] = fmt.Sprintf("%x", mask)
		}
		line(o+"cpus %s", strings.Join(words, " "))
	}
	line(o+"switched %d", g.Switched)
	if !g.NoMIG {
		line(o+"mig-mode %d", bit(g.MIG))
		line(o+"mig-pending %d", bit(g.MIGPending))
	}
}

func (g *GPU) condition(line writeLine, o string) {
	if g.Lost {
		line(o + "lost 1")
	}
	line(o+"memory %d", g.Memory)
	line(o+"reserved %d", g.Reserved)
	line(o+"used %d", g.Used)
	line(o+"power %d", g.Power)
	line(o+"power-limit %d", g.PowerLimit)
	line(o+"energy %d", g.Energy)
	line(o+"temperature %d", g.Temperature)
	line(o+"busy %d", g.Busy)
	line(o+"memory-busy %d", g.MemoryBusy)
	line(o+"persistence %d", bit(g.Persistence))
	if g.Recovery >= 0 {
		line(o+"recovery %d", g.Recovery)
	}
	line(o+"remapped %d %d %d %d", g.Remapped.Correctable, g.Remapped.Uncorrectable, bit(g.Remapped.Pending), bit(g.Remapped.Failed))
	line(o+"ecc 0 0 %d", g.ECC.Corrected)
	line(o+"ecc 1 0 %d", g.ECC.Uncorrected)
	line(o+"ecc 0 1 %d", g.ECC.AllCorrected)
	line(o+"ecc 1 1 %d", g.ECC.AllUncorrected)
}

func (in *Instance) write(line writeLine, gpu int, model string) {
	line("gpu%d mig %d %d %d", gpu, in.Index, in.GI, in.CI)
	o := fmt.Sprintf("mig%d/%d/%d ", gpu, in.GI, in.CI)
	line(o+"uuid %s", in.UUID)
	line(o+"name %s MIG %s", model, in.Profile)
	line(o+"index %d", in.Index)
	line(o+"memory %d", in.Memory)
	line(o + "reserved 0")
	line(o+"used %d", in.Used)
	line(o+"slices %d", in.Slices)
	line(o+"compute-slices %d", in.ComputeSlices)
	line(o+"multiprocessors %d", in.Multiprocessors)
}

func processes(line writeLine, o string, all []Process, gi, ci int) {
	for _, p := range all {
		kind := p.Kind
		if kind == "" {
			kind = Compute
		}
		line(o+"process %s %d %d %d %d", kind, p.PID, p.Bytes, gi, ci)
	}
}

func bit(b bool) int {
	if b {
		return 1
	}
	return 0
}
