package api

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mayfly/mayfly/manager"
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

func (s *server) submit(w http.ResponseWriter, r *http.Request) error {
	// One byte more than is allowed lets the decoder name the limit.
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, queue.MaxBody+1))
	if err != nil {
		return err
	}
	id, err := s.backend.Submit(r.Context(), body, r.URL.Query().Get("pool"))
	if err != nil {
		return err
	}
	answer(w, http.StatusCreated, Submitted{ID: id})
	return nil
}

// batchWidth is how many documents of a batch are published at once: enough to share confirms and flushes.
const batchWidth = 128

// batch publishes a document a line and answers a line each, in the same order, as they are confirmed.
func (s *server) batch(w http.ResponseWriter, r *http.Request) error {
	pool := r.URL.Query().Get("pool")
	// Answers go out while the documents still come in.
	if err := http.NewResponseController(w).EnableFullDuplex(); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	answers := make(chan chan Submitted, batchWidth)
	go func() {
		defer close(answers)
		lines := bufio.NewReaderSize(r.Body, 64<<10)
		for n := 1; r.Context().Err() == nil; n++ {
			line, err := lines.ReadBytes('\n')
			if document := bytes.TrimSpace(line); len(document) > 0 {
				reply := make(chan Submitted, 1)
				answers <- reply
				go func() { reply <- s.submitLine(r, document, pool, n) }()
			}
			if err != nil {
				if !errors.Is(err, io.EOF) {
					reply := make(chan Submitted, 1)
					reply <- Submitted{Line: n, Error: fmt.Sprintf("cannot read the batch: %v", err)}
					answers <- reply
				}
				return
			}
		}
	}()
	out := json.NewEncoder(w)
	flusher := http.NewResponseController(w)
	for reply := range answers {
		_ = out.Encode(<-reply) // a client that has left ends r's context, and with it the loop above
		if len(answers) == 0 {
			_ = flusher.Flush()
		}
	}
	return nil
}

func (s *server) submitLine(r *http.Request, document []byte, pool string, n int) Submitted {
	id, err := s.backend.Submit(r.Context(), document, pool)
	if err == nil {
		return Submitted{Line: n, ID: id}
	}
	a := Submitted{Line: n, Error: err.Error()}
	var refusal *queue.Refusal
	if errors.As(err, &refusal) {
		a.Field = refusal.Field
	}
	return a
}

func (s *server) list(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	ended, err := natural(q.Get("ended"), 0)
	if err != nil {
		return err
	}
	views, err := s.backend.List(r.Context(), ended)
	if err != nil {
		return err
	}
	key, value, labelled := strings.Cut(q.Get("label"), "=")
	views = slices.DeleteFunc(views, func(v manager.View) bool {
		have, ok := v.Labels[key]
		return q.Get("status") != "" && string(v.Status) != q.Get("status") ||
			q.Get("pool") != "" && v.Pool != q.Get("pool") ||
			key != "" && (!ok || labelled && have != value)
	})
	if views == nil {
		views = []manager.View{}
	}
	answer(w, http.StatusOK, views)
	return nil
}

func (s *server) show(w http.ResponseWriter, r *http.Request) error {
	v, err := s.backend.Show(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	answer(w, http.StatusOK, v)
	return nil
}

func (s *server) wait(w http.ResponseWriter, r *http.Request) error {
	v, err := s.backend.Wait(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	answer(w, http.StatusOK, v)
	return nil
}

func (s *server) cancel(w http.ResponseWriter, r *http.Request) error {
	said, err := s.backend.Cancel(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	answer(w, http.StatusOK, map[string]string{"said": said})
	return nil
}

func (s *server) drain(w http.ResponseWriter, _ *http.Request) error {
	s.backend.Drain()
	answer(w, http.StatusAccepted, map[string]string{"said": "draining"})
	return nil
}

func (s *server) info(w http.ResponseWriter, r *http.Request) error {
	info, err := s.backend.Info(r.Context())
	if err != nil {
		return err
	}
	answer(w, http.StatusOK, info)
	return nil
}

func (s *server) gpus(w http.ResponseWriter, r *http.Request) error {
	overview, err := s.backend.GPUs(r.Context())
	if err != nil {
		return err
	}
	answer(w, http.StatusOK, overview)
	return nil
}

// eventPause is the least time between two events: what changes in between shows in the next.
const eventPause = 100 * time.Millisecond

// events sends the active tasks at each change.
func (s *server) events(w http.ResponseWriter, r *http.Request) error {
	w.Header().Set("Content-Type", "text/event-stream")
	flusher := http.NewResponseController(w)
	for {
		changed := s.backend.Changed()
		views, err := s.backend.List(r.Context(), 0)
		if err != nil {
			return err
		}
		if views == nil {
			views = []manager.View{}
		}
		body, err := json.Marshal(views)
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(w, "event: tasks\ndata: %s\n\n", body); err != nil {
			return nil
		}
		if err := flusher.Flush(); err != nil {
			return nil
		}
		select {
		case <-changed:
		case <-r.Context().Done():
			return nil
		}
		select {
		case <-time.After(eventPause):
		case <-r.Context().Done():
			return nil
		}
	}
}

// natural reads a number of a query.
func natural(text string, otherwise int) (int, error) {
	if text == "" {
		return otherwise, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		return 0, &badRequest{fmt.Sprintf("cannot use %q: a number of 0 or more is wanted", text)}
	}
	return n, nil
}
