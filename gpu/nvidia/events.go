//go:build cgo

package nvidia

import (
	"errors"
	"fmt"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"github.com/mayfly/mayfly/gpu"
)

const (
	// waitLimit is how long the event loop waits at a time.
	waitLimit = time.Second
	// settleLimit is how long there must have been no event for settle: a driver reports an error before it fails the calls of the program
	// that it belongs to, or next to it.
	settleLimit = 20 * time.Millisecond
)

// watch implements library.
func (r *reader) watch(report func(gpu.Fault)) error {
	for _, f := range []string{"nvmlEventSetCreate", "nvmlDeviceRegisterEvents", "nvmlEventSetWait"} {
		if !r.offers(f) {
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
		if known, ok := read(r, "nvmlDeviceGetSupportedEventTypes", h.GetSupportedEventTypes); ok {
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
