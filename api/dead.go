package api

import (
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
	list, err := s.backend.Cemetery().Dead(r.Context(), limit)
	if err != nil {
		return err
	}
	if list == nil {
		list = []queue.DeadLetter{}
	}
	answer(w, http.StatusOK, list)
	return nil
}

func (s *Server) deadLetter(w http.ResponseWriter, r *http.Request) error {
	found, err := s.backend.Cemetery().DeadLetter(r.Context(), r.PathValue("key"))
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
