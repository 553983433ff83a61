package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestCheckOthers holds that the check says which of the service's settings it does not have.
func TestCheckOthers(t *testing.T) {
	t.Setenv("MAYFLY_HOST", "h")
	file := filepath.Join(t.TempDir(), "mayfly.env")
	if list := checkOthers(file); list != nil {
		t.Errorf("without a file: %+v", list)
	}
	for text, want := range map[string]string{
		"#MAYFLY_AMQP_URL=amqp://a:secret@b\nMAYFLY_HOST=x\n": "",
		"MAYFLY_HOST=x\n MAYFLY_AMQP_URL=amqp://a:secret@b\n": "sets MAYFLY_AMQP_URL for the service",
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		said := ""
		for _, f := range checkOthers(file) {
			said += f.Detail + f.Remedy
		}
		if (want == "") != (said == "") || !strings.Contains(said, want) || strings.Contains(said, "secret") {
			t.Errorf("%q: %q, want %q", text, said, want)
		}
	}
}
