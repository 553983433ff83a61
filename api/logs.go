package api

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mayfly/mayfly/manager"
)

// followPause is how often a followed file is looked at. Nothing polls while nobody follows.
const followPause = 100 * time.Millisecond

// logs sends an attempt's output as it is, and with follow as it comes until the attempt has ended.
func (s *server) logs(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	attempt, err := natural(q.Get("attempt"), 0)
	if err != nil {
		return err
	}
	tail, err := natural(q.Get("tail"), -1)
	if err != nil {
		return err
	}
	stream := q.Get("stream")
	if stream == "" {
		stream = "stdout"
	}
	if stream != "stdout" && stream != "stderr" {
		return &badRequest{fmt.Sprintf("cannot use stream=%q: it is stdout or stderr", stream)}
	}
	follow := q.Get("follow") != "" && q.Get("follow") != "0"
	id := r.PathValue("id")
	out, err := s.backend.Output(r.Context(), id, attempt)
	if err != nil {
		return err
	}
	path := out.Stdout
	if stream == "stderr" {
		path = out.Stderr
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	return s.copy(w, r, id, attempt, path, tail, follow, out)
}

func (s *server) copy(w http.ResponseWriter, r *http.Request, id string, attempt int, path string, tail int, follow bool, out manager.Output) error {
	var f *os.File
	defer func() {
		if f != nil {
			f.Close()
		}
	}()
	flusher := http.NewResponseController(w)
	for {
		// Asked before the file is read: what is written up to the end is then read after it.
		live := out.Live
		if f == nil {
			var err error
			f, err = os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
			switch {
			case errors.Is(err, os.ErrNotExist) && live: // its worker is about to be born
			case errors.Is(err, os.ErrNotExist):
				return fmt.Errorf("cannot show the output of %s: it is not kept any more, or the task never began: %w", id, manager.ErrUnknownTask)
			case err != nil:
				return fmt.Errorf("cannot read the output of %s: %w", id, err)
			case tail >= 0:
				if info, err := f.Stat(); err == nil && info.Size() > int64(tail) {
					if _, err := f.Seek(-int64(tail), io.SeekEnd); err != nil {
						return fmt.Errorf("cannot read the output of %s: %w", id, err)
					}
				}
			}
		}
		if f != nil {
			if _, err := io.Copy(w, f); err != nil {
				return nil // the client has left
			}
			if err := flusher.Flush(); err != nil {
				return nil
			}
		}
		if !follow || !live {
			return nil
		}
		select {
		case <-time.After(followPause):
		case <-r.Context().Done():
			return nil
		}
		now, err := s.backend.Output(r.Context(), id, attempt)
		if err != nil || now.Stdout != out.Stdout {
			now = out
			now.Live = false // forgotten, or the next attempt: this one has ended
		}
		out = now
	}
}
