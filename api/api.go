// Package api shows the manager over HTTP with JSON on a Unix socket, and is its client.
//
// # Theory of operation
//
// Whoever may open the socket may use the API: the socket's mode and directory are the access control. Every answer is
// JSON, errors are {"error": sentence} with a "field" where the caller's document is at fault; output is raw bytes. Long
// requests (waiting for a task, following its output, the stream of events) end when the client leaves, when the task has
// ended, or when the server stops.
//
//	POST   /v1/tasks                one task document -> {"id"}; ?pool=
//	POST   /v1/tasks:batch          JSON Lines in, JSON Lines out, in the same order
//	GET    /v1/tasks                active tasks; ?ended=N adds ended ones; ?status= ?pool= ?label=key=value filter
//	GET    /v1/tasks/{id}           one task
//	GET    /v1/tasks/{id}/wait      one task, once it has ended
//	GET    /v1/tasks/{id}/logs      its output; ?stream= ?attempt= ?follow=1 ?tail=BYTES
//	POST   /v1/tasks/{id}/cancel
//	GET    /v1/dead                 dead letters; ?limit=
//	GET    /v1/dead/{key}           one, with its body
//	POST   /v1/dead/{key}/requeue
//	DELETE /v1/dead/{key}
//	GET    /v1/info                 the host
//	GET    /v1/gpus                 its GPUs
//	GET    /v1/events               server-sent events: the active tasks, at each change
//	POST   /v1/drain
package api

import (
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"

	"github.com/mayfly/mayfly/internal/logkey"
	"github.com/mayfly/mayfly/manager"
	"github.com/mayfly/mayfly/queue"
)

// Config is what the API needs.
type Config struct {
	Backend manager.Backend
	Log     *slog.Logger
}

// failure is the JSON form of an error.
type failure struct {
	Error string `json:"error"`
	// Field is set where a task document is at fault.
	Field string `json:"field,omitempty"`
}

type server struct {
	backend manager.Backend
	log     *slog.Logger
}

// New returns the API's handler.
func New(c Config) http.Handler {
	s := &server{backend: c.Backend, log: c.Log}
	mux := http.NewServeMux()
	for pattern, handle := range map[string]func(http.ResponseWriter, *http.Request) error{
		"POST /v1/tasks":              s.submit,
		"POST /v1/tasks:batch":        s.batch,
		"GET /v1/tasks":               s.list,
		"GET /v1/tasks/{id}":          s.show,
		"GET /v1/tasks/{id}/wait":     s.wait,
		"GET /v1/tasks/{id}/logs":     s.logs,
		"POST /v1/tasks/{id}/cancel":  s.cancel,
		"GET /v1/dead":                s.dead,
		"GET /v1/dead/{key}":          s.deadLetter,
		"POST /v1/dead/{key}/requeue": s.requeue,
		"DELETE /v1/dead/{key}":       s.drop,
		"GET /v1/info":                s.info,
		"GET /v1/gpus":                s.gpus,
		"GET /v1/events":              s.events,
		"POST /v1/drain":              s.drain,
	} {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			if err := handle(w, r); err != nil {
				s.fail(w, r, err)
			}
		})
	}
	return jsonErrors(mux)
}

// jsonErrors gives the mux's own answers (no such route, no such method) the form of all others.
func jsonErrors(mux *http.ServeMux) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, pattern := mux.Handler(r); pattern != "" {
			mux.ServeHTTP(w, r)
			return
		}
		probe := &statusOnly{header: http.Header{}}
		mux.ServeHTTP(probe, r)
		if allow := probe.header.Get("Allow"); allow != "" {
			w.Header().Set("Allow", allow)
			answer(w, http.StatusMethodNotAllowed, failure{Error: r.Method + " is not possible here, only " + allow})
			return
		}
		answer(w, http.StatusNotFound, failure{Error: "there is no " + r.URL.Path})
	})
}

type statusOnly struct{ header http.Header }

func (s *statusOnly) Header() http.Header         { return s.header }
func (s *statusOnly) Write(b []byte) (int, error) { return len(b), nil }
func (s *statusOnly) WriteHeader(int)             {}

// answer writes JSON. Nothing can be done about a client that has left.
func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

// fail maps an error to its status.
func (s *server) fail(w http.ResponseWriter, r *http.Request, err error) {
	var refusal *queue.Refusal
	var size *http.MaxBytesError
	f := failure{Error: err.Error()}
	status := http.StatusInternalServerError
	switch {
	case r.Context().Err() != nil:
		return // nobody listens
	case errors.As(err, &refusal):
		f.Field, status = refusal.Field, http.StatusBadRequest
	case errors.As(err, new(*badRequest)):
		status = http.StatusBadRequest
	case errors.As(err, &size):
		status = http.StatusRequestEntityTooLarge
	case errors.Is(err, manager.ErrUnknownTask), errors.Is(err, manager.ErrElsewhere), errors.Is(err, queue.ErrNoDeadLetter):
		status = http.StatusNotFound
	default:
		s.log.Error("request failed", "method", r.Method, logkey.Path, r.URL.Path, logkey.Err, err)
	}
	answer(w, status, f)
}

// badRequest is an error of the caller.
type badRequest struct{ sentence string }

func (b *badRequest) Error() string { return b.sentence }
