package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestSecretFiles holds whose files are read for a secret.
func TestSecretFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "url")
	for name, tt := range map[string]struct {
		text  string
		mode  os.FileMode
		owner int
		want  string // of the error
	}{
		"fine": {" amqp://u:p@h/\n", 0o600, os.Geteuid(), ""}, "a credential of systemd's": {"amqp://u:p@h/", 0o400, os.Geteuid(), ""}, "of our group": {"amqp://u:p@h/", 0o640, os.Geteuid(), ""},
		"read by all": {"amqp://u:p@h/", 0o644, os.Geteuid(), "others may read"}, "written by a group": {"amqp://u:p@h/", 0o660, os.Geteuid(), "others may read or change"},
		"another's": {"amqp://u:p@h/", 0o600, 65534, "others may read"}, "empty": {"\n", 0o600, os.Geteuid(), "it is empty"}, "long": {strings.Repeat("x", secretMost+1), 0o600, os.Geteuid(), "more than"},
	} {
		if tt.owner != os.Geteuid() && os.Geteuid() != 0 {
			continue
		}
		os.Remove(path)
		if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, tt.mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(path, tt.owner, -1); err != nil {
			t.Fatal(err)
		}
		got, err := readSecret("MAYFLY_X", path)
		switch {
		case tt.want == "" && (err != nil || got != strings.TrimSpace(tt.text)):
			t.Errorf("%s: %q, %v", name, got, err)
		case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "u:p")):
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if _, err := readSecret("MAYFLY_X", dir); err == nil {
		t.Error("a directory is a secret")
	}
	if _, _, err := (&config{SigningKey: path}).signing(); err == nil { // the last one of those above
		t.Error("a file that is no key, or that others may read, is a key")
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, _, err := (&config{SigningKey: path}).signing(); err == nil || !strings.Contains(err.Error(), "others may read") {
		t.Errorf("a key that others may read: %v", err)
	}
	c := &config{AMQPURL: "amqp://u:p@h/", AMQPURLFile: path}
	if err := c.readSecrets(); err == nil {
		t.Error("both are taken")
	}
}

// TestStateDirectoryOfOthers holds which state directories are used.
func TestStateDirectoryOfOthers(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("it takes root to be laid traps for")
	}
	base := t.TempDir()
	make := func(name string, mode os.FileMode, owner int) string {
		path := filepath.Join(base, name)
		if err := os.MkdirAll(path, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(path, owner, -1); err != nil {
			t.Fatal(err)
		}
		return path
	}
	ours := make("ours", 0o711, 0)
	theirs := make("theirs", 0o755, 65534)
	open := make("open", 0o777, 0)
	sticky := make("sticky", 0o777|os.ModeSticky, 0)
	link := filepath.Join(base, "link")
	if err := os.Symlink(theirs, link); err != nil {
		t.Fatal(err)
	}
	trap := filepath.Join(sticky, "trap")
	if err := os.Symlink(ours, trap); err != nil {
		t.Fatal(err)
	}
	if err := os.Lchown(trap, 65534, -1); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{ours: "", theirs: "it is not ours", open: "others may write to", make("open/in", 0o700, 0): "others may write to " + open,
		sticky: "others may write", make("sticky/in", 0o700, 0): "", link: "it is not ours", make("theirs/in", 0o700, 0): "user 65534 owns " + theirs, trap: "user 65534 owns " + trap, filepath.Join(base, "none"): "no such file"} {
		if err := ownDirectory(path); (want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
}
