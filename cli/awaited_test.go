package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mayfly/mayfly/api"
	"github.com/mayfly/mayfly/manager"
	"github.com/mayfly/mayfly/queue"
)

// patience bounds what does not happen; it is no expectation.
const patience = 30 * time.Second

// answering has commands speak to a handler, in place of a manager.
func answering(t *testing.T, h http.Handler) func(stdin string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &httptest.Server{Listener: l, Config: &http.Server{Handler: h}}
	server.Start()
	t.Cleanup(server.Close)
	return func(stdin string, args ...string) (int, string, string) {
		var out, errs bytes.Buffer
		cmd := New(Program{Socket: func() string { return socket }})
		cmd.SetArgs(args)
		cmd.SetIn(strings.NewReader(stdin))
		cmd.SetOut(&out)
		cmd.SetErr(&errs)
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		code := codeOf(cmd, cmd.ExecuteContext(ctx))
		return code, out.String(), errs.String()
	}
}

// fakeManager takes batches whose lines are ids.
type fakeManager struct {
	*http.ServeMux
	// taken is told of each line, before the next is read.
	taken func(id string)
}

func newFakeManager(wait func(id string) (int, any)) *fakeManager {
	f := &fakeManager{ServeMux: http.NewServeMux(), taken: func(string) {}}
	f.HandleFunc("GET /v1/tasks/{id}/wait", func(w http.ResponseWriter, r *http.Request) {
		status, body := wait(r.PathValue("id"))
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(body)
	})
	f.HandleFunc("POST /v1/tasks:batch", func(w http.ResponseWriter, r *http.Request) {
		control := http.NewResponseController(w)
		_ = control.EnableFullDuplex()
		for n, lines := 1, bufio.NewScanner(r.Body); lines.Scan(); n++ {
			_ = json.NewEncoder(w).Encode(api.Submitted{Line: n, ID: lines.Text()})
			_ = control.Flush()
			f.taken(lines.Text())
		}
	})
	return f
}

func ended(id string, s queue.State) (int, any) {
	return http.StatusOK, manager.View{ID: id, Status: manager.Ended, Result: &queue.Result{ID: id, State: s}}
}

func TestBatchWaits(t *testing.T) {
	t.Parallel()
	t.Run("in turns", func(t *testing.T) {
		t.Parallel()
		release, released := make(chan struct{}), sync.Once{}
		f := newFakeManager(func(id string) (int, any) {
			if id == "last" { // the others go on until somebody has asked for it
				released.Do(func() { close(release) })
				return ended(id, queue.Succeeded)
			}
			select {
			case <-release:
			case <-time.After(patience):
				t.Error("a task has no turn while those before it go on")
			}
			return ended(id, queue.Succeeded)
		})
		var lines strings.Builder
		for i := range 3 * waitWidth {
			fmt.Fprintf(&lines, "slow%d\n", i)
		}
		code, _, said := answering(t, f)(lines.String()+"last\n", "submit", "--lines", "-", "--wait")
		if want := "97 tasks: 97 succeeded, 0 failed, 0 cancelled, 0 rejected\n"; code != 0 || said != want {
			t.Errorf("exit code %d: %s", code, said)
		}
	})
	t.Run("first for those that have ended", func(t *testing.T) {
		t.Parallel()
		// By turns alone it would take a minute until somebody asks for the last, which had left a history by then.
		const many = 60 * waitWidth
		release, released, began := make(chan struct{}), sync.Once{}, time.Now()
		f := newFakeManager(func(id string) (int, any) {
			if id == "last" {
				released.Do(func() { close(release) })
				if late := time.Since(began); late > patience/2 {
					t.Errorf("it was asked for after %s", late)
				}
			}
			<-release
			return ended(id, queue.Succeeded)
		})
		f.HandleFunc("GET /v1/tasks", func(w http.ResponseWriter, r *http.Request) {
			_, v := ended("last", queue.Succeeded)
			_, other := ended("of somebody else", queue.Succeeded)
			_ = json.NewEncoder(w).Encode([]any{other, v})
		})
		time.AfterFunc(patience, func() { released.Do(func() { close(release) }) })
		var lines strings.Builder
		for i := range many {
			fmt.Fprintf(&lines, "slow%d\n", i)
		}
		code, _, said := answering(t, f)(lines.String()+"last\nslow0\n", "submit", "--lines", "-", "--wait")
		if want := fmt.Sprintf("%[1]d tasks: %[1]d succeeded, 0 failed, 0 cancelled, 0 rejected\n", many+2); code != 0 || said != want {
			t.Errorf("exit code %d: %s", code, said)
		}
	})
	t.Run("from when they are submitted", func(t *testing.T) {
		t.Parallel()
		early := make(chan struct{})
		f := newFakeManager(func(id string) (int, any) {
			if id == "early" {
				close(early)
			}
			return ended(id, queue.Succeeded)
		})
		f.taken = func(id string) {
			if id != "early" {
				return
			}
			select {
			case <-early:
			case <-time.After(patience):
				t.Error("nobody waits for a task while others are submitted")
			}
		}
		if code, _, said := answering(t, f)("early\nlate\n", "submit", "--lines", "-", "--wait"); code != 0 {
			t.Errorf("exit code %d: %s", code, said)
		}
	})
	t.Run("for what is known", func(t *testing.T) {
		t.Parallel()
		var once sync.Once
		f := newFakeManager(func(id string) (status int, body any) {
			switch id {
			case "gone":
				return http.StatusNotFound, map[string]string{"error": manager.ErrUnknownTask.Error()}
			case "often":
				status = http.StatusOK
				once.Do(func() { status = http.StatusTooManyRequests })
				_, body = ended(id, queue.Succeeded)
				return status, body
			}
			return ended(id, queue.Failed)
		})
		code, out, said := answering(t, f)("gone\noften\nbad\n", "submit", "--lines", "-", "--wait", "--json")
		if want := "3 tasks: 1 succeeded, 1 failed, 0 cancelled, 0 rejected, 1 not known any more: they have left the history\n"; code != codeFailure || said != want {
			t.Errorf("exit code %d: %s", code, said)
		}
		if n := strings.Count(out, "\n"); n != 2 {
			t.Errorf("%d results: %s", n, out)
		}
	})
}

func TestBatchUsage(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	f := newFakeManager(func(id string) (int, any) { return ended(id, queue.Succeeded) })
	for want, args := range map[string][]string{
		"1 mayfly: cannot read " + dir + " to its end: is a directory; 0 tasks of it were submitted\n": {"--lines", dir},
		"2 mayfly: --cancel-on-interrupt goes with --wait and one task\n":                              {"--lines", "-", "--wait", "--cancel-on-interrupt"},
	} {
		if code, _, said := answering(t, f)("one\n", append([]string{"submit"}, args...)...); fmt.Sprint(code, " ", said) != want {
			t.Errorf("%q: exit code %d: %s", args, code, said)
		}
	}
}
