package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/mayfly/mayfly/queue"
)

// deadLimit is how many dead letters are listed unless the caller says otherwise.
const deadLimit = 1000

func (s *Server) dead(w http.ResponseWriter, r *http.Request) error {
	limit, err := natural(r.URL.Query(), "limit", deadLimit)
	if err != nil {
		return err
	}
	list := []queue.DeadLetter{}
	err = s.backend.Cemetery().Dead(r.Context(), func(d queue.DeadLetter) bool {
		if len(list) >= limit {
			return false
		}
		d.Body = nil // bodies may be large: one is shown at a time
		list = append(list, d)
		return true
	})
	if err != nil {
		return err
	}
	answer(w, http.StatusOK, list)
	return nil
}

// ambiguous refuses a task id that several dead letters have.
type ambiguous struct {
	id   string
	keys []string
}

func (a *ambiguous) Error() string {
	return fmt.Sprintf("cannot tell which dead letter is meant: %d are of the task %s; name one by its key: %s", len(a.keys), a.id, strings.Join(a.keys, ", "))
}

// buried finds a dead letter by its key, or by a task's id that is no other's.
func (s *Server) buried(ctx context.Context, key string) (*queue.DeadLetter, error) {
	var found *queue.DeadLetter
	var keys []string
	err := s.backend.Cemetery().Dead(ctx, func(d queue.DeadLetter) bool {
		if d.Key == key {
			found, keys = &d, nil
			return false
		}
		if d.TaskID == key {
			found, keys = &d, append(keys, d.Key)
		}
		return true
	})
	switch {
	case err != nil:
		return nil, err
	case found == nil:
		return nil, queue.ErrNoDeadLetter
	case len(keys) > 1:
		return nil, &ambiguous{key, keys}
	}
	return found, nil
}

func (s *Server) deadLetter(w http.ResponseWriter, r *http.Request) error {
	found, err := s.buried(r.Context(), r.PathValue("key"))
	if err != nil {
		return err
	}
	found.Body = queue.Mask(found.Body)
	answer(w, http.StatusOK, found)
	return nil
}

// bury does one thing to a dead letter. It is looked for only where that fails: a look reads all there are.
func (s *Server) bury(w http.ResponseWriter, r *http.Request, act func(queue.Cemetery, context.Context, string) error, done string) error {
	key := r.PathValue("key")
	if err := act(s.backend.Cemetery(), r.Context(), key); err != nil {
		if _, why := s.buried(r.Context(), key); errors.As(why, new(*ambiguous)) {
			return why
		}
		return err
	}
	answer(w, http.StatusOK, map[string]string{"said": done})
	return nil
}

func (s *Server) requeue(w http.ResponseWriter, r *http.Request) error {
	return s.bury(w, r, queue.Cemetery.Requeue, "put back into its pool")
}

func (s *Server) drop(w http.ResponseWriter, r *http.Request) error {
	return s.bury(w, r, queue.Cemetery.Drop, "dropped for good")
}
