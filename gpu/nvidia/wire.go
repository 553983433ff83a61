package nvidia

import "github.com/mayfly/mayfly/gpu"

// request is a line to the helper.
type request struct {
	ID   int  `json:"id"`
	Call call `json:"call"`
	// GPUs are UUIDs.
	GPUs    []string `json:"gpus,omitempty"`
	Settled bool     `json:"settled,omitempty"`
}

type call string

const (
	callInventory call = "inventory"
	callStates    call = "states"
	callWatch     call = "watch" // has faults reported
)

// answer is a line from the helper: to a request, or with ID 0 a fault.
type answer struct {
	ID int `json:"id"`
	// None says that there is no driver, with Error as the reason.
	None      bool           `json:"none,omitempty"`
	Error     string         `json:"error,omitempty"`
	Inventory *gpu.Inventory `json:"inventory,omitempty"`
	States    []gpu.State    `json:"states,omitempty"`
	Fault     *gpu.Fault     `json:"fault,omitempty"`
}

// settings go to the helper as an argument.
type settings struct {
	// Library is the path of libnvidia-ml.so.1, or empty for where the system has it.
	Library string `json:"library,omitempty"`
	// Root is below which /dev and /proc are found: "/" but in tests.
	Root string `json:"root,omitempty"`
}
