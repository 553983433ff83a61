package gpu

import (
	"fmt"
	"strings"
)

// Request is what a task asks for.
type Request struct {
	// Count is how many devices.
	Count int
	// Memory is how many bytes it needs of each; 0 asks for whole GPUs, whatever they have.
	Memory int64
	// Model names the kind, or is empty.
	Model string
}

// Grant is a device that is lent, or a part of one.
type Grant struct {
	UUID string `json:"uuid"`
	// Share is how many bytes of the device's memory are lent; 0 for all of it.
	Share int64 `json:"share,omitempty"`
	// Node is the memory node beside it, or -1.
	Node int `json:"node"`
}

// format writes sizes as the rest of the program does; the Config brings it.
type format func(int64) string

// sentence says what is asked for.
func (r Request) sentence(size format) string {
	var b strings.Builder
	if r.Count == 1 {
		b.WriteString("1 GPU")
	} else {
		fmt.Fprintf(&b, "%d GPUs", r.Count)
	}
	if r.Model != "" {
		b.WriteString(" of model " + r.Model)
	}
	if r.Memory > 0 {
		b.WriteString(" with " + size(r.Memory))
		if r.Count > 1 {
			b.WriteString(" each")
		}
	}
	return b.String()
}

// serves reports whether a device is one for the request, whoever holds it. A MIG instance is given to those that ask for an amount of
// memory, or for its profile, and one at a time: no CUDA program can use two (CUDA C++ Programming Guide, "Multi-Instance GPU").
func (r Request) serves(d *Device) bool {
	switch {
	case d.Divided || d.Memory < r.Memory || !d.is(r.Model):
		return false
	case d.Parent == "":
		return true
	}
	return r.Count == 1 && (r.Memory > 0 || r.Model != "" && strings.EqualFold(r.Model, d.Profile))
}
