package api

import (
	"bufio"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/netutil"
	"golang.org/x/time/rate"

	"github.com/mayfly/mayfly/internal/secret"
)

// Remote says how the API is to be had by TCP. All that is set is asked of each request: the token, a certificate, or both.
type Remote struct {
	// Listen is an address and a port.
	Listen string
	// TokenFile has the tokens that are valid, one a line.
	TokenFile string
	// Cert and Key are this server's, ClientCA the authorities that may vouch for clients: files in PEM.
	Cert, Key, ClientCA string
}

// What one client's address and all clients together may have, by TCP only. An address has the requests twice: for the connections by which somebody was let in
// before, and for all others.
const (
	connectionsMax = 512
	// requestRate a second, requestBurst at once: a page that is opened asks for a dozen things. A wrong token counts as many.
	requestRate  = 100
	requestBurst = 300
	wrongToken   = 30
	// writePause is how long a client may leave unread what it asked for; bodyPause how long it may take over a body, or a line of it.
	writePause = time.Minute
	bodyPause  = time.Minute
	// tokenMin keeps out what can be guessed.
	tokenMin = 16
)

// Check refuses what would let anybody in.
func (c *Remote) Check() error {
	switch {
	case c.Listen == "" && (c.TokenFile != "" || c.Cert != "" || c.Key != "" || c.ClientCA != ""):
		return errors.New("MAYFLY_TOKEN_FILE and MAYFLY_TLS_... are for MAYFLY_LISTEN, which is not set: set it, as 127.0.0.1:7070, or unset them")
	case c.Listen == "":
		return nil
	case (c.Cert == "") != (c.Key == ""):
		return errors.New("MAYFLY_TLS_CERT and MAYFLY_TLS_KEY go together")
	case c.ClientCA != "" && c.Cert == "":
		return errors.New("MAYFLY_TLS_CLIENT_CA is of use with MAYFLY_TLS_CERT and MAYFLY_TLS_KEY only")
	case c.TokenFile == "" && c.ClientCA == "":
		return fmt.Errorf("cannot listen on MAYFLY_LISTEN=%s: whoever reaches it could run programs here; make a token (openssl rand -hex 32) and name "+
			"its file in MAYFLY_TOKEN_FILE, or ask for certificates with MAYFLY_TLS_CLIENT_CA", c.Listen)
	}
	if _, port, err := net.SplitHostPort(c.Listen); err != nil || port == "" {
		return fmt.Errorf("cannot use MAYFLY_LISTEN=%s: it is an address and a port, as 127.0.0.1:7070 or :7070", c.Listen)
	}
	return nil
}

// Door is an open TCP port.
type Door struct {
	listener net.Listener
	tls      *tls.Config
	tokens   [][sha256.Size]byte
	// Names are those in the server's certificate, and that of the address.
	Names []string

	mu       sync.Mutex
	limiters map[caller]*rate.Limiter
}

// caller is who shares a limiter: an address, and in it those who have come by a connection by which somebody was let in before. They would be locked out
// otherwise by whoever else has their address, and needs no token to use up what it may have: on one host, all programs have one address.
type caller struct {
	address netip.Addr
	welcome bool
}

// Open reads what is needed and opens the port; nil where none is wanted.
func (c *Remote) Open(log *slog.Logger) (*Door, error) {
	if err := c.Check(); err != nil || c.Listen == "" {
		return nil, err
	}
	d, err := c.read()
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return nil, fmt.Errorf("cannot listen on MAYFLY_LISTEN=%s: %w", c.Listen, err)
	}
	d.listener = &shareListener{Listener: patientListener{netutil.LimitListener(l, connectionsMax)}, open: map[netip.Addr][]*shareConn{}}
	if host, _, _ := net.SplitHostPort(c.Listen); host != "" {
		d.Names = append(d.Names, host)
	}
	if at, ok := l.Addr().(*net.TCPAddr); ok && d.tls == nil && !at.IP.IsLoopback() {
		log.Warn("tokens travel unencrypted: set MAYFLY_TLS_CERT and MAYFLY_TLS_KEY, or listen on 127.0.0.1 and use a tunnel", "listen", at.String())
	}
	return d, nil
}

// Readable reports what is wrong with the files that Open reads.
func (c *Remote) Readable() error {
	_, err := c.read()
	return err
}

