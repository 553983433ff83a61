// Package dashboard is a page that shows the host through its API: files that are built into the binary, and nothing that comes from
// elsewhere.
//
// # Theory of operation
//
// The page is plain modules and one style sheet, as browsers read them; there is nothing to build. It holds nothing of the host, so whoever
// reaches the port may have it: what it shows it asks the API for, with the token that its user gives it. The token stays in the page's
// memory and the tab's session storage, and travels in a header. A cookie would be sent to every port of this host's name, and behind one of them a
// worker may listen.
//
// Nothing is ever made of text but text: the page's policy (see api) has the browser refuse the rest.
package dashboard

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"net/http"
	"path"
	"strings"
	"time"
)

//go:embed static
var files embed.FS

// types are said here: what the system says of them differs.
var types = map[string]string{".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}

// Handler answers for "/" and "/static/...". Browsers keep the files and ask whether they are still the same.
func Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := strings.TrimPrefix(r.URL.Path, "/")
		if name == "" {
			name = "static/index.html"
		}
		text, err := files.ReadFile(name)
		if err != nil {
			http.NotFound(w, r)
			return
		}
		sum := sha256.Sum256(text)
		h := w.Header()
		h.Set("Content-Type", types[path.Ext(name)])
		h.Set("ETag", `"`+hex.EncodeToString(sum[:12])+`"`)
		h.Set("Cache-Control", "no-cache")
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(text))
	})
}
