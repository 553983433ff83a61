package api

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mayfly/mayfly/manager"
)

// followPause is how often a followed file is looked at. Nothing polls while nobody follows.
const followPause = 100 * time.Millisecond

// logRequest is what somebody wants of a task's output.
type logRequest struct {
	id      string
	attempt int
	// tail and offset say where it begins; -1 where they do not.
	tail, offset int
	follow       bool
}

// logs sends an attempt's output as it is, and with follow as it comes until the attempt has ended. As events it sends both streams.
func (s *Server) logs(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	l := logRequest{id: r.PathValue("id"), follow: yes(q.Get("follow"))}
	for name, number := range map[string]*int{"attempt": &l.attempt, "tail": &l.tail, "offset": &l.offset} {
		otherwise := -1
		if name == "attempt" {
			otherwise = 0
		}
		var err error
		if *number, err = natural(q, name, otherwise); err != nil {
			return err
		}
	}
	if l.tail >= 0 && l.offset >= 0 {
		return &badRequest{"cannot use tail together with offset: output begins at one place"}
	}
	stream := q.Get("stream")
	if stream != "" && stream != stdout && stream != stderr {
		return &badRequest{fmt.Sprintf("cannot use stream=%q: it is stdout or stderr", stream)}
	}
	out, err := s.find(r, l)
	if err != nil {
		return err
	}
	if strings.Contains(r.Header.Get("Accept"), "text/event-stream") {
		return s.logEvents(w, r, l, stream, out)
	}
	f := &outputFile{path: out.Stdout}
	if stream == stderr {
		f.path = out.Stderr
	}
	defer f.close()
	if err := f.open(l.tail, l.offset, out.Kept || out.Live && l.follow); err != nil {
		return l.cannot(err, out)
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	if !l.follow && l.tail < 0 && l.offset < 0 {
		var content io.ReadSeeker = strings.NewReader("")
		if f.f != nil {
			content = f.f
		}
		http.ServeContent(w, r, "", time.Time{}, content) // with ranges
		return nil
	}
	w.Header().Set("Mayfly-Offset", strconv.FormatInt(f.at, 10))
	return s.copy(w, r, l, f, out)
}

// cannot says why the output is not shown.
func (l logRequest) cannot(err error, out manager.Output) error {
	if errors.Is(err, errNotThere) && out.Live {
		err = &manager.NoOutput{Why: "its worker is only being started", Waits: true}
	}
	return fmt.Errorf("cannot show the output of %s: %w", l.id, err)
}

// find locates the output; who follows waits for an attempt that has not begun.
func (s *Server) find(r *http.Request, l logRequest) (manager.Output, error) {
	for {
		changed := s.backend.Changed()
		out, err := s.backend.Output(r.Context(), l.id, l.attempt)
		var none *manager.NoOutput
		switch {
		case !errors.As(err, &none):
			return out, err
		case !l.follow || !none.Waits:
			return out, l.cannot(err, out)
		}
		select {
		case <-changed: // most changes are other tasks'
		case <-r.Context().Done():
			return out, r.Context().Err()
		}
		if !wait(r, followPause) {
			return out, r.Context().Err()
		}
	}
}

// The streams of an attempt.
const (
	stdout = "stdout"
	stderr = "stderr"
)

// outputFile is a file with output, which may grow, or be made later.
type outputFile struct {
	path string
	f    *os.File
	at   int64
}

// errNotThere says that nothing is left of an attempt's output.
var errNotThere = &manager.NoOutput{Why: "it is not kept any more"}

// open opens the file unless it is open. Where it may be lacking, for nothing was written (yet), it need not be there.
func (o *outputFile) open(tail, offset int, lacking bool) error {
	if o.f != nil {
		return nil
	}
	f, err := os.OpenFile(o.path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	switch {
	case errors.Is(err, os.ErrNotExist) && lacking:
		return nil
	case errors.Is(err, os.ErrNotExist):
		return errNotThere
	case err != nil:
		return err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("it is no file")
	}
	if err == nil {
		switch size := info.Size(); {
		case tail >= 0:
			o.at = max(0, size-int64(tail))
		case offset >= 0:
			o.at = min(size, int64(offset))
		}
		_, err = f.Seek(o.at, io.SeekStart)
	}
	if err != nil {
		f.Close()
		return err
	}
	o.f = f
	return nil
}

func (o *outputFile) close() {
	if o.f != nil {
		o.f.Close()
	}
}

// copy sends a file as it is and comes.
func (s *Server) copy(w http.ResponseWriter, r *http.Request, l logRequest, f *outputFile, out manager.Output) error {
	flusher := http.NewResponseController(w)
	for {
		if err := f.open(l.tail, l.offset, out.Kept || out.Live && l.follow); err != nil {
			return l.cannot(err, out)
		}
		if f.f != nil {
			if _, err := io.Copy(w, f.f); err != nil {
				return nil // the client has left
			}
		}
		if err := flusher.Flush(); err != nil {
			return nil
		}
		if !l.follow || !out.Live || !wait(r, followPause) {
			return nil
		}
		// Asked before the file is read: what is written up to the end is then read after it.
		out = s.goesOn(r, l, out)
	}
}

// wait waits, and reports whether the client still does.
func wait(r *http.Request, pause time.Duration) bool {
	select {
	case <-time.After(pause):
		return true
	case <-r.Context().Done():
		return false
	}
}

// goesOn looks at how an attempt's output is now.
func (s *Server) goesOn(r *http.Request, l logRequest, out manager.Output) manager.Output {
	now, err := s.backend.Output(r.Context(), l.id, l.attempt)
	if err != nil || now.Stdout != out.Stdout {
		out.Live = false // forgotten, or the next attempt: this one has ended
		return out
	}
	return now
}
