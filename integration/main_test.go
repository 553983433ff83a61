package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"github.com/mayfly/mayfly/integration/broker"
)

// binary is the path of the built mayfly.
var binary string

type build struct{ broker.Main }

// Run builds the binary, then runs the tests.
func (b build) Run() int {
	dir, err := os.MkdirTemp("", "mayfly-bin-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "mayfly")
	// As "make build" does.
	c := exec.Command("go", "build", "-tags", "netgo,osusergo", "-ldflags", "-extldflags=-Wl,-z,lazy", "-o", binary, "github.com/mayfly/mayfly")
	if out, err := c.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "cannot build the binary: %v\n%s", err, out)
		return 1
	}
	return b.Main.Run()
}

func TestMain(m *testing.M) {
	if addr := os.Getenv(countVariable); addr != "" {
		if err := countAlone(addr); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(build{broker.Main{M: m}},
		// The proxy forgets what it has under way when a connection ends while it is slow, or is no more.
		goleak.IgnoreAnyFunction("github.com/Shopify/toxiproxy/v2/toxics.(*ToxicStub).Run"))
}
