package nvidia

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/mayfly/mayfly/gpu"
)

// library is what the helper asks; reader implements it with NVML.
type library interface {
	inventory() (*gpu.Inventory, error)
	states(gpus []string) ([]gpu.State, error)
	// watch reports faults from now on, on a goroutine of its own. settle returns when all that came before has been.
	watch(report func(gpu.Fault)) error
	settle()
}

// Main is the helper's whole life: `mayfly gpu-helper SETTINGS`. It serves its standard input until that ends.
func Main(args []string) error {
	if len(args) != 1 {
		return errors.New("cannot start a GPU helper by hand: the manager does that")
	}
	var s settings
	if err := json.Unmarshal([]byte(args[0]), &s); err != nil {
		return fmt.Errorf("cannot read the settings: %w", err)
	}
	// Read beside the work: where the driver hangs, the end of the input ends us nevertheless.
	requests := make(chan request)
	go func() {
		in := bufio.NewReader(os.Stdin)
		for {
			line, err := in.ReadBytes('\n')
			if err != nil {
				os.Exit(0)
			}
			var r request
			if err := json.Unmarshal(line, &r); err != nil {
				os.Exit(1)
			}
			requests <- r
		}
	}()
	serve(requests, os.Stdout, func() (library, error) { return open(s) })
	return nil
}

// serve answers requests one after the other: the driver's calls are short, or hang for all.
func serve(requests <-chan request, out io.Writer, open func() (library, error)) {
	var mu sync.Mutex
	say := func(a answer) {
		text, err := json.Marshal(a)
		if err != nil {
			text = fmt.Appendf(nil, `{"id":%d,"error":"cannot encode the answer"}`, a.ID)
		}
		mu.Lock()
		defer mu.Unlock()
		_, _ = out.Write(append(text, '\n')) // nobody listens any more: the input ends, too
	}
	var lib library
	watching := false
	for r := range requests {
		a := answer{ID: r.ID}
		var err error
		if lib == nil {
			lib, err = open()
		}
		if err == nil {
			switch r.Call {
			case callInventory:
				a.Inventory, err = lib.inventory()
			case callStates:
				if r.Settled && watching {
					lib.settle()
				}
				a.States, err = lib.states(r.GPUs)
			case callWatch:
				if !watching {
					err = lib.watch(func(f gpu.Fault) { say(answer{Fault: &f}) })
					watching = err == nil
				}
			default:
				err = fmt.Errorf("cannot do %q", r.Call)
			}
		}
		if err != nil {
			a.Error, a.None = err.Error(), errors.Is(err, gpu.ErrNone)
		}
		if r.ID != 0 {
			say(a)
		}
	}
}
