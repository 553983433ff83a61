package api

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/time/rate"
)

const testToken = "0123456789abcdef0123456789abcdef"

func tokenFile(t *testing.T, text string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil { // whatever the umask
		t.Fatal(err)
	}
	return path
}

// withMode copies a file to one of this mode.
func withMode(t *testing.T, path string, mode os.FileMode) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return tokenFile(t, string(text), mode)
}

// TestDoorRefused holds that no port is opened to everybody, and that what is missing is said.
func TestDoorRefused(t *testing.T) {
	t.Parallel()
	good := tokenFile(t, "# ours\n"+testToken+"\n", 0o600)
	pki := newPKI(t)
	link := filepath.Join(t.TempDir(), "directory")
	if err := os.Mkdir(link, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		remote Remote
		want   string
	}{
		"nothing asked for":     {Remote{Listen: "127.0.0.1:0"}, "whoever reaches it could run programs here; make a token (openssl rand -hex 32) and name its file in MAYFLY_TOKEN_FILE"},
		"encrypted, no more":    {Remote{Listen: "127.0.0.1:0", Cert: pki.cert, Key: pki.key}, "could run programs here"},
		"no port":               {Remote{Listen: "127.0.0.1", TokenFile: good}, "it is an address and a port, as 127.0.0.1:7070"},
		"a token for nothing":   {Remote{TokenFile: good}, "MAYFLY_LISTEN, which is not set"},
		"half a certificate":    {Remote{Listen: "127.0.0.1:0", TokenFile: good, Cert: pki.cert}, "go together"},
		"authorities, no TLS":   {Remote{Listen: "127.0.0.1:0", ClientCA: pki.ca}, "with MAYFLY_TLS_CERT and MAYFLY_TLS_KEY only"},
		"no such file":          {Remote{Listen: "127.0.0.1:0", TokenFile: "/no/such"}, "no such file"},
		"others may read":       {Remote{Listen: "127.0.0.1:0", TokenFile: tokenFile(t, testToken, 0o644)}, "chmod 600"},
		"the group may write":   {Remote{Listen: "127.0.0.1:0", TokenFile: tokenFile(t, testToken, 0o620)}, "chmod 600"},
		"a directory":           {Remote{Listen: "127.0.0.1:0", TokenFile: link}, "it is no file"},
		"empty":                 {Remote{Listen: "127.0.0.1:0", TokenFile: tokenFile(t, "# none\n\n", 0o600)}, "it holds no token: openssl rand -hex 32"},
		"short":                 {Remote{Listen: "127.0.0.1:0", TokenFile: tokenFile(t, "secret", 0o600)}, "at least 16"},
		"two words":             {Remote{Listen: "127.0.0.1:0", TokenFile: tokenFile(t, testToken+" "+testToken, 0o600)}, "a token is a line"},
		"no certificate":        {Remote{Listen: "127.0.0.1:0", TokenFile: good, Cert: good, Key: good}, "MAYFLY_TLS_CERT"},
		"a key for all":         {Remote{Listen: "127.0.0.1:0", TokenFile: good, Cert: pki.cert, Key: withMode(t, pki.key, 0o644)}, "others may read or change it (-rw-r--r--)"},
		"no authority":          {Remote{Listen: "127.0.0.1:0", Cert: pki.cert, Key: pki.key, ClientCA: good}, "it holds no certificate"},
		"an address of nowhere": {Remote{Listen: "192.0.2.1:0", TokenFile: good}, "cannot listen on MAYFLY_LISTEN=192.0.2.1:0"},
	} {
		d, err := tt.remote.Open(slog.New(slog.DiscardHandler))
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", name, err)
		}
		if d != nil {
			t.Errorf("%s: it is open", name)
		}
	}
	if d, err := (&Remote{}).Open(nil); d != nil || err != nil {
		t.Errorf("no port wanted: %v, %v", d, err)
	}
}

// open opens a door and answers "here" behind it.
func open(t *testing.T, r Remote) *Door {
	t.Helper()
	r.Listen = "127.0.0.1:0"
	d, err := r.Open(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, end := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() {
		ended <- d.Serve(ctx, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, "here, by TCP: %t", remote(r))
		}))
	}()
	t.Cleanup(func() {
		end()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return d
}

func get(t *testing.T, client *http.Client, url, authorization string) (status int, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body)
	if resp.StatusCode == http.StatusUnauthorized && resp.Header.Get("WWW-Authenticate") == "" || resp.Header.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("headers of %d: %v", resp.StatusCode, resp.Header)
	}
	return resp.StatusCode, string(text)
}

