// Package machine boots virtual machines for tests: pure version 2 control groups, with systemd as the first process where a test
// needs that, on any host that has qemu.
//
// # Theory of operation
//
// The guest's root is the host's own, read-only, under a layer in memory, so that all that is installed and built here is there, and
// nothing that the guest writes lasts. There is no network and no disk. The processor is emulated, which is slow by a factor of ten
// or so, and needs nothing of the host; a machine is up in eight seconds.
package machine

import (
	"context"
	_ "embed" // for the script
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/mayfly/mayfly/integration/need"
)

//go:embed boot.sh
var boot []byte

// Init is a machine's first process.
type Init string

// The first processes that there are.
const (
	None    Init = "none"
	Systemd Init = "systemd"
)

// Dir makes a directory for what a guest is to find, where no system cleans up at its start, as it does /tmp.
func Dir(t testing.TB) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	parent := filepath.Join(cache, "mayfly")
	if err := os.MkdirAll(parent, 0o755); err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp(parent, "machine-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// Build builds a package of this module for a guest, as a binary without C, at path; test says that its tests are meant.
func Build(t testing.TB, test bool, pkg, path string) {
	t.Helper()
	args := []string{"build"}
	if test {
		args = []string{"test", "-c"}
	}
	cmd := exec.CommandContext(t.Context(), "go", append(args, "-o", path, "github.com/mayfly/mayfly/"+pkg)...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("cannot build %s: %v\n%s", pkg, err, out)
	}
}

// Run boots a machine, runs the script in it with bash, as root, and returns what it printed and its exit status.
func Run(t testing.TB, dir string, init Init, limit time.Duration, script string) (output string, status int) {
	t.Helper()
	need.Command(t, "qemu-system-x86_64")
	if os.Geteuid() != 0 {
		need.Missing(t, "it takes root: the guest sees this host's file system with our eyes")
	}
	paths := map[string]string{"boot.sh": string(boot), "script.sh": script}
	for name, text := range paths {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit+time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", filepath.Join(dir, "boot.sh"), string(init), strconv.Itoa(int(limit.Seconds())), "2048", filepath.Join(dir, "script.sh"))
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(fmt.Errorf("cannot boot a machine: %w", err))
	}
	for _, still := range regexp.MustCompile(`(?m)^the machine stood still.*(\n(CPU|RIP).*)*`).FindAllString(string(out), -1) {
		need.Exercised(t, "an emulated machine was switched off and on: "+still)
	}
	return string(out), cmd.ProcessState.ExitCode()
}
