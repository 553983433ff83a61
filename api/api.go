// Package api shows the manager over HTTP with JSON on a Unix socket, and where it is told to by TCP, and is its client.
//
// # Theory of operation
//
// Whoever may open the socket may use the API: the socket's mode and directory are the access control. By TCP a token or a certificate is
// asked for ([Remote]); pages of other sites are kept out everywhere (guard). Every answer is JSON, errors are {"error": sentence}
// with a "field" where the caller's document is at fault; output is raw bytes. Long requests (waiting for a task, following its output,
// the stream of events) end when the client leaves, when the task has ended, or when the server stops. Nothing runs while nobody asks, but
// the sampler of [Server.Watch], which sleeps while nothing changes.
//
// openapi.json describes all of it; docs/api.md is for people. A parameter that is not described is refused: a filter that is misspelt
// would show everything.
package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/mayfly/mayfly/api/dashboard"
	"github.com/mayfly/mayfly/internal/logkey"
	"github.com/mayfly/mayfly/manager"
	"github.com/mayfly/mayfly/queue"
)

// Config is what the API needs.
type Config struct {
	Backend manager.Backend
	// Metrics answers Prometheus.
	Metrics http.Handler
	// Names are those of this host in DNS, by which it may be asked beside addresses and names without a dot.
	Names []string
	// Stir is told, if it is not nil, when a request has been answered.
	Stir func()
	Log  *slog.Logger
}

// failure is the JSON form of an error.
type failure struct {
	Error string `json:"error"`
	// Field is set where a task document is at fault.
	Field string `json:"field,omitempty"`
}

// Server is the API's handler.
type Server struct {
	backend manager.Backend
	log     *slog.Logger
	handler http.Handler
	stir    func()
	gpus    gpuLook
	samples samples
}

// route is one thing that the API does.
type route struct {
	pattern string
	// parameters are those of the query, separated by spaces.
	parameters string
	handle     func(http.ResponseWriter, *http.Request) error
}

func (s *Server) routes() []route {
	return []route{
		{"POST /v1/tasks", "pool", s.submit},
		{"POST /v1/tasks:batch", "pool", s.batch},
		{"GET /v1/tasks", "ended status state cause pool label text limit cursor brief", s.list},
		{"GET /v1/tasks/{id}", "", lookAt(s, manager.Backend.Show)},
		{"GET /v1/tasks/{id}/wait", "", lookAt(s, manager.Backend.Wait)},
		{"GET /v1/tasks/{id}/explain", "", lookAt(s, manager.Backend.Explain)},
		{"GET /v1/tasks/{id}/logs", "stream attempt follow tail offset", s.logs},
		{"POST /v1/tasks/{id}/cancel", "", s.cancel},
		{"POST /v1/tasks:cancel", "label", s.cancelLabel},
		{"GET /v1/counts", "", look(s, counts)},
		{"GET /v1/series", "span", s.series},
		{"GET /v1/demand", "", look(s, manager.Backend.Demand)},
		{"GET /v1/dead", "limit", s.dead},
		{"GET /v1/dead/{key}", "", s.deadLetter},
		{"POST /v1/dead/{key}/requeue", "", s.requeue},
		{"DELETE /v1/dead/{key}", "", s.drop},
		{"GET /v1/info", "", look(s, manager.Backend.Info)},
		{"GET /v1/hosts", "", look(s, manager.Backend.Hosts)},
		{"GET /v1/gpus", "", look(s, manager.Backend.GPUs)},
		{"GET /v1/events", "topics", s.events},
		{"POST /v1/drain", "timeout", s.drain},
		{"GET /v1/openapi.json", "", s.openapi},
	}
}

// New returns the API's handler.
func New(c Config) *Server {
	s := &Server{backend: c.Backend, log: c.Log}
	mux := http.NewServeMux()
	for _, r := range s.routes() {
		known := strings.Fields(r.parameters)
		mux.HandleFunc(r.pattern, func(w http.ResponseWriter, req *http.Request) {
			err := onlyKnown(req.URL, known)
			if err == nil {
				err = r.handle(w, req)
			}
			if err != nil {
				s.fail(w, req, err)
			}
		})
	}
	if c.Metrics != nil {
		mux.Handle("GET /metrics", c.Metrics)
	}
	mux.Handle("GET /{$}", dashboard.Handler())
	mux.Handle("GET /static/", dashboard.Handler())
	s.handler = guard(c.Names, jsonErrors(mux))
	if s.stir = c.Stir; s.stir == nil {
		s.stir = func() {}
	}
	return s
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	defer s.stir()
	s.handler.ServeHTTP(w, r)
}

// onlyKnown refuses a query with a parameter that means nothing, or that cannot be read.
func onlyKnown(u *url.URL, known []string) error {
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return &badRequest{"cannot read the query: " + err.Error()}
	}
	for name, values := range query {
		if len(values) > 1 {
			return &badRequest{fmt.Sprintf("cannot use the parameter %q twice", name)}
		}
		if !slices.Contains(known, name) {
			what := "it has none"
			if len(known) > 0 {
				what = "there are " + strings.Join(known, ", ")
			}
			return &badRequest{fmt.Sprintf("cannot use the parameter %q: %s", name, what)}
		}
	}
	return nil
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
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	var refusal *queue.Refusal
	var size *http.MaxBytesError
	f := failure{Error: err.Error()}
	status := http.StatusInternalServerError
	switch {
	case errors.As(err, &refusal):
		f.Field, status = refusal.Field, http.StatusBadRequest
	case errors.As(err, new(*badRequest)), errors.Is(err, manager.ErrCursor):
		status = http.StatusBadRequest
	case errors.As(err, &size):
		f, status = failure{Error: errTooLarge.Error(), Field: errTooLarge.Field}, http.StatusRequestEntityTooLarge
	case errors.As(err, new(*queue.AmbiguousError)):
		status = http.StatusConflict
	case errors.Is(err, manager.ErrUnknownTask), errors.Is(err, manager.ErrElsewhere), errors.As(err, new(*manager.NoOutput)),
		errors.Is(err, queue.ErrNoDeadLetter):
		status = http.StatusNotFound
	case errors.Is(err, manager.ErrLeaving):
		status = http.StatusServiceUnavailable
	case r.Context().Err() != nil: // most often nobody listens, but one may have closed his side only: nothing was done, and that must not look like 200
		f.Error, status = "cannot go on: the client has closed its side of the connection, or the manager ends", http.StatusServiceUnavailable
	default:
		s.log.Error("request failed", "method", r.Method, logkey.Path, r.URL.Path, logkey.Err, err)
	}
	answer(w, status, f)
}

// badRequest is an error of the caller.
type badRequest struct{ sentence string }

func (b *badRequest) Error() string { return b.sentence }
