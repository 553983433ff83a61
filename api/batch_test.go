package api

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mayfly/mayfly/manager"
	"github.com/mayfly/mayfly/queue"
)

// stub is a backend of which a test gives what it needs; whatever else is asked of it panics.
type stub struct {
	manager.Backend
	submit   func(context.Context, []byte) (string, error)
	output   func(id string, attempt int) (manager.Output, error)
	changed  func() <-chan struct{}
	cemetery queue.Cemetery
}

func (s *stub) Submit(ctx context.Context, body []byte, _ string) (string, error) {
	return s.submit(ctx, body)
}

func (s *stub) Output(_ context.Context, id string, attempt int) (manager.Output, error) {
	return s.output(id, attempt)
}

func (s *stub) Changed() <-chan struct{} { return s.changed() }

func (s *stub) Cemetery() queue.Cemetery { return s.cemetery }

// serve serves a stub, and fails the test where the log has an error: what clients do wrong is none of ours.
func serve(t *testing.T, b *stub) *httptest.Server {
	t.Helper()
	log := &strings.Builder{}
	server := httptest.NewServer(New(Config{Backend: b, Log: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelError}))}))
	t.Cleanup(func() {
		server.Close()
		if log.Len() > 0 {
			t.Errorf("logged: %s", log)
		}
	})
	return server
}

// ask sends a request and returns the status and what is said.
func ask(t *testing.T, server *httptest.Server, method, path, body string) (int, failure) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, server.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	status, text := send(t, server, req)
	var f failure
	_ = json.Unmarshal(text, &f) // what is no failure has none of its fields
	return status, f
}

// send sends a request and returns the status and the whole answer.
func send(t *testing.T, server *httptest.Server, req *http.Request) (int, []byte) {
	t.Helper()
	resp, err := server.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, text
}

// TestBatchGoesOn has a batch with lines that are too long go on behind them.
func TestBatchGoesOn(t *testing.T) {
	t.Parallel()
	server := serve(t, &stub{submit: func(_ context.Context, body []byte) (string, error) {
		task, err := queue.Decode(queue.Message{Body: body})
		return task.ID, err
	}})
	line := func(id string, stdin int) string {
		return `{"id":"` + id + `","command":["true"],"stdin":"` + strings.Repeat("x", stdin) + `"}`
	}
	lines := []string{line("ok1", 0), line("long", queue.MaxBody+1<<20), line("ok2", 0), line("edge", queue.MaxBody), "", line("ok3", 1<<20), line("last", 2*queue.MaxBody)}
	resp, err := server.Client().Post(server.URL+"/v1/tasks:batch", "application/x-ndjson", strings.NewReader(strings.Join(lines, "\n")))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var got []Submitted
	for answers := json.NewDecoder(resp.Body); ; {
		var a Submitted
		if err := answers.Decode(&a); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if a.Error != "" && (a.Field != "body" || !strings.Contains(a.Error, "(16MiB)") || !strings.Contains(a.Error, "so send a reference to large data")) {
			t.Errorf("line %d: %+v", a.Line, a)
		}
		a.Error, a.Field = "", ""
		got = append(got, a)
	}
	want := []Submitted{{Line: 1, ID: "ok1"}, {Line: 2}, {Line: 3, ID: "ok2"}, {Line: 4}, {Line: 6, ID: "ok3"}, {Line: 7}}
	if !slices.Equal(got, want) {
		t.Errorf("answers = %+v, want %+v", got, want)
	}
}

// pipeListener accepts one end of a pipe.
type pipeListener struct {
	net.Conn
	once, closed sync.Once
	done         chan struct{}
}

func (l *pipeListener) Accept() (conn net.Conn, err error) {
	l.once.Do(func() { conn = l.Conn })
	if conn != nil {
		return conn, nil
	}
	<-l.done
	return nil, net.ErrClosed
}
func (l *pipeListener) Close() error   { l.closed.Do(func() { close(l.done) }); return nil }
func (l *pipeListener) Addr() net.Addr { return l.LocalAddr() }

// TestBatchIsPatient has the queue take its time with the last document of a batch that came by TCP: only its lines have to come in time.
func TestBatchIsPatient(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server := New(Config{Log: slog.New(slog.DiscardHandler), Backend: &stub{submit: func(ctx context.Context, _ []byte) (string, error) {
			select {
			case <-time.After(3 * bodyPause):
				return "slow", nil
			case <-ctx.Done():
				return "", ctx.Err()
			}
		}}})
		ours, theirs := net.Pipe()
		ctx, cancel := context.WithCancel(t.Context())
		served := make(chan error)
		go func() {
			served <- Serve(ctx, &pipeListener{Conn: theirs, done: make(chan struct{})}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				server.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), remoteKey{}, true)))
			}))
		}()
		go io.WriteString(ours, "POST /v1/tasks:batch HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\n{}\n")
		resp, err := http.ReadResponse(bufio.NewReader(ours), nil)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(resp.Body)
		if want := `{"line":1,"id":"slow"}` + "\n"; err != nil || string(text) != want {
			t.Errorf("%s, %v", text, err)
		}
		ours.Close()
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
}
