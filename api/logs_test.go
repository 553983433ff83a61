package api

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/mayfly/mayfly/manager"
)

// TestFollowWaits has those who follow the output of a task that waits get it once it has begun, and others told that it waits.
func TestFollowWaits(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "out")
	if err := os.WriteFile(path, []byte("said\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	changed := make(chan struct{})
	var begun atomic.Bool
	var asked atomic.Int32
	server := serve(t, &stub{
		changed: func() <-chan struct{} { return changed },
		output: func(id string, attempt int) (manager.Output, error) {
			if id == "nobody" {
				return manager.Output{}, manager.ErrUnknownTask
			}
			if attempt == 2 {
				return manager.Output{}, &manager.NoOutput{Why: "there was no attempt 2"}
			}
			if begun.Load() {
				return manager.Output{Stdout: path, Attempt: 1, Kept: true}, nil
			}
			if asked.Add(1) == 2 { // the first asks once, the second waits for a change
				begun.Store(true)
				close(changed)
			}
			return manager.Output{}, &manager.NoOutput{Why: "it has not begun: it waits", Waits: true}
		}})
	if status, f := ask(t, server, http.MethodGet, "/v1/tasks/a2/logs", ""); status != 404 || f.Error != "cannot show the output of a2: it has not begun: it waits" {
		t.Errorf("%d %s", status, f.Error)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+"/v1/tasks/a2/logs?follow=1", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := server.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	said := &strings.Builder{}
	if err := resp.Write(said); err != nil || resp.StatusCode != 200 || !strings.Contains(said.String(), "said\n") {
		t.Errorf("%v: %s", err, said)
	}
	if status, f := ask(t, server, http.MethodGet, "/v1/tasks/a2/logs?attempt=2&follow=1", ""); status != 404 || f.Error != "cannot show the output of a2: there was no attempt 2" {
		t.Errorf("%d %s", status, f.Error)
	}
	if status, f := ask(t, server, http.MethodGet, "/v1/tasks/nobody/logs?follow=1", ""); status != 404 || f.Error != manager.ErrUnknownTask.Error() {
		t.Errorf("%d %s", status, f.Error)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	server = serve(t, &stub{changed: func() <-chan struct{} { return nil }, output: func(id string, _ int) (manager.Output, error) {
		return manager.Output{Stdout: path, Stderr: path, Attempt: 1, Live: id == "starts"}, nil
	}})
	for id, says := range map[string]string{"old": "it is not kept any more", "starts": "its worker is only being started"} {
		if status, f := ask(t, server, http.MethodGet, "/v1/tasks/"+id+"/logs", ""); status != 404 || f.Error != "cannot show the output of "+id+": "+says {
			t.Errorf("%s: %d %s", id, status, f.Error)
		}
	}
}

// TestEventsGoOn holds that the first event says where both streams begin: who comes back after it goes on there, not at the beginning of what was left out.
func TestEventsGoOn(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "out")
	if err := os.WriteFile(path, []byte("0123456789"), 0o600); err != nil {
		t.Fatal(err)
	}
	server := serve(t, &stub{changed: func() <-chan struct{} { return nil }, output: func(string, int) (manager.Output, error) {
		return manager.Output{Stdout: path, Stderr: path, Attempt: 1, Kept: true}, nil
	}})
	events := func(last string) string {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+"/v1/tasks/a1/logs?tail=4", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Accept", "text/event-stream")
		req.Header.Set("Last-Event-ID", last)
		_, text := send(t, server, req)
		return string(text)
	}
	first := events("")
	_, id, _ := strings.Cut(first, "id: ")
	id, _, _ = strings.Cut(id, "\n")
	_, rest, _ := strings.Cut(first, "\n\n") // the connection breaks after the first event
	if again := events(id); again != rest {
		t.Errorf("after %q: %s, want %s", id, again, rest)
	}
}
