// Package fakegpu makes hosts with GPUs for tests, where there are none: a libnvidia-ml.so.1 that says what the test wants, and a
// directory with the device files and the parts of /proc and /sys that a driver makes.
//
// # Theory of operation
//
// The library (C, in library/) keeps nothing. Each call reads three files beside it: "state" says what the GPUs are like, in lines of an
// object, a key and a value; "faults" which functions fail, and how; to "events" lines are added. It finds them by its own path, so
// whoever loads it needs no environment for that, and what a test changes shows in programs that have it loaded. What the state does
// not mention is not supported. Files are replaced as a whole, but "events", of which only complete lines count.
//
// A process that calls NVML through go-nvml can use one library in its life: the linker keeps what it has bound first. So each [Host]
// needs a process of its own that looks at it.
//
// Nothing computes. A process is on a GPU when the test says so. The device files can be opened but do nothing: see [Host.Root].
package fakegpu

import (
	"embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/mayfly/mayfly/integration/need"
)

//go:embed library/*.c library/*.h
var sources embed.FS

// header is the module that has nvml.h, and where.
const (
	headerModule = "github.com/NVIDIA/go-nvml"
	headerDir    = "pkg/nvml"
)

// maxGPUs is what the library has room for.
const maxGPUs = 16

// Options are what a host is made with.
type Options struct {
	// GPUs says how many, up to 16; 8 where it is 0.
	GPUs int
	// Without names functions that the library lacks, as those of old drivers do.
	Without []string
}

// Host is a host with GPUs. It is safe for use by several goroutines.
type Host struct {
	// Library is the path of libnvidia-ml.so.1.
	Library string

	tb  testing.TB
	dir string

	mu      sync.Mutex // guards what follows, and the files
	gpus    []*GPU
	written int64 // when the state was written, by the monotonic clock in nanoseconds
	root    string
	placed  map[string]string // what is in the root, by path: see furnish
	faults  string
}

// New makes a host like one with H100s: in halves, one by a memory node each, with NVLinks within them. All of it ends with the test.
func New(tb testing.TB, o Options) *Host {
	tb.Helper()
	if o.GPUs == 0 {
		o.GPUs = 8
	}
	if o.GPUs < 0 || o.GPUs > maxGPUs {
		tb.Fatalf("cannot make a host with %d GPUs", o.GPUs)
	}
	dir := directory(tb)
	h := &Host{Library: filepath.Join(dir, "libnvidia-ml.so.1"), tb: tb, dir: dir, gpus: defaults(o.GPUs)}
	if err := os.WriteFile(h.Library, build(tb, o.Without), 0o755); err != nil {
		tb.Fatal(err)
	}
	h.Update(func([]*GPU) {})
	return h
}

// Update changes the GPUs: f may do with them whatever it likes while it runs, but for calling the Host. What it gets shows how much
// energy they have used until now.
func (h *Host) Update(f func(gpus []*GPU)) {
	h.tb.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.settle()
	f(slices.Clone(h.gpus))
	h.put("state", h.state())
	if h.root != "" {
		h.furnish()
	}
}

// GPU is how a GPU is now. The slices in it are the Host's: they are not to be changed.
func (h *Host) GPU(i int) GPU {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.settle()
	return *h.gpus[i]
}

// directory makes one that ends with the test, into which all users may look.
func directory(tb testing.TB) string {
	tb.Helper()
	dir := tb.TempDir()
	for _, d := range []string{filepath.Dir(dir), dir} {
		if err := os.Chmod(d, 0o755); err != nil {
			tb.Fatal(err)
		}
	}
	return dir
}

// put replaces a file beside the library as a whole. The lock is held.
func (h *Host) put(name, text string) {
	h.tb.Helper()
	path := filepath.Join(h.dir, name)
	if err := os.WriteFile(path+".new", []byte(text), 0o644); err != nil {
		h.tb.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		h.tb.Fatal(err)
	}
}

// built are the libraries that this process has made, by what they lack.
var built = struct {
	sync.Mutex
	libraries map[string][]byte
}{libraries: map[string][]byte{}}

// build compiles the library.
func build(tb testing.TB, without []string) []byte {
	tb.Helper()
	built.Lock()
	defer built.Unlock()
	key := strings.Join(without, " ")
	if library, ok := built.libraries[key]; ok {
		return library
	}
	need.Command(tb, "cc")
	need.Command(tb, "go")
	include, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", headerModule).Output()
	if err != nil || len(include) < 2 {
		need.Missing(tb, "the module %s, which has nvml.h, cannot be found: %v", headerModule, err)
	}
	dir := tb.TempDir()
	out := filepath.Join(dir, "library.so")
	args := []string{"-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-Wl,-Bsymbolic,-z,defs", "-o", out,
		"-I", filepath.Join(strings.TrimSpace(string(include)), headerDir)}
	for _, symbol := range without {
		args = append(args, fmt.Sprintf("-D%s=absent_%s", symbol, symbol)) // under that name nobody looks for it
	}
	files, err := sources.ReadDir("library")
	if err != nil {
		tb.Fatal(err)
	}
	for _, f := range files {
		text, err := sources.ReadFile("library/" + f.Name())
		if err != nil {
			tb.Fatal(err)
		}
		path := filepath.Join(dir, f.Name())
		if err := os.WriteFile(path, text, 0o644); err != nil {
			tb.Fatal(err)
		}
		if strings.HasSuffix(path, ".c") {
			args = append(args, path)
		}
	}
	if text, err := exec.Command("cc", append(args, "-ldl", "-lpthread")...).CombinedOutput(); err != nil {
		tb.Fatalf("cannot compile the library: %v\n%s", err, text)
	}
	library, err := os.ReadFile(out)
	if err != nil {
		tb.Fatal(err)
	}
	built.libraries[key] = library
	return library
}
