package nvidia_test

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/mayfly/mayfly/gpu/nvidia"
	"github.com/mayfly/mayfly/integration/fakegpu"
)

// TestMain makes this program the helper, too.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "gpu-helper" {
		if err := nvidia.Main(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// newClient returns a client of a fake host, or of the library at a path.
func newClient(t *testing.T, h *fakegpu.Host, change func(*nvidia.Config)) *nvidia.Client {
	t.Helper()
	c := nvidia.DefaultConfig
	c.Argv, c.Log = []string{os.Args[0], "gpu-helper"}, slog.New(slog.NewTextHandler(t.Output(), nil))
	if h != nil {
		c.Library, c.Root = h.Library, h.Root()
	}
	if change != nil {
		change(&c)
	}
	client := nvidia.New(c)
	t.Cleanup(func() {
		client.Close()
		until(t, "the helper is gone", func() bool { return helpers(c.Library) == 0 })
	})
	return client
}

// helpers counts the helpers that use a library.
func helpers(library string) (n int) {
	paths, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range paths {
		text, _ := os.ReadFile(path)
		if strings.Contains(string(text), "gpu-helper") && strings.Contains(string(text), `"`+library+`"`) {
			n++
		}
	}
	return n
}

func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not so: %s", what)
		}
	}
}
