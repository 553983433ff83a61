package api

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/mayfly/mayfly/queue"
)

const (
	// batchWidth is how many documents of a batch are published at once: enough to share confirms and flushes.
	batchWidth = 128
	// batchSmall is the size up to which documents are published side by side; larger ones go one at a time, so that a batch does not fill
	// the memory.
	batchSmall = 64 << 10
)

// batch publishes a document a line and answers a line each, in the same order, as they are confirmed.
func (s *Server) batch(w http.ResponseWriter, r *http.Request) error {
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
			patience(w, r)
			line, err := readLine(lines)
			if errors.Is(err, errTooLarge) { // the ones behind it are no worse for it
				answers <- said(Submitted{Line: n, Error: errTooLarge.Error(), Field: errTooLarge.Field})
				continue
			}
			if document := bytes.TrimSpace(line); len(document) > 0 && (err == nil || errors.Is(err, io.EOF)) {
				reply := make(chan Submitted, 1)
				answers <- reply
				submit := func() { reply <- s.submitLine(r, document, pool, n) }
				if len(document) > batchSmall {
					submit()
				} else {
					go submit()
				}
			}
			if err != nil {
				if errors.Is(err, io.EOF) {
					// From here on it is the queue that may take its time. The server still reads, to learn whether the client leaves.
					_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
				} else {
					answers <- said(Submitted{Line: n, Error: fmt.Sprintf("cannot read the batch: %v", err)})
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

// patience bounds how long a client by TCP may take for what is read next; the socket's clients may be people at a terminal.
func patience(w http.ResponseWriter, r *http.Request) {
	if remote(r) {
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyPause))
	}
}

// said is an answer that is there already.
func said(a Submitted) chan Submitted {
	reply := make(chan Submitted, 1)
	reply <- a
	return reply
}

// readLine reads a line. One that is longer than any document it reads to its end and forgets, for the next one begins there.
func readLine(r *bufio.Reader) (line []byte, err error) {
	long := false
	for {
		piece, err := r.ReadSlice('\n')
		if line = append(line, piece...); len(line) > queue.MaxBody+1 {
			long, line = true, line[:0]
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
		case long && (err == nil || errors.Is(err, io.EOF)):
			return nil, errTooLarge // an end of the file is met once more
		default:
			return line, err
		}
	}
}

func (s *Server) submitLine(r *http.Request, document []byte, pool string, n int) Submitted {
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
