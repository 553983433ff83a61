package fakegpu

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// is compares, and ends the test where it is not.
func is[T comparable](t *testing.T, got, want T) {
	t.Helper()
	if got != want {
		t.Fatalf("got %v, want %v", got, want)
	}
}

func TestRoot(t *testing.T) {
	t.Parallel()
	h := New(t, Options{GPUs: 5})
	root := h.Root()
	open := func(path string) error {
		f, err := os.Open(filepath.Join(root, path))
		if err == nil {
			f.Close()
		}
		return err
	}
	number := func(path string) [2]uint32 {
		var st syscall.Stat_t
		if err := syscall.Stat(filepath.Join(root, path), &st); err != nil {
			t.Fatal(err)
		}
		return [2]uint32{uint32(st.Rdev >> 8), uint32(st.Rdev & 0xFF)}
	}
	text := func(path string) string {
		b, err := os.ReadFile(filepath.Join(root, path))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	for i, want := range [][2]uint32{{1, 7}, {1, 5}, {1, 8}, {1, 9}} {
		path := fmt.Sprintf("dev/nvidia%d", i)
		is(t, number(path), want)
		if err := open(path); err != nil {
			t.Fatal(err)
		}
	}
	is(t, number("dev/nvidia4"), [2]uint32{195, 4})
	if err := open("dev/nvidia4"); !errors.Is(err, syscall.ENXIO) && !errors.Is(err, syscall.EPERM) {
		t.Fatalf("opened: %v", err)
	}
	for _, path := range []string{"dev/nvidiactl", "dev/nvidia-uvm", "dev/nvidia-uvm-tools"} {
		is(t, number(path), [2]uint32{1, 3})
	}
	if devices := text("proc/devices"); !strings.Contains(devices, "\n195 nvidia\n") || !strings.Contains(devices, "\n240 nvidia-caps\n") {
		t.Fatalf("devices: %s", devices)
	}
	is(t, text("sys/bus/pci/devices/0000:30:00.0/numa_node"), "1\n")
	is(t, text("sys/bus/pci/devices/0000:30:00.0/local_cpulist"), "32-63\n")

	h.EnableMIG(1, "1g.10gb", "2g.20gb")
	capabilities := "proc/driver/nvidia/capabilities/gpu1/mig/"
	is(t, text(capabilities+"gi7/access"), "DeviceFileMinor: 201\nDeviceFileMode: 292\nDeviceFileModify: 1\n")
	is(t, text(capabilities+"gi3/ci0/access"), "DeviceFileMinor: 166\nDeviceFileMode: 292\nDeviceFileModify: 1\n")
	is(t, number("dev/nvidia-caps/nvidia-cap166"), [2]uint32{240, 166})
	h.EnableMIG(1, "2g.20gb")
	if err := open(capabilities + "gi7"); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("is there: %v", err)
	}
	is(t, number("dev/nvidia-caps/nvidia-cap166"), [2]uint32{240, 166})
	h.DisableMIG(1)
	if err := open("proc/driver/nvidia/capabilities/gpu1"); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("is there: %v", err)
	}
	is(t, list([]int{9, 0, 2, 1, 5}), "0-2,5,9")
}
