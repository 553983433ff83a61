package keeper

import (
	"os"
	"path/filepath"
	"testing"
)

// TestMark has two directories of one path, as host and container have: what belongs to one is not the other's.
func TestMark(t *testing.T) {
	t.Parallel()
	parent := t.TempDir()
	dir, away := filepath.Join(parent, "state"), filepath.Join(parent, "away")
	for _, path := range []string{dir, away} {
		if err := os.Mkdir(path, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	mark := markOf(dir)
	if again := markOf(dir); again != mark {
		t.Errorf("%s, then %s", mark, again)
	}
	for _, move := range [][2]string{{dir, dir + ".first"}, {away, dir}} {
		if err := os.Rename(move[0], move[1]); err != nil {
			t.Fatal(err)
		}
	}
	if other := markOf(dir); other == mark {
		t.Errorf("%s is that of both", mark)
	}
}
