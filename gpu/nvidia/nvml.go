//go:build cgo

package nvidia

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"github.com/mayfly/mayfly/gpu"
)

// reader asks NVML.
type reader struct {
	nvml nvml.Interface
	// has reports whether the driver's library has a function: to call one that it lacks ends the process. So each is asked for before it
	// is called; older drivers lack some.
	has  func(function string) bool
	root string
	// set has the events, report takes the faults. watched are the UUIDs of the GPUs in it; one that is lost cannot be asked for its own.
	set     nvml.EventSet
	report  func(gpu.Fault)
	watched map[nvml.Device]string
}

// open loads the library and initializes it.
func open(s settings) (library, error) {
	var options []nvml.LibraryOption
	if s.Library != "" {
		options = append(options, nvml.WithLibraryPath(s.Library))
	}
	lib := nvml.New(options...)
	switch r := lib.Init(); {
	case r == nvml.ERROR_LIBRARY_NOT_FOUND:
		return nil, fmt.Errorf("%w: NVIDIA's driver is not installed (no libnvidia-ml.so.1)", gpu.ErrNone)
	case r == nvml.ERROR_DRIVER_NOT_LOADED:
		return nil, fmt.Errorf("%w: NVIDIA's library is there, but its driver is not loaded (modprobe nvidia)", gpu.ErrNone)
	case r != nvml.SUCCESS:
		return nil, fmt.Errorf("cannot start NVML: %s", said(r))
	}
	r := &reader{nvml: lib, root: s.Root, watched: map[nvml.Device]string{}}
	r.has = func(function string) bool { return lib.Extensions().LookupSymbol(function) == nil }
	r.makeFiles()
	return r, nil
}

// offers reports whether the library has a function in any version: the bindings call the newest.
func (r *reader) offers(function string) bool {
	return r.has(function) || r.has(function+"_v2") || r.has(function+"_v3")
}

// read calls a function of the library, where there is one; ok is false where there is not, or where it fails.
func read[T any](r *reader, function string, call func() (T, nvml.Return)) (value T, ok bool) {
	if !r.offers(function) {
		return value, false
	}
	value, ret := call()
	return value, ret == nvml.SUCCESS
}

// makeFiles has the driver's tool make the device files of unified memory, which programs without rights cannot have made.
func (r *reader) makeFiles() {
	if _, err := os.Stat(filepath.Join(r.root, "dev/nvidia-uvm")); r.root != "/" || err == nil || os.Geteuid() != 0 {
		return
	}
	if path, err := exec.LookPath("nvidia-modprobe"); err == nil {
		// Without it, the first CUDA program of a user with rights does.
		_ = exec.CommandContext(context.Background(), path, "-u", "-c=0").Run()
	}
}

// said are words for an error: NVML's own where they are known without asking the driver, which may lack that, too.
func said(r nvml.Return) string {
	switch r {
	case nvml.ERROR_NOT_FOUND:
		return "not found"
	case nvml.ERROR_NO_PERMISSION:
		return "no permission"
	case nvml.ERROR_GPU_IS_LOST:
		return "GPU is lost"
	case nvml.ERROR_RESET_REQUIRED:
		return "GPU requires reset"
	case nvml.ERROR_LIB_RM_VERSION_MISMATCH:
		return "driver/library version mismatch: the driver was upgraded, restart the host or reload it"
	case nvml.ERROR_TIMEOUT:
		return "timeout"
	case nvml.ERROR_UNKNOWN:
		return "unknown error"
	}
	return fmt.Sprintf("NVML error %d", int(r))
}
