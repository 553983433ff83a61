package gpu

import (
	"context"
	"maps"
	"slices"
	"time"
)

// Status is how a device is, and who has it.
type Status struct {
	Device
	State State `json:"state"`
	// Condition is free, held, checking or quarantined; divided of a GPU whose instances are lent.
	Condition string `json:"condition"`
	// Reason and Since say why it is in quarantine, and since when.
	Reason string     `json:"reason,omitempty"`
	Since  *time.Time `json:"since,omitempty"`
	// Holders are who has it, with the bytes that are theirs.
	Holders map[string]int64 `json:"holders,omitempty"`
}

// Overview is all GPUs of a host.
type Overview struct {
	Driver string `json:"driver,omitempty"`
	CUDA   string `json:"cuda,omitempty"`
	// Note says why there are none, or why what is shown is not new; it is empty else.
	Note string   `json:"note,omitempty"`
	GPUs []Status `json:"gpus"`
}

// Overview shows all devices as they are now.
func (h *Host) Overview(ctx context.Context) Overview {
	h.mu.Lock()
	gpus := map[string]bool{}
	for _, u := range h.units {
		gpus[u.gpu()] = true
	}
	h.mu.Unlock()
	var states []State
	var err error
	if len(gpus) > 0 {
		states, err = h.config.Driver.States(ctx, slices.Sorted(maps.Keys(gpus)), false)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	o := h.show(states)
	if err != nil {
		o.Note = "not new: the driver does not answer: " + err.Error()
	}
	return o
}

// Seen shows all devices as they were seen last (State.At says when), without asking the driver.
func (h *Host) Seen() Overview {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.show(nil)
}

// show shows all devices as they were seen last, or are in the given states. The lock is held.
func (h *Host) show(states []State) Overview {
	o := Overview{Driver: h.driver, CUDA: h.cuda, GPUs: []Status{}}
	if len(h.units) == 0 {
		o.Note = "this host " + h.why
	}
	for _, u := range h.units {
		s := Status{Device: u.Device, State: u.last, Condition: string(u.condition()), Reason: u.why, Holders: maps.Clone(u.shares)}
		for _, state := range states {
			if state.UUID == u.gpu() {
				s.State = state
			}
		}
		if u.Divided {
			s.Condition = "divided"
		}
		if u.why != "" {
			since := u.since
			s.Since = &since
		}
		o.GPUs = append(o.GPUs, s)
	}
	return o
}

// Counts says how many devices there are, and how many of them are free and in quarantine.
func (h *Host) Counts() (all, idle, sick int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, u := range h.units {
		if u.Divided {
			continue
		}
		all++
		switch u.condition() {
		case free:
			idle++
		case quarantined:
			sick++
		}
	}
	return all, idle, sick
}
