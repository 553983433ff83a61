package cli

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"

	"github.com/mayfly/mayfly/api"
)

// TestInterruptedSubmit has Ctrl-C come while a task is submitted: the answer that comes nevertheless is waited for, to know what to cancel; one that does not come is not.
func TestInterruptedSubmit(t *testing.T) { //nolint:paralleltest // the signal is for all that listen
	for _, answers := range []bool{true, false} {
		cancelled := make(chan string, 1)
		mux := http.NewServeMux()
		mux.HandleFunc("POST /v1/tasks", func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body) // else the server does not see that the client has gone
			if err := syscall.Kill(syscall.Getpid(), syscall.SIGINT); err != nil {
				t.Error(err)
			}
			if !answers {
				<-r.Context().Done()
				return
			}
			_ = json.NewEncoder(w).Encode(api.Submitted{ID: "taken"})
		})
		mux.HandleFunc("GET /v1/tasks/{id}/wait", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
		mux.HandleFunc("POST /v1/tasks/{id}/cancel", func(w http.ResponseWriter, r *http.Request) {
			cancelled <- r.PathValue("id")
			_ = json.NewEncoder(w).Encode(map[string]string{})
		})
		code, _, said := answering(t, mux)("", "submit", "--wait", "--json", "--cancel-on-interrupt", "--", "true")
		close(cancelled)
		id := <-cancelled
		if answers && (code != codeCancelled || id != "taken") {
			t.Errorf("answered: exit code %d, cancelled %q: %s", code, id, said)
		}
		if !answers && (code != codeCancelled || id != "" || !strings.HasPrefix(said, "mayfly: stopped before the manager answered")) {
			t.Errorf("not answered: exit code %d, cancelled %q: %s", code, id, said)
		}
	}
}
