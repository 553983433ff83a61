package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mayfly/mayfly/internal/plain"
)

// TestLogIsPlain holds that a log that is shown on a terminal has it do nothing, and that one entry is one line.
func TestLogIsPlain(t *testing.T) {
	t.Parallel()
	const evil = "\x1b]0;x\x07\u009b2J\x7f\u202e\u2028\nlevel=ERROR msg=forged\r"
	for _, format := range []string{"text", "json"} {
		f, err := os.Create(filepath.Join(t.TempDir(), "log"))
		if err != nil {
			t.Fatal(err)
		}
		log := newLogger(f, &config{LogFormat: format, LogLevel: "info"})
		log.Info("task rejected", "reason", evil, "err", errors.New(evil), "count", 3, "list", []string{evil})
		log.With("task", evil).WithGroup("g").Info("again", "reason", evil)
		text, err := os.ReadFile(f.Name())
		f.Close()
		if lines := strings.Count(string(text), "\n"); err != nil || !plain.Clean(string(text)) || lines != 2 || !strings.Contains(string(text), "forged") {
			t.Errorf("%s: %d lines: %q, %v", format, lines, text, err)
		}
	}
}
