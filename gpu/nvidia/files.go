package nvidia

import (
	"fmt"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/mayfly/mayfly/gpu"
)

// Files lists the device files of NVIDIA's driver that are there, below root. It asks no driver.
func Files(root string) []gpu.File {
	var list []gpu.File
	for _, pattern := range []string{"dev/nvidia[0-9]*", "dev/nvidiactl", "dev/nvidia-*", "dev/nvidia-caps/nvidia-cap*"} {
		paths, _ := filepath.Glob(filepath.Join(root, pattern))
		for _, path := range paths {
			if major, minor, err := deviceNumber(path); err == nil {
				list = append(list, gpu.File{Path: path, Major: major, Minor: minor})
			}
		}
	}
	return list
}

// deviceNumber reads the number of a character device's file.
func deviceNumber(path string) (major, minor uint32, err error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, 0, fmt.Errorf("cannot look at %s: %w", path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFCHR {
		return 0, 0, fmt.Errorf("cannot use %s: it is no character device", path)
	}
	return unix.Major(st.Rdev), unix.Minor(st.Rdev), nil
}
