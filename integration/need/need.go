// Package need says what becomes of a test that lacks what it needs, and what was exercised by those that did not.
package need

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Missing skips the test loudly, or fails it where the environment variable MAYFLY_TEST_REQUIRE is 1: there nothing may be skipped.
func Missing(tb testing.TB, format string, args ...any) {
	tb.Helper()
	if os.Getenv("MAYFLY_TEST_REQUIRE") == "1" {
		tb.Fatalf(format, args...)
	}
	tb.Skipf("SKIPPED: "+format, args...)
}

// Command is Missing where a command is not installed.
func Command(tb testing.TB, name string) {
	tb.Helper()
	if _, err := exec.LookPath(name); err != nil {
		Missing(tb, "%s is not installed: run integration/setup.sh", name)
	}
}

// Cache is the folder in which integration/setup.sh keeps what it does not install.
func Cache() string {
	if dir := os.Getenv("MAYFLY_TEST_CACHE"); dir != "" {
		return dir
	}
	if dir := os.Getenv("XDG_CACHE_HOME"); dir != "" {
		return filepath.Join(dir, "mayfly")
	}
	home, err := os.UserHomeDir()
	if err != nil {
		home = "/root"
	}
	return filepath.Join(home, ".cache", "mayfly")
}

// Tool is the path of a program that is installed, or that integration/setup.sh has put into the cache; where it is neither, it is Missing.
func Tool(tb testing.TB, name string) string {
	tb.Helper()
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	path := filepath.Join(Cache(), name)
	if _, err := os.Stat(path); err != nil {
		Missing(tb, "%s is not installed: run integration/setup.sh", name)
	}
	return path
}

// Exercised says that something that not every machine has was tested. Where the environment variable MAYFLY_TEST_REPORT names a file,
// it is added there: `make test` shows it at its end.
func Exercised(tb testing.TB, what string) {
	tb.Helper()
	tb.Logf("exercised: %s", what)
	path := os.Getenv("MAYFLY_TEST_REPORT")
	if path == "" {
		return
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		tb.Errorf("cannot report: %v", err)
		return
	}
	defer f.Close()
	if _, err := f.WriteString(what + "\n"); err != nil {
		tb.Errorf("cannot report: %v", err)
	}
}
