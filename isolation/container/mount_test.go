package container

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/mayfly/mayfly/integration/need"
	"github.com/mayfly/mayfly/isolation"
)

// TestUnmountInterrupted has one life after the other die at each point of an unmounting: the last one finds what the first would have found.
func TestUnmountInterrupted(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		die  func(t *testing.T, r *run) // how far the first life comes
	}{
		{"before", func(*testing.T, *run) {}},
		{"while it carries the file out", func(t *testing.T, r *run) {
			if err := os.WriteFile(carriedOf(r.spec.Private), []byte(`{"n"`), 0o600); err != nil {
				t.Fatal(err)
			}
		}},
		{"before it unmounts", func(_ *testing.T, r *run) { r.setAside() }},
		{"after that", func(t *testing.T, r *run) {
			r.setAside()
			if err := unix.Unmount(r.spec.Private, unix.MNT_DETACH); err != nil {
				t.Fatal(err)
			}
		}},
		{"before it is settled", func(_ *testing.T, r *run) { r.unmount() }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			private := filepath.Join(t.TempDir(), "work")
			if err := os.Mkdir(private, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := unix.Mount("none", private, "tmpfs", 0, "size=4m"); err != nil {
				need.Missing(t, "nothing can be mounted: %v", err)
			}
			t.Cleanup(func() { _ = unix.Unmount(private, unix.MNT_DETACH) })
			r := &run{engine: &Engine{config: Config{Log: slog.New(slog.NewTextHandler(t.Output(), nil))}},
				spec: isolation.Spec{ID: "x", Private: private, Carry: filepath.Join(private, "result"), CarryMax: 100}}
			if err := os.WriteFile(r.spec.Carry, []byte(`{"n":1}`), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(private, "x"), make([]byte, 8<<20), 0o600); err == nil {
				t.Fatal("there is room for all of it")
			}
			c.die(t, r)
			full, fault := r.unmount()
			if text, err := os.ReadFile(r.spec.Carry); !full || fault != "" || err != nil || string(text) != `{"n":1}` {
				t.Errorf("full %v, fault %q, result %q, %v", full, fault, text, err)
			}
			forgetAside(private)
			if left, _ := filepath.Glob(private + ".*"); len(left) > 0 || isMount(private) {
				t.Errorf("left: %q, mounted: %v", left, isMount(private))
			}
		})
	}
}
