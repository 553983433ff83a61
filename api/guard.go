package api

import (
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// contentPolicy lets the dashboard load what this server has and nothing else, and no text become a script.
const contentPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; manifest-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// guard keeps other sites' pages out. Whoever reaches the socket through a tunnel (ssh -L) has a browser that any page may have send
// requests there, so these are refused:
//
//   - what comes from another origin: a page of a worker on this very host is one, too, for its port differs;
//   - what was sent to a foreign name: a page may have its own name lead to our address once it is loaded (DNS rebinding).
func guard(names []string, next http.Handler) http.Handler {
	crossing := http.NewCrossOriginProtection()
	crossing.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { refuseCrossing(w) }))
	protected := crossing.Handler(next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		harden(w.Header())
		if !ourName(r.Host, names) {
			answer(w, http.StatusMisdirectedRequest, failure{Error: "cannot answer to the name " + hostOf(r.Host) +
				": use an address or localhost, or add the name to MAYFLY_LISTEN_NAMES"})
			return
		}
		// Reading is refused, too, but for the page itself, which people may follow a link to.
		if site := r.Header.Get("Sec-Fetch-Site"); site != "" && site != "same-origin" && site != "none" && !public(r.URL.Path) {
			refuseCrossing(w)
			return
		}
		protected.ServeHTTP(w, r)
	})
}

// harden tells browsers to take nothing for what it is not said to be, and to keep other sites away.
func harden(h http.Header) {
	h.Set("Content-Security-Policy", contentPolicy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
}

func refuseCrossing(w http.ResponseWriter) {
	answer(w, http.StatusForbidden, failure{Error: "cannot answer to a page of another site"})
}

// public reports whether a path leads to what everybody may see: the dashboard's files, which hold nothing of this host.
func public(path string) bool { return path == "/" || strings.HasPrefix(path, "/static/") }

func hostOf(hostPort string) string {
	if host, _, err := net.SplitHostPort(hostPort); err == nil {
		hostPort = host
	}
	return strings.Trim(hostPort, "[]")
}

// ourName reports whether a request's host may be ours. An address cannot be led elsewhere, and nobody owns a name without a dot in
// the world's DNS.
func ourName(hostPort string, names []string) bool {
	host := strings.ToLower(strings.TrimSuffix(hostOf(hostPort), "."))
	if _, err := netip.ParseAddr(host); err == nil {
		return true
	}
	return !strings.Contains(host, ".") || strings.HasSuffix(host, ".localhost") ||
		slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(n, host) })
}
