package mayfly_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"

	mayfly "github.com/mayfly/mayfly/clients/go"
	"github.com/mayfly/mayfly/integration/broker"
)

// issue makes a certificate for the name and its key, both as PEM; by is the authority, or nil to make one.
func issue(t *testing.T, name string, by *tls.Certificate) (pair tls.Certificate, cert, key []byte) {
	t.Helper()
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), BasicConstraintsValid: true,
	}
	parent, signer := template, any(private)
	if by == nil {
		template.IsCA, template.KeyUsage = true, x509.KeyUsageCertSign
	} else {
		parent, signer = by.Leaf, by.PrivateKey
		template.DNSNames, template.KeyUsage = []string{name}, x509.KeyUsageDigitalSignature
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &private.PublicKey, signer)
	must(err)
	secret, err := x509.MarshalECPrivateKey(private)
	must(err)
	cert, key = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: secret})
	pair, err = tls.X509KeyPair(cert, key)
	must(err)
	return pair, cert, key
}

func TestTLS(t *testing.T) {
	t.Parallel()
	authority, ca, _ := issue(t, "authority", nil)
	_, cert, key := issue(t, "localhost", &authority)
	b := broker.StartWith(t, broker.V43, broker.Options{
		TLS:     &broker.TLS{CA: ca, Cert: cert, Key: key},
		Plugins: []string{"rabbitmq_auth_mechanism_ssl"},
		Config:  "auth_mechanisms.1 = PLAIN\nauth_mechanisms.2 = EXTERNAL\nssl_cert_login_from = common_name\n",
	})
	h := newHost(t, b.URL(), "default")
	ours, _, _ := issue(t, "machine", &authority)
	if _, err := b.Eval(`rabbit_auth_backend_internal:add_user(<<"machine">>, <<"no password of ours">>, <<"test">>),
		rabbit_auth_backend_internal:set_permissions(<<"machine">>, <<"/">>, <<".*">>, <<".*">>, <<".*">>, <<"test">>),
		rabbit_auth_backend_internal:set_permissions(<<"guest">>, <<"/">>, <<"^$">>, <<".*">>, <<".*">>, <<"test">>).`); err != nil {
		t.Fatal(err)
	}
	config := &tls.Config{RootCAs: x509.NewCertPool(), Certificates: []tls.Certificate{ours}}
	config.RootCAs.AddCert(authority.Leaf)
	byPassword, byCertificate := strings.Replace(b.TLSURL(), "guest:guest", "machine:no%20password%20of%20ours", 1), strings.Replace(b.TLSURL(), "guest:guest@", "", 1)
	for _, url := range []string{byPassword, byCertificate} {
		cl := dial(t, url, mayfly.WithTLS(config))
		handle := submit(t, cl, say("a"))
		h.end(h.receive(), "")
		wait(t, handle)
	}
	if _, err := mayfly.Dial(within(t), b.TLSURL()); err == nil || !strings.Contains(err.Error(), "certificate signed by unknown authority") {
		t.Errorf("without our authority: %v", err)
	}
	if _, err := mayfly.Dial(within(t), b.URL(), mayfly.WithTLS(config)); err == nil || err.Error() != "cannot use TLS with an amqp:// URL: write amqps://" {
		t.Errorf("with an amqp URL: %v", err)
	}
}
