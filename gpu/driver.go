package gpu

import "context"

// Driver tells of the host's GPUs. All calls are bounded in time by the driver itself.
type Driver interface {
	// Inventory lists the devices. ErrNone says that there is no driver.
	Inventory(ctx context.Context) (*Inventory, error)
	// States looks at GPUs by their UUIDs. With settled, all faults that came before the call have been reported when it returns.
	States(ctx context.Context, gpus []string, settled bool) ([]State, error)
	// Watch has faults reported, one at a time, until it is called with nil.
	Watch(report func(Fault))
}

// Error is a kind of error that callers tell apart.
type Error string

func (e Error) Error() string { return string(e) }

// ErrNone says that the host has no GPUs that we could use.
const ErrNone Error = "no GPUs"

// Severity says what a fault means.
type Severity int

// The severities.
const (
	// Application is the program's own doing: it fails, the GPU goes on.
	Application Severity = iota + 1
	// Check is one that the GPU may or may not survive: the driver is asked.
	Check
	// Broken is the GPU's: it must be reset, or its host restarted.
	Broken
)

// Fault is what a driver reports of a GPU.
type Fault struct {
	GPU string `json:"gpu"`
	// Instance is the UUID of the MIG instance, where it is one's alone.
	Instance string   `json:"instance,omitempty"`
	Severity Severity `json:"severity"`
	// Text says it in a few words, as "XID 31: GPU memory page fault".
	Text string `json:"text"`
}
