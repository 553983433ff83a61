package cli

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// writing answers as a manager with a task that has written to both streams; the output of "cut" comes in pieces that end within characters.
func writing() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/tasks/{id}/logs", func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		switch r.PathValue("id") {
		case "cut":
			if q.Get("stream") == "stderr" {
				return
			}
			for _, piece := range []string{"a\xc3", "\xa9\xff b\n", "\xe2\x82"} {
				fmt.Fprint(w, piece)
				_ = http.NewResponseController(w).Flush()
			}
		case "said":
			fmt.Fprintf(w, "%s %s <\x1b>\xff\n", q.Get("stream"), q.Get("tail"))
		default:
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprint(w, `{"error": "there is no such task"}`)
		}
	})
	return mux
}

func TestLogsJSON(t *testing.T) {
	t.Parallel()
	mayfly := answering(t, writing())
	for args, want := range map[string]string{
		"--json said":                  `{"stdout": "stdout  <\u001b>\ufffd\n", "stderr": "stderr  <\u001b>\ufffd\n"}`,
		"--json --stderr said":         `{"stderr": "stderr  <\u001b>\ufffd\n"}`,
		"--json --stdout --tail 5 cut": `{"stdout": "aé\ufffd b\n\ufffd\ufffd"}`,
		"--json cut":                   `{"stdout": "aé\ufffd b\n\ufffd\ufffd", "stderr": ""}`,
	} {
		code, out, said := mayfly("", append([]string{"logs"}, strings.Fields(args)...)...)
		if got := strings.NewReplacer("\n", "", "  \"", "\"", ",", ", ").Replace(out); code != 0 || got != want {
			t.Errorf("%s: exit code %d, %s%s, want %s", args, code, got, said, want)
		}
	}
	// What goes on is cut where it came in pieces, but not within characters.
	code, out, said := mayfly("", "logs", "-f", "--json", "cut")
	text := ""
	for line := range strings.Lines(out) {
		line, begins := strings.CutPrefix(line, `{"stream":"stdout","text":"`)
		line, ends := strings.CutSuffix(line, "\"}\n")
		if text += line; !begins || !ends {
			t.Errorf("a line is %s", line)
		}
	}
	if want := `aé\ufffd b\n\ufffd\ufffd`; code != 0 || text != want {
		t.Errorf("exit code %d, %s%s, want %s", code, out, said, want)
	}
	if code, out, said := mayfly("", "logs", "--json", "other"); code != codeFailure || out != "" || !strings.Contains(said, "no such task") {
		t.Errorf("exit code %d, %s%s", code, out, said)
	}
	if code, _, said := mayfly("", "logs", "--json", "--raw", "said"); code != codeUsage || !strings.Contains(said, "does not go with --json") {
		t.Errorf("exit code %d, %s", code, said)
	}
}