func TestToken(t *testing.T) {
	t.Parallel()
	const second = "ffffffffffffffffffffffffffffffff"
	d := open(t, Remote{TokenFile: tokenFile(t, testToken+"\n# the next one\n  "+second+"  \n", 0o640)})
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	base := "http://" + d.Addr().String()
	for authorization, want := range map[string]int{
		"Bearer " + testToken: 200, "bearer " + second: 200, "": 401, "Bearer": 401, "Bearer ": 401, testToken: 401, "Basic " + testToken: 401,
		"Bearer " + testToken[1:]: 401, "Bearer " + testToken + "0": 401, "Bearer # the next one": 401,
	} {
		if status, body := get(t, client, base+"/v1/info", authorization); status != want || want == 200 && body != "here, by TCP: true" {
			t.Errorf("%q: %d %s", authorization, status, body)
		}
	}
	d = open(t, Remote{TokenFile: tokenFile(t, testToken, 0o600)}) // one that has not heard of wrong tokens
	base = "http://" + d.Addr().String()
	for _, path := range []string{"/", "/static/app.js"} { // they hold nothing of the host
		if status, _ := get(t, client, base+path, ""); status != 200 {
			t.Errorf("%s without a token: %d", path, status)
		}
	}
	for _, path := range []string{"/metrics", "/v1/openapi.json", "/v1/tasks", "/static", "//v1/info"} {
		if status, _ := get(t, client, base+path, ""); status != 401 {
			t.Errorf("%s without a token: %d", path, status)
		}
	}
	// Who guesses is answered less and less.
	last := 0
	for range requestBurst {
		if last, _ = get(t, client, base+"/v1/info", "Bearer wrong-wrong-wrong-wrong"); last == http.StatusTooManyRequests {
			break
		}
	}
	if last != http.StatusTooManyRequests {
		t.Errorf("after many wrong tokens: %d", last)
	}
	// And no answer of those tells which token is right.
	var told []string
	for _, token := range []string{"wrong-wrong-wrong-wrong", testToken} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base+"/v1/info", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		resp.Header.Del("Date")
		told = append(told, fmt.Sprint(resp.StatusCode, resp.Close, resp.Header))
	}
	if told[0] != told[1] {
		t.Errorf("answers to a wrong token and to a right one differ:\n%s", strings.Join(told, "\n"))
	}
}

func TestLimiters(t *testing.T) {
	t.Parallel()
	d := open(t, Remote{TokenFile: tokenFile(t, testToken, 0o600)})
	at := func(remote string) *rate.Limiter { return d.limiter(caller{address: addressOf(remote)}) }
	one := at("192.0.2.1:1000")
	if one != at("192.0.2.1:2000") || one == at("192.0.2.2:1000") || at("[2001:db8::1]:1") != at("[2001:db8::2]:1") {
		t.Error("a limiter is not an address's")
	}
	for i := range 3 * limitersMax {
		at(fmt.Sprintf("10.%d.%d.%d:1", i>>16, i>>8&255, i&255)).Allow()
	}
	if n := len(d.limiters); n > limitersMax {
		t.Errorf("%d addresses are remembered", n)
	}
}

// pki is an authority, a server's certificate for the name gpu1.example.com, and a client's.
type pki struct {
	ca, cert, key string
	client        tls.Certificate
	roots         *x509.CertPool
}

func newPKI(t *testing.T) *pki {
	t.Helper()
	dir := t.TempDir()
	p := &pki{ca: filepath.Join(dir, "ca.pem"), cert: filepath.Join(dir, "cert.pem"), key: filepath.Join(dir, "key.pem"), roots: x509.NewCertPool()}
	serial := int64(0)
	var authority *x509.Certificate
	var authorityKey *ecdsa.PrivateKey
	issue := func(template x509.Certificate) ([]byte, *ecdsa.PrivateKey) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		serial++
		template.SerialNumber, template.NotBefore, template.NotAfter = big.NewInt(serial), time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
		parent, signer := authority, authorityKey
		if parent == nil {
			parent, signer = &template, key
		}
		der, err := x509.CreateCertificate(rand.Reader, &template, parent, &key.PublicKey, signer)
		if err != nil {
			t.Fatal(err)
		}
		return der, key
	}
	write := func(path, kind string, der []byte) {
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	der, key := issue(x509.Certificate{Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	write(p.ca, "CERTIFICATE", der)
	var err error
	if authority, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	authorityKey = key
	p.roots.AddCert(authority)
	der, key = issue(x509.Certificate{DNSNames: []string{"gpu1.example.com"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	write(p.cert, "CERTIFICATE", der)
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write(p.key, "PRIVATE KEY", keyDER)
	der, key = issue(x509.Certificate{Subject: pkix.Name{CommonName: "client"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	p.client = tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	return p
}

func (p *pki) clientOf(certificates ...tls.Certificate) *http.Client {
	return &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: p.roots, Certificates: certificates}}}
}

func TestCertificates(t *testing.T) {
	t.Parallel()
	p, other := newPKI(t), newPKI(t)
	both := Remote{Cert: withMode(t, p.cert, 0o644), Key: withMode(t, p.key, 0o640), ClientCA: p.ca, TokenFile: tokenFile(t, testToken, 0o600)}
	alone := both
	alone.TokenFile = ""
	for name, tt := range map[string]struct {
		remote Remote
		certs  []tls.Certificate
		token  string
		want   int
	}{
		"a certificate":                       {alone, []tls.Certificate{p.client}, "", 200},
		"none":                                {alone, nil, "", 0},
		"one of another authority":            {alone, []tls.Certificate{other.client}, "", 0},
		"both":                                {both, []tls.Certificate{p.client}, "Bearer " + testToken, 200},
		"a certificate where both are wanted": {both, []tls.Certificate{p.client}, "", 401},
		"a token where both are wanted":       {both, nil, "Bearer " + testToken, 0},
	} {
		d := open(t, tt.remote)
		if len(d.Names) == 0 || d.Names[0] != "gpu1.example.com" {
			t.Errorf("names %q", d.Names)
		}
		client := p.clientOf(tt.certs...)
		if status, body := get(t, client, "https://"+d.Addr().String()+"/v1/info", tt.token); status != tt.want {
			t.Errorf("%s: %d %s", name, status, body)
		}
		client.CloseIdleConnections()
	}
}
