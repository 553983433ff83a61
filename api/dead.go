package api

import (
	"context"
	"net/http"

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
		return nil, &queue.AmbiguousError{TaskID: key, Keys: keys}
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

func (s *Server) requeue(w http.ResponseWriter, r *http.Request) error {
	if err := s.backend.Cemetery().Requeue(r.Context(), r.PathValue("key")); err != nil {
		return err
	}
	answer(w, http.StatusOK, map[string]string{"said": "put back into its pool"})
	return nil
}

func (s *Server) drop(w http.ResponseWriter, r *http.Request) error {
	if err := s.backend.Cemetery().Drop(r.Context(), r.PathValue("key")); err != nil {
		return err
	}
	answer(w, http.StatusOK, map[string]string{"said": "dropped for good"})
	return nil
}
