package api

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestNotRunning tells who looks for a manager of their own that there is one of root's.
func TestNotRunning(t *testing.T) {
	dir := t.TempDir()
	before := rootSocket
	rootSocket = filepath.Join(dir, "root.sock")
	defer func() { rootSocket = before }()
	_, err := Dial(filepath.Join(dir, "own.sock")).Info(t.Context())
	if err == nil || !strings.Contains(err.Error(), `start it with "mayfly run"`) {
		t.Errorf("none: %v", err)
	}
	if err := os.WriteFile(rootSocket, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err = Dial(filepath.Join(dir, "own.sock")).Info(t.Context()); err == nil || !strings.Contains(err.Error(), "--socket "+rootSocket) {
		t.Errorf("root's: %v", err)
	}
	if _, err = Dial(rootSocket).Info(t.Context()); err == nil || strings.Contains(err.Error(), "that of root") {
		t.Errorf("root's own: %v", err)
	}
}
