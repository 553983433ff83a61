package process

import (
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// sweepMax is the number of inodes up to which it is cheaper to remove what a program left than to begin anew.
const sweepMax = 100

// count notes how many inodes there are before the first program.
func (p *Private) count() {
	var st unix.Statfs_t
	if unix.Fstatfs(int(p.root.Fd()), &st) == nil && st.Files > 0 {
		p.used, p.sweepable = st.Files-st.Ffree, true
	}
}

// sweep removes what the program left, and reports whether everything is as it was before the first one: to the last inode and
// block, so that what has no name any more and is held from elsewhere shows, too.
func (p *Private) sweep() bool {
	var st unix.Statfs_t
	if !p.sweepable || unix.Fstatfs(int(p.root.Fd()), &st) != nil {
		return false
	}
	inodes := st.Files - st.Ffree
	switch {
	case inodes == p.used+uint64(len(p.furniture)) && st.Bfree == st.Blocks && p.clear():
		return true // where there was as much as before, and all of that could be removed, there is nothing else
	case inodes > p.used+sweepMax || !p.scour():
		return false
	}
	return unix.Fstatfs(int(p.root.Fd()), &st) == nil && st.Files-st.Ffree == p.used && st.Bfree == st.Blocks
}

// clear removes the furniture, if that is all there is.
func (p *Private) clear() bool {
	for _, path := range slices.Backward(p.furniture) {
		if unix.Unlinkat(int(p.root.Fd()), path, unix.AT_REMOVEDIR) != nil {
			return false
		}
	}
	return true
}

// scour removes all but the mount points.
func (p *Private) scour() bool {
	root, err := os.OpenRoot(fmt.Sprintf("/proc/self/fd/%d", p.root.Fd()))
	if err != nil {
		return false
	}
	defer func() { _ = root.Close() }()
	for _, place := range []string{ownPlace, tmpPlace, vartmpName, shmPlace} {
		dir, err := root.Open(place)
		if err != nil {
			continue // where there is no directory of its own
		}
		entries, err := dir.ReadDir(-1)
		dir.Close()
		if err != nil {
			return false
		}
		for _, e := range entries {
			if path := place + "/" + e.Name(); !slices.Contains(p.points, path) && root.RemoveAll(path) != nil {
				return false
			}
		}
	}
	return true
}
