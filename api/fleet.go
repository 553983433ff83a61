package api

import (
	"context"
	"net/http"
	"net/url"
	"strings"

	"github.com/mayfly/mayfly/manager"
)

func (s *Server) cancelLabel(w http.ResponseWriter, r *http.Request) error {
	label, value, ok := strings.Cut(r.URL.Query().Get("label"), "=")
	if !ok || label == "" {
		return &badRequest{"label must be given as key=value"}
	}
	said, err := s.backend.CancelLabel(r.Context(), label, value)
	if err != nil {
		return err
	}
	answer(w, http.StatusOK, map[string]string{"said": said})
	return nil
}

// CancelLabel cancels all tasks with a label, given as key=value, and says in one sentence what was done.
func (c *Client) CancelLabel(ctx context.Context, label string) (string, error) {
	var a struct{ Said string }
	err := c.ask(ctx, http.MethodPost, "/v1/tasks:cancel", url.Values{"label": {label}}, nil, &a)
	return a.Said, err
}

// Hosts lists the hosts that answer.
func (c *Client) Hosts(ctx context.Context) (list []manager.Info, err error) {
	err = c.ask(ctx, http.MethodGet, "/v1/hosts", nil, nil, &list)
	return list, err
}
