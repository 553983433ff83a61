package fakegpu

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// AddProcess puts a process that computes on the GPU or MIG device with this UUID.
func (h *Host) AddProcess(uuid string, pid int, bytes uint64) {
	h.tb.Helper()
	found := false
	add := func(id string, all *[]Process) {
		if id == uuid {
			*all, found = append(slices.Clone(*all), Process{PID: pid, Bytes: bytes}), true
		}
	}
	h.Update(func(gpus []*GPU) {
		for _, g := range gpus {
			add(g.UUID, &g.Processes)
			for _, in := range g.Instances {
				add(in.UUID, &in.Processes)
			}
		}
	})
	if !found {
		h.tb.Fatalf("there is no GPU %s", uuid)
	}
}

// RemoveProcess takes a process off all devices.
func (h *Host) RemoveProcess(pid int) {
	h.tb.Helper()
	remove := func(all []Process) []Process {
		return slices.DeleteFunc(slices.Clone(all), func(p Process) bool { return p.PID == pid })
	}
	h.Update(func(gpus []*GPU) {
		for _, g := range gpus {
			g.Processes = remove(g.Processes)
			for _, in := range g.Instances {
				in.Processes = remove(in.Processes)
			}
		}
	})
}

// xidEvent is nvmlEventTypeXidCriticalError.
const xidEvent = 8

// Xid reports an error of a GPU.
func (h *Host) Xid(gpu int, code uint64) {
	h.tb.Helper()
	h.Event(gpu, xidEvent, code, whole, whole)
}

// Event reports anything: a type of nvmlEventType with its data, of a GPU, or of one of its GPU and compute instances.
func (h *Host) Event(gpu int, kind, data uint64, gi, ci uint32) {
	h.tb.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	f, err := os.OpenFile(filepath.Join(h.dir, "events"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		h.tb.Fatal(err)
	}
	defer f.Close()
	if _, err := fmt.Fprintf(f, "%d %d %d %d %d\n", gpu, kind, data, gi, ci); err != nil {
		h.tb.Fatal(err)
	}
}

// All is the name of all functions at once, for faults.
const All = "*"

// Hang has calls of a function never return, from the next one on.
func (h *Host) Hang(function string) { h.tb.Helper(); h.fault("hang %s", function) }

// Crash has calls of a function abort the process.
func (h *Host) Crash(function string) { h.tb.Helper(); h.fault("crash %s", function) }

// Fail has calls of a function return an nvmlReturn_t.
func (h *Host) Fail(function string, code int) { h.tb.Helper(); h.fault("fail %s %d", function, code) }

// Slow has calls of a function take longer.
func (h *Host) Slow(function string, by time.Duration) {
	h.tb.Helper()
	h.fault("slow %s %d", function, by.Milliseconds())
}

func (h *Host) fault(format string, args ...any) {
	h.tb.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.faults += fmt.Sprintf(format, args...) + "\n"
	h.put("faults", h.faults)
}

// ClearFaults ends all faults, but for calls that hang already.
func (h *Host) ClearFaults() {
	h.tb.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.faults = ""
	h.put("faults", "")
}
