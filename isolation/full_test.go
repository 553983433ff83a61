package isolation

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestFull(t *testing.T) {
	t.Parallel()
	const ext4 = unix.EXT4_SUPER_MAGIC
	for name, tt := range map[string]struct {
		kind       int64
		size, left uint64
		files      uint64 // that can still be made
		want       bool
	}{
		"empty disk":                 {ext4, 50 << 20, 50 << 20, 1, false},
		"a piece is left":            {ext4, 50 << 20, 2 << 20, 1, false},
		"less than a piece":          {ext4, 50 << 20, 2<<20 - 1024, 1, true},
		"a large disk, a piece left": {ext4, 1 << 40, 2 << 20, 1, false},
		"small disk, a tenth left":   {ext4, 10 << 20, 1 << 20, 1, false},
		"small disk, less":           {ext4, 10 << 20, 1<<20 - 1024, 1, true},
		"tiny disk":                  {ext4, 16 << 10, 4096 - 1024, 1, true},
		"tiny disk, room":            {ext4, 16 << 10, 4096, 1, false},
		"no more files on a disk":    {ext4, 50 << 20, 20 << 20, 0, true},
		"memory, a page left":        {unix.TMPFS_MAGIC, 50 << 20, 4096, 1, false},
		"memory, nothing left":       {unix.TMPFS_MAGIC, 50 << 20, 0, 1, true},
		"no more files in memory":    {unix.TMPFS_MAGIC, 50 << 20, 20 << 20, 0, true},
	} {
		st := unix.Statfs_t{Type: tt.kind, Bsize: 1024, Blocks: tt.size / 1024, Bavail: tt.left / 1024, Files: 100, Ffree: tt.files}
		if got := Full(&st); got != tt.want {
			t.Errorf("%s: %t, want %t", name, got, tt.want)
		}
	}
	if Full(&unix.Statfs_t{Type: unix.BTRFS_SUPER_MAGIC, Bsize: 4096, Blocks: 1 << 20, Bavail: 1 << 19}) {
		t.Error("a file system that does not count files is full")
	}
}
