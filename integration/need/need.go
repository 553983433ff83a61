// Package need says what becomes of a test that lacks what it needs, and what was exercised by those that did not.
package need

import (
	"os"
	"os/exec"
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
