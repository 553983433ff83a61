package cli

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mayfly/mayfly/api"
	"github.com/mayfly/mayfly/queue"
)

// submitting has submit speak to a manager that takes all, and returns what it got last.
func submitting(t *testing.T) (run func(stdin string, args ...string) (int, string, string), got func() []byte) {
	t.Helper()
	var last []byte
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/tasks", func(w http.ResponseWriter, r *http.Request) {
		last, _ = io.ReadAll(r.Body)
		_ = json.NewEncoder(w).Encode(api.Submitted{ID: "taken"})
	})
	mayfly := answering(t, mux)
	return func(stdin string, args ...string) (int, string, string) {
		last = nil
		return mayfly(stdin, append([]string{"submit"}, args...)...)
	}, func() []byte { return last }
}

// TestNoText holds that values that JSON cannot carry are refused, not changed.
func TestNoText(t *testing.T) {
	t.Setenv("MAYFLY_TEST_BYTES", "a\xfe")
	submit, got := submitting(t)
	file := filepath.Join(t.TempDir(), "bytes")
	if err := os.WriteFile(file, []byte("\xff\xfe"), 0o600); err != nil {
		t.Fatal(err)
	}
	for what, args := range map[string][]string{
		"--stdin-file is not UTF-8 (byte 1 is 0xff)":                  {"--stdin-file", file, "--", "od"},
		"--stdin is not UTF-8 (byte 3 is 0xff)":                       {"--stdin", "ab\xff", "--", "od"},
		"word 2 of the command is not UTF-8 (byte 1 is 0xff)":         {"--", "echo", "\xff"},
		"--shell is not UTF-8 (byte 6 is 0x80)":                       {"--shell", "echo \x80"},
		"--env is not UTF-8 (byte 3 is 0xff)":                         {"-e", "X=\xff", "--", "env"},
		"--env MAYFLY_TEST_BYTES is not UTF-8 (byte 2 is 0xfe)":       {"-e", "MAYFLY_TEST_BYTES", "--", "env"},
		"--label is not UTF-8 (byte 4 is 0xe2)":                       {"--label", "k=v\xe2", "--", "true"},
		"--params is not UTF-8 (byte 7 is 0xff)":                      {"--type", "x", "--params", "{\"k\":\"\xff\"}"},
		"--name is not UTF-8 (byte 1 is 0xc3), which a task document": {"--name", "\xc3", "--", "true"},
	} {
		if code, _, said := submit("", args...); code != codeUsage || !strings.Contains(said, what) || got() != nil {
			t.Errorf("%q: exit code %d: %s", args, code, said)
		}
	}
	// The character that stands for what is none is one.
	if code, _, said := submit("", "--stdin", "\uFFFD é", "--", "cat"); code != 0 || !strings.Contains(string(got()), `"stdin":"`+"\uFFFD é"+`"`) {
		t.Errorf("exit code %d: %s", code, said)
	}
}

// TestWrongFlags holds that a wrong value is named together with what would be right.
func TestWrongFlags(t *testing.T) {
	t.Parallel()
	submit, got := submitting(t)
	for what, args := range map[string][]string{
		"--cpu is NaN: it must be a number of cores, as 2 or 0.5":                   {"--cpu", "NaN", "--", "true"},
		"--cpu is +Inf: it must be a number of cores":                               {"--cpu", "Inf", "--", "true"},
		`--cpu is "abc": it must be a number, as 2 or 0.5; see "mayfly submit`:      {"--cpu", "abc", "--", "true"},
		`--cpu is "1e999": it is out of range`:                                      {"--cpu", "1e999", "--", "true"},
		`--gpu is "two": it must be a whole number, as 3`:                           {"--gpu", "two", "--", "true"},
		`--wait is "maybe": it must be true or false`:                               {"--wait=maybe", "--", "true"},
		"--stdin and --stdin-file exclude each other":                               {"--stdin", "", "--stdin-file", "-", "--", "cat"},
		"cannot submit /dev/zero: it has more than 16777216 bytes (16MiB)":          {"--file", "/dev/zero"},
		"cannot submit -: it has more than 16777216 bytes (16MiB), the most that a": {"--stdin-file", "-", "--", "cat"},
	} {
		code, _, said := submit(strings.Repeat("x", queue.MaxBody+1), args...)
		if code == 0 || !strings.Contains(said, what) || strings.Contains(said, "strconv") || got() != nil {
			t.Errorf("%q: exit code %d: %s", args, code, said)
		}
	}
	mayfly := answering(t, http.NotFoundHandler())
	for what, args := range map[string][]string{
		"--tail is -5: it must not be negative":                        {"logs", "--tail", "-5", "x"},
		"--tail is -1: it must not be negative":                        {"logs", "--tail=-1", "x"},
		"--attempt is -1: it must not be negative":                     {"logs", "--attempt", "-1", "x"},
		`--attempt is "99999999999999999999": it is out of range; see`: {"logs", "--attempt", "99999999999999999999", "x"},
	} {
		if code, _, said := mayfly("", args...); code != codeUsage || !strings.Contains(said, what) {
			t.Errorf("%q: exit code %d: %s", args, code, said)
		}
	}
}
