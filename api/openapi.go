package api

import (
	_ "embed" // openapi.json
	"net/http"
)

// description is the API's description in OpenAPI 3.1, which a test compares with the routes and with real answers.
//
//go:embed openapi.json
var description []byte

func (s *Server) openapi(w http.ResponseWriter, _ *http.Request) error {
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(description)
	return nil
}
