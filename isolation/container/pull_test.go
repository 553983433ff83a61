package container

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestCredentialsForAll holds that credentials that others may read are sent nowhere.
func TestCredentialsForAll(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "auth.json")
	if err := os.WriteFile(path, []byte(`{"auths": {"registry.example": {"username": "u", "password": "p"}}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	e := &Engine{config: Config{Auth: path}}
	for mode, want := range map[os.FileMode]string{0o600: "", 0o640: "", 0o644: "cannot use MAYFLY_REGISTRY_AUTH=" + path + ": others may read or change it"} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		auth, err := e.credentials("registry.example/image")
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) || (auth == "") != (want != "") {
			t.Errorf("%o: %q, %v, want %q", mode, auth, err, want)
		}
	}
}
