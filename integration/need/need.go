// Package need says what becomes of a test that lacks what it needs.
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
