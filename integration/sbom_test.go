package integration

import (
	"debug/buildinfo"
	"encoding/json"
	"testing"

	"github.com/mayfly/mayfly/integration/need"
)

// TestSBOM checks that the list of what the program is made of has all modules that the program itself names, and a licence for each.
func TestSBOM(t *testing.T) {
	t.Parallel()
	need.Command(t, "make")
	dir := t.TempDir()
	sh(t, `make -s -C .. sbom DIST="$1" 2>/dev/null`, dir)
	var list struct {
		Format     string `json:"bomFormat"`
		Components []struct {
			Name, Version string
			Evidence      struct{ Licenses []any }
		}
	}
	if err := json.Unmarshal([]byte(read(t, dir, "sbom.json")), &list); err != nil {
		t.Fatal(err)
	}
	listed := map[string]bool{}
	for _, c := range list.Components {
		listed[c.Name+"@"+c.Version] = true
		if len(c.Evidence.Licenses) == 0 && c.Name != "std" {
			t.Errorf("%s has no licence", c.Name)
		}
	}
	info, err := buildinfo.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	if list.Format != "CycloneDX" || len(info.Deps) < 10 {
		t.Errorf("%s, %d modules", list.Format, len(info.Deps))
	}
	for _, m := range info.Deps {
		if !listed[m.Path+"@"+m.Version] {
			t.Errorf("%s %s is not listed", m.Path, m.Version)
		}
	}
}
