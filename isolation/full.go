package isolation

import "golang.org/x/sys/unix"

// How much room is left at most in a file system that counts as full, in bytes.
const (
	// blockMost is what is left in memory: less than the page that the program could not write.
	blockMost = 4096
	// pieceMost is what is left on a disk: ext4 takes a write in pieces of up to 2 MiB, and refuses a whole piece for which there is not room enough.
	// Of a small disk a piece is too much to say so: there it is a tenth.
	pieceMost  = 2 << 20
	pieceShare = 10
)

// Full reports whether a file system has no room left for what a program writes to it, be it for bytes or for files. The kernel does not count what it refuses, so that
// a program that left a disk this full and failed for another reason cannot be told from one that was refused a write.
func Full(st *unix.Statfs_t) bool {
	block := uint64(st.Bsize)
	below := uint64(blockMost)
	if st.Type != unix.TMPFS_MAGIC {
		below = max(below, min(pieceMost, st.Blocks*block/pieceShare))
	}
	return st.Bavail*block < below || st.Files > 0 && st.Ffree == 0
}
