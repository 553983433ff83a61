package api

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/mayfly/mayfly/manager"
)

// look answers with what somebody asks of the manager.
func look[T any](s *Server, ask func(manager.Backend, context.Context) (T, error)) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		x, err := ask(s.backend, r.Context())
		if err != nil {
			return err
		}
		answer(w, http.StatusOK, x)
		return nil
	}
}

// lookAt answers with what somebody asks of the task in the path.
func lookAt[T any](s *Server, ask func(manager.Backend, context.Context, string) (T, error)) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		return look(s, func(b manager.Backend, ctx context.Context) (T, error) { return ask(b, ctx, r.PathValue("id")) })(w, r)
	}
}

func counts(b manager.Backend, ctx context.Context) (manager.Counts, error) {
	return b.Counts(ctx), nil
}

func (s *Server) drain(w http.ResponseWriter, r *http.Request) error {
	var timeout time.Duration
	if text := r.URL.Query().Get("timeout"); text != "" {
		var err error
		if timeout, err = time.ParseDuration(text); err != nil || timeout <= 0 {
			return &badRequest{fmt.Sprintf("cannot use timeout=%q: it is a positive time, as 30m or 12h", text)}
		}
	}
	s.backend.Drain(timeout)
	answer(w, http.StatusAccepted, map[string]string{"said": "draining"})
	return nil
}
