package gpu

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// FuzzStat has a process call itself anything: its name stands in its line of /proc, in brackets.
func FuzzStat(f *testing.F) {
	f.Add("sleep")
	f.Add("a) Z 1 1 7 (b")
	f.Add(") \n(")
	f.Add(strings.Repeat(")", 64))
	f.Fuzz(func(t *testing.T, name string) {
		root := t.TempDir()
		if err := os.Mkdir(filepath.Join(root, "42"), 0o700); err != nil {
			t.Fatal(err)
		}
		line := "42 (" + name + ") S 1 42 7 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 4711 100 200 18446744073709551615\n"
		if err := os.WriteFile(filepath.Join(root, "42/stat"), []byte(line), 0o600); err != nil {
			t.Fatal(err)
		}
		if state, session, start, ok := (processes{root: root}).stat(42); !ok || state != 'S' || session != 7 || start != 4711 {
			t.Errorf("%q: state %c, session %d, start %d, %t", line, state, session, start, ok)
		}
	})
}

// FuzzWithin has control groups be called anything.
func FuzzWithin(f *testing.F) {
	f.Add("4:memory:/a/b\n0::/w/1\n", "4:memory:/a\n0::/w\n")
	f.Add("0::/a:b", "0::/a")
	f.Add("::::", "0:")
	f.Fuzz(func(t *testing.T, groups, of string) {
		if within(groups, "") || within("", of) {
			t.Error("something is within nothing")
		}
		_ = within(groups, of)
	})
}
