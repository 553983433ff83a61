package rabbit

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mayfly/mayfly/integration/broker"
)

// authority is a certificate authority of a test.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{}
	a.pem, a.key = sign(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: "test authority"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}, nil)
	block, _ := pem.Decode(a.pem)
	var err error
	if a.cert, err = x509.ParseCertificate(block.Bytes); err != nil {
		t.Fatal(err)
	}
	return a
}

// leaf issues a certificate for a server or a client of that name.
func (a *authority) leaf(t *testing.T, name string) (cert, key []byte) {
	t.Helper()
	cert, private := sign(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, a)
	der, err := x509.MarshalECPrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return cert, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})
}

func sign(t *testing.T, template *x509.Certificate, by *authority) ([]byte, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := template, key
	if by != nil {
		parent, signer = by.cert, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), key
}

func file(t *testing.T, name string, text []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestKeyForAll holds that a key that others may read is no key, and one that is the group's is.
func TestKeyForAll(t *testing.T) {
	t.Parallel()
	cert, key := newAuthority(t).leaf(t, "guest")
	c := Config{URLs: []string{"amqps://localhost"}, Cert: file(t, "cert", cert), Key: file(t, "key", key), Log: slog.New(slog.DiscardHandler)}
	for mode, want := range map[os.FileMode]string{0o600: "", 0o640: "", 0o644: "cannot use MAYFLY_AMQP_KEY=" + c.Key + ": others may read or change it"} {
		if err := os.Chmod(c.Key, mode); err != nil {
			t.Fatal(err)
		}
		if _, _, err := c.parse(); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%o: %v, want %q", mode, err, want)
		}
	}
}

// The client proves itself to a broker that demands certificates, and trusts only a broker that proves itself.
func TestTLS(t *testing.T) {
	t.Parallel()
	for _, v := range broker.Versions {
		t.Run(string(v), func(t *testing.T) {
			t.Parallel()
			ours, foreign := newAuthority(t), newAuthority(t)
			serverCert, serverKey := ours.leaf(t, "localhost")
			config := "auth_mechanisms.1 = PLAIN\nauth_mechanisms.2 = EXTERNAL\nssl_cert_login_from = common_name\n"
			b := broker.StartWith(t, v, broker.Options{
				TLS:     &broker.TLS{CA: ours.pem, Cert: serverCert, Key: serverKey},
				Plugins: []string{"rabbitmq_auth_mechanism_ssl"},
				Config:  config,
			})
			certPEM, keyPEM := ours.leaf(t, "guest")
			badCert, badKey := foreign.leaf(t, "guest")
			ca, cert, key := file(t, "ca", ours.pem), file(t, "cert", certPEM), file(t, "key", keyPEM)
			noUser := strings.Replace(b.TLSURL(), "guest:guest@", "", 1)

			for name, url := range map[string]string{"password": b.TLSURL(), "certificate": noUser} {
				cl, _ := dial(t, Config{URLs: []string{url}, CA: ca, Cert: cert, Key: key, Host: name, Pools: []string{"p"}})
				cl.Source().Demand(1)
				publish(t, cl, task(1))
				settle(t, receive(t, cl.Source()), done("t1"))
				if err := cl.Close(); err != nil {
					t.Fatal(err)
				}
			}
			for name, c := range map[string]Config{
				"cannot trust the certificate":            {CA: file(t, "foreign", foreign.pem), Cert: cert, Key: key},
				"it wants a client certificate":           {CA: ca},
				"that it trusts":                          {CA: ca, Cert: file(t, "bad", badCert), Key: file(t, "badkey", badKey)},
				"give both":                               {CA: ca, Cert: cert},
				"cannot read the certificate authorities": {CA: "/nonexistent", Cert: cert, Key: key},
			} {
				var log *journal
				log, c.Log = newJournal()
				c.URLs = []string{b.TLSURL()}
				cl, err := Dial(within(t), c)
				if err == nil {
					// The broker's reset overtook its reason.
					log.await(t, "client certificate that it trusts")
					_ = cl.Close()
				} else if !strings.Contains(err.Error(), name) {
					t.Errorf("error = %v; want %q", err, name)
				}
			}
		})
	}
}
