package api

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"time"

	"github.com/mayfly/mayfly/queue"
)

// Submitted is the answer to a task document.
type Submitted struct {
	// Line is the number of the document in a batch, from 1.
	Line int    `json:"line,omitempty"`
	ID   string `json:"id,omitempty"`
	// Error says why the document was not taken; then ID is empty.
	Error string `json:"error,omitempty"`
	Field string `json:"field,omitempty"`
}

// errTooLarge refuses a document that is larger than any may be, and was not read to its end.
var errTooLarge = &queue.Refusal{Field: "body", Remedy: fmt.Sprintf(
	"has more than %d bytes (%s), the most that are accepted, so send a reference to large data", queue.MaxBody, queue.FormatSize(queue.MaxBody))}

func (s *Server) submit(w http.ResponseWriter, r *http.Request) error {
	patience(w, r)
	// One byte more than is allowed lets the decoder name the limit.
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, queue.MaxBody+1))
	var size *http.MaxBytesError
	switch {
	case errors.As(err, &size):
		return err
	case errors.Is(err, os.ErrDeadlineExceeded):
		return &badRequest{fmt.Sprintf("cannot read the body: it did not come within %s", bodyPause)}
	case err != nil: // it broke off, or its chunks are none
		return &badRequest{fmt.Sprintf("cannot read the body: %v", err)}
	}
	// From here on it is the queue that may take its time.
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
	id, err := s.backend.Submit(r.Context(), body, r.URL.Query().Get("pool"))
	if err != nil {
		return err
	}
	answer(w, http.StatusCreated, Submitted{ID: id})
	return nil
}

func (s *Server) cancel(w http.ResponseWriter, r *http.Request) error {
	said, err := s.backend.Cancel(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	answer(w, http.StatusOK, map[string]string{"said": said})
	return nil
}

// natural reads a number of a query.
func natural(q url.Values, name string, otherwise int) (int, error) {
	text := q.Get(name)
	if text == "" {
		return otherwise, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		return 0, &badRequest{fmt.Sprintf("cannot use %s=%q: it is a number of 0 or more", name, text)}
	}
	return n, nil
}
