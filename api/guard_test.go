package api

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestGuard has other sites' pages ask.
func TestGuard(t *testing.T) {
	t.Parallel()
	reached := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	h := guard([]string{"gpu1.example.com"}, reached)
	for name, tt := range map[string]struct {
		method, host, path string
		header             map[string]string
		want               int
	}{
		"a client":                     {"POST", "mayfly", "/v1/drain", nil, 204},
		"curl":                         {"POST", "localhost", "/v1/drain", nil, 204},
		"by its address":               {"GET", "192.0.2.7:7070", "/v1/info", nil, 204},
		"by IPv6":                      {"GET", "[2001:db8::1]:7070", "/v1/info", nil, 204},
		"by a name that was given":     {"GET", "GPU1.example.com:7070", "/v1/info", nil, 204},
		"with a final dot":             {"GET", "gpu1.example.com.:7070", "/v1/info", nil, 204},
		"below localhost":              {"GET", "mayfly.localhost:7070", "/v1/info", nil, 204},
		"a name that leads here":       {"GET", "evil.example:7070", "/v1/info", nil, 421},
		"the same for the page":        {"GET", "evil.example:7070", "/", nil, 421},
		"the page itself":              {"POST", "localhost:7070", "/v1/tasks", map[string]string{"Origin": "http://localhost:7070", "Sec-Fetch-Site": "same-origin"}, 204},
		"another site's page":          {"POST", "localhost:7070", "/v1/tasks", map[string]string{"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}, 403},
		"without Sec-Fetch-Site":       {"POST", "localhost:7070", "/v1/tasks", map[string]string{"Origin": "https://evil.example"}, 403},
		"a page without an origin":     {"POST", "localhost:7070", "/v1/tasks", map[string]string{"Origin": "null"}, 403},
		"a worker's page on this host": {"POST", "localhost:7070", "/v1/tasks", map[string]string{"Origin": "http://localhost:8000", "Sec-Fetch-Site": "same-site"}, 403},
		"a form":                       {"POST", "localhost:7070", "/v1/drain", map[string]string{"Sec-Fetch-Site": "cross-site", "Content-Type": "text/plain"}, 403},
		"deletion":                     {"DELETE", "localhost:7070", "/v1/dead/x", map[string]string{"Sec-Fetch-Site": "cross-site"}, 403},
		"reading from another site":    {"GET", "localhost:7070", "/v1/tasks", map[string]string{"Sec-Fetch-Site": "cross-site"}, 403},
		"reading from a worker's page": {"GET", "localhost:7070", "/v1/tasks/x/logs", map[string]string{"Sec-Fetch-Site": "same-site"}, 403},
		"metrics from another site":    {"GET", "localhost:7070", "/metrics", map[string]string{"Sec-Fetch-Site": "cross-site"}, 403},
		"a link to the page":           {"GET", "localhost:7070", "/", map[string]string{"Sec-Fetch-Site": "cross-site"}, 204},
		"typed into the browser":       {"GET", "localhost:7070", "/v1/info", map[string]string{"Sec-Fetch-Site": "none"}, 204},
	} {
		r := httptest.NewRequestWithContext(t.Context(), tt.method, "http://x"+tt.path, nil)
		r.Host = tt.host
		for k, v := range tt.header {
			r.Header.Set(k, v)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != tt.want {
			t.Errorf("%s: %d %s, want %d", name, w.Code, w.Body, tt.want)
		}
		if p := w.Header().Get("Content-Security-Policy"); !strings.Contains(p, "script-src 'self';") || strings.Contains(p, "unsafe") || w.Header().Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: headers %v", name, w.Header())
		}
	}
	// What begins like the page's files is cleaned by the mux before anybody looks at it.
	r := httptest.NewRequestWithContext(t.Context(), "GET", "http://localhost/static/../v1/info", nil)
	w := httptest.NewRecorder()
	New(Config{}).ServeHTTP(w, r)
	if w.Code/100 != 3 {
		t.Errorf("a path with dots: %d", w.Code)
	}
}
