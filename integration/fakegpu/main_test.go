//go:build cgo

package fakegpu

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"go.uber.org/goleak"

	"github.com/mayfly/mayfly/integration/need"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// aloneVariable names the test that a process is there for.
const aloneVariable = "FAKEGPU_TEST_ALONE"

// alone runs the test in a process of its own, since a process can load only one library: with a host, and the library initialised.
func alone(t *testing.T, o Options, test func(h *Host, lib nvml.Interface)) {
	t.Helper()
	if os.Getenv(aloneVariable) == t.Name() {
		h := New(t, o)
		lib := nvml.New(nvml.WithLibraryPath(h.Library))
		ok(t, lib.Init())
		test(h, lib)
		ok(t, lib.Shutdown())
		return
	}
	t.Parallel()
	if out, err := child(t); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// child runs the test that calls it in another process, and skips it here where it is skipped there.
func child(t *testing.T) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=1m")
	cmd.Env = append(os.Environ(), aloneVariable+"="+t.Name(), "TMPDIR="+t.TempDir()) // one that crashes leaves its files
	out, err := cmd.CombinedOutput()
	if _, why, skipped := strings.Cut(string(out), "SKIPPED: "); skipped {
		need.Missing(t, "%s", why)
	}
	return string(out), err
}

func ok(t *testing.T, r nvml.Return) {
	t.Helper()
	is(t, r, nvml.SUCCESS)
}

// must is for what goes well: must(t)(f()).
func must[T any](t *testing.T) func(T, nvml.Return) T {
	return func(v T, r nvml.Return) T {
		t.Helper()
		ok(t, r)
		return v
	}
}