// read reads what is asked of clients and shown to them.
func (c *Remote) read() (*Door, error) {
	d := &Door{limiters: map[caller]*rate.Limiter{}}
	var err error
	if c.TokenFile != "" {
		if d.tokens, err = readTokens(c.TokenFile); err != nil {
			return nil, err
		}
	}
	if c.Cert != "" {
		if err := d.readTLS(c); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// Addr is where the door is.
func (d *Door) Addr() net.Addr { return d.listener.Addr() }

// readTokens reads the tokens, unless somebody else may have read or written them.
func readTokens(path string) ([][sha256.Size]byte, error) {
	f, err := secret.Open("MAYFLY_TOKEN_FILE", path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var tokens [][sha256.Size]byte
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		token := strings.TrimSpace(lines.Text())
		if token == "" || strings.HasPrefix(token, "#") {
			continue
		}
		if len(token) < tokenMin || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
			return nil, fmt.Errorf("cannot use MAYFLY_TOKEN_FILE=%s: a token is a line of at least %d letters, digits and signs: openssl rand -hex 32 >%s", path, tokenMin, path)
		}
		tokens = append(tokens, sha256.Sum256([]byte(token)))
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("cannot read MAYFLY_TOKEN_FILE: %w", err)
	}
	if len(tokens) == 0 {
		return nil, fmt.Errorf("cannot use MAYFLY_TOKEN_FILE=%s: it holds no token: openssl rand -hex 32 >%s", path, path)
	}
	return tokens, nil
}

func (d *Door) readTLS(c *Remote) error {
	cert, err := secret.KeyPair(c.Cert, "MAYFLY_TLS_KEY", c.Key)
	if err != nil {
		return fmt.Errorf("cannot use MAYFLY_TLS_CERT=%s with MAYFLY_TLS_KEY=%s: %w", c.Cert, c.Key, err)
	}
	d.tls = &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{cert}}
	if cert.Leaf != nil {
		d.Names = append(d.Names, cert.Leaf.DNSNames...)
	}
	if c.ClientCA == "" {
		return nil
	}
	text, err := os.ReadFile(c.ClientCA)
	if err != nil {
		return fmt.Errorf("cannot read MAYFLY_TLS_CLIENT_CA: %w", err)
	}
	d.tls.ClientCAs = x509.NewCertPool()
	if !d.tls.ClientCAs.AppendCertsFromPEM(text) {
		return fmt.Errorf("cannot use MAYFLY_TLS_CLIENT_CA=%s: it holds no certificate (PEM)", c.ClientCA)
	}
	d.tls.ClientAuth = tls.RequireAndVerifyClientCert
	return nil
}

// Serve answers at the door until ctx ends, and closes it.
func (d *Door) Serve(ctx context.Context, h http.Handler) error {
	l := d.listener
	if d.tls != nil {
		config := d.tls.Clone()
		config.NextProtos = []string{"http/1.1"} // each stream of events has a connection, which the limits count
		l = tls.NewListener(l, config)
	}
	return Serve(ctx, l, d.watch(h))
}

// remoteKey marks the context of a request by TCP.
type remoteKey struct{}

func remote(r *http.Request) bool { return r.Context().Value(remoteKey{}) != nil }

// watch lets in whom the door is for.
func (d *Door) watch(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		harden(w.Header())
		who := caller{addressOf(r.RemoteAddr), welcomed(r)}
		if !d.limiter(who).Allow() {
			// The answer is the same with any token, or who asks often could guess on.
			if !who.welcome { // who is, would have to come back as a stranger
				w.Header().Set("Connection", "close")
			}
			w.Header().Set("Retry-After", "1")
			answer(w, http.StatusTooManyRequests, failure{Error: fmt.Sprintf("cannot answer so often: %d requests a second are answered to one address", requestRate)})
			return
		}
		known := d.tokens == nil || d.knows(r)
		if known {
			welcome(r)
		} else {
			w.Header().Set("Connection", "close") // it would be kept for minutes, by who may not even ask
		}
		if !known && !public(r.URL.Path) {
			d.limiter(caller{address: who.address}).ReserveN(time.Now(), wrongToken) // only its delay is wanted
			w.Header().Set("WWW-Authenticate", `Bearer realm="mayfly"`)
			answer(w, http.StatusUnauthorized, failure{Error: "cannot answer without a token of MAYFLY_TOKEN_FILE: send it as \"Authorization: Bearer TOKEN\""})
			return
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), remoteKey{}, true)))
	})
}

// knows compares a request's token with all that are valid, in a time that tells nothing.
func (d *Door) knows(r *http.Request) bool {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	given, found := sha256.Sum256([]byte(strings.TrimSpace(token))), 0
	for i := range d.tokens {
		found |= subtle.ConstantTimeCompare(given[:], d.tokens[i][:])
	}
	return strings.EqualFold(scheme, "Bearer") && found == 1
}

// limitersMax bounds how many callers are remembered.
const limitersMax = 4096

// limiter returns that of a caller; those that are full are the same as new ones.
func (d *Door) limiter(key caller) *rate.Limiter {
	d.mu.Lock()
	defer d.mu.Unlock()
	l := d.limiters[key]
	if l == nil {
		if len(d.limiters) >= limitersMax {
			for k, old := range d.limiters {
				if old.Tokens() >= requestBurst {
					delete(d.limiters, k)
				}
			}
			if len(d.limiters) >= limitersMax {
				clear(d.limiters)
			}
		}
		l = rate.NewLimiter(requestRate, requestBurst)
		d.limiters[key] = l
	}
	return l
}

// patientListener has its connections give up on clients that do not read.
type patientListener struct{ net.Listener }

func (l patientListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return patientConn{conn}, nil
}

type patientConn struct{ net.Conn }

func (c patientConn) Write(b []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(writePause)); err != nil {
		return 0, err
	}
	return c.Conn.Write(b)
}
