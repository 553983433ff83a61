package realgpu

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestRealGPU runs the checks on this machine's GPUs: run.sh says where what was built is, and where the report goes.
func TestRealGPU(t *testing.T) {
	built := os.Getenv("MAYFLY_TEST_GPU")
	if built == "" {
		t.Skip("this is for machines with a GPU: make test-gpu")
	}
	m := &machine{mayfly: filepath.Join(built, "mayfly"), task: filepath.Join(built, "cuda-task"), root: "/", variables: map[string]string{}, memory: "4GiB",
		hold: 5 * time.Second, short: 50}
	m.smi, _ = exec.LookPath("nvidia-smi") // the report says where there is none
	if path := os.Getenv("LD_LIBRARY_PATH"); path != "" {
		m.variables["LD_LIBRARY_PATH"] = path // where NVIDIA's container images have the driver's libraries
	}
	r := &report{path: os.Getenv("MAYFLY_TEST_GPU_REPORT")}
	(&suite{machine: m, report: r}).checks(t)
	t.Logf("the report is in %s", r.path)
}
