//go:build !cgo

package nvidia

import (
	"fmt"

	"github.com/mayfly/mayfly/gpu"
)

// open says that there is no driver: NVML is a C library.
func open(settings) (library, error) {
	return nil, fmt.Errorf("%w: this mayfly was built without cgo, so it cannot ask NVIDIA's driver", gpu.ErrNone)
}
