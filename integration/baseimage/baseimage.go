// Package baseimage makes the images that Dockerfiles begin with, for tests: nothing can be pulled where those run.
//
// # Theory of operation
//
// An image is what packages of this very host have installed, with all that they depend on. So it has the programs and libraries that
// the real image has, of the same distribution, and costs some seconds.
package baseimage

import (
	_ "embed" // for the script
	"os/exec"
	"strings"
	"testing"

	"github.com/mayfly/mayfly/integration/docker"
	"github.com/mayfly/mayfly/integration/need"
)

//go:embed pack.sh
var pack string

// Image is what is to be made.
type Image struct {
	// Name is its name and tag.
	Name string
	// Packages are installed on this host.
	Packages []string
	// Folders of this host, and where they are to lie.
	Folders map[string]string
	// Env are the variables of all that runs in it.
	Env []string
}

// Make makes the image for an engine.
func Make(tb testing.TB, e *docker.Engine, i Image) {
	tb.Helper()
	for _, command := range []string{"apt-cache", "dpkg", "tar"} {
		need.Command(tb, command)
	}
	args := []string{"-c", pack, "pack.sh"}
	for _, p := range i.Packages {
		if out, err := exec.CommandContext(tb.Context(), "dpkg-query", "-W", "-f", "${db:Status-Status}", p).Output(); err != nil || string(out) != "installed" {
			need.Missing(tb, "%s is not installed: run integration/setup.sh", p)
		}
		args = append(args, p)
	}
	for from, to := range i.Folders {
		args = append(args, from+":"+to)
	}
	load := []string{"-H", e.Host, "import"}
	for _, v := range i.Env {
		load = append(load, "--change", "ENV "+v)
	}
	from := exec.CommandContext(tb.Context(), "sh", args...)
	into := exec.CommandContext(tb.Context(), "docker", append(load, "-", i.Name)...)
	var fromSaid, intoSaid strings.Builder
	from.Stderr, into.Stderr = &fromSaid, &intoSaid
	archive, err := from.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	into.Stdin = archive
	if err := from.Start(); err != nil {
		tb.Fatalf("cannot pack an image: %v", err)
	}
	imported := into.Run()
	if err := from.Wait(); err != nil || imported != nil {
		tb.Fatalf("cannot make the image %s: %v, %v\n%s%s", i.Name, err, imported, fromSaid.String(), intoSaid.String())
	}
}
