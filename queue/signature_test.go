package queue

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// keyPair writes a key pair as openssl does, and returns the private key's file.
func keyPair(t *testing.T, dir, name string) string {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	writeKey(t, filepath.Join(dir, name+".pem"), public)
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), name+".pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func writeKey(t *testing.T, file string, public any) {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestSignature(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	alice, err := ReadSigner(keyPair(t, dir, "alice"))
	if err != nil {
		t.Fatal(err)
	}
	bob, err := ReadSigner(keyPair(t, dir, "bob"))
	if err != nil {
		t.Fatal(err)
	}
	eve, err := ReadSigner(keyPair(t, t.TempDir(), "eve"))
	if err != nil {
		t.Fatal(err)
	}
	keys, err := ReadKeys(dir)
	if err != nil || len(keys) != 2 {
		t.Fatalf("%v, %v", keys, err)
	}
	body := []byte(`{"command": ["true"]}`)
	sign := func(s *Signer) string {
		header, err := s.Sign(body)
		if err != nil {
			t.Fatal(err)
		}
		return header
	}
	bobs := strings.Replace(sign(bob), "bob", "alice", 1)
	for _, c := range []struct {
		name   string
		header any
		body   string
		want   string // what the refusal says; empty for none
	}{
		{"signed", sign(alice), string(body), ""},
		{"by another", sign(bob), string(body), ""},
		{"nothing", nil, string(body), "missing; this host takes signed tasks only"},
		{"no text", 5, string(body), "missing"},
		{"another body", sign(alice), string(body) + " ", "not this key's signature"},
		{"another's key", bobs, string(body), "not this key's signature"},
		{"an unknown key", sign(eve), string(body), "does not know the key"},
		{"no signature", "ed25519 alice ", string(body), "64 bytes in base64"},
		{"a short one", "ed25519 alice AAAA", string(body), "64 bytes in base64"},
		{"another algorithm", "rsa alice AAAA", string(body), `must be "ed25519"`},
		{"garbage", "x", string(body), `must be "ed25519"`},
	} {
		m := Message{Body: []byte(c.body)}
		if c.header != nil {
			m.Headers = map[string]any{SignatureHeader: c.header}
		}
		err := keys.Verify(m)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	if err := (Keys)(nil).Verify(Message{}); err != nil {
		t.Errorf("without keys: %v", err)
	}
}

func TestKeysRefused(t *testing.T) {
	t.Parallel()
	empty := t.TempDir()
	if _, err := ReadKeys(empty); err == nil || !strings.Contains(err.Error(), "cannot find a key") {
		t.Errorf("an empty directory: %v", err)
	}
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	writeKey(t, filepath.Join(empty, "other.pem"), &other.PublicKey)
	if _, err := ReadKeys(empty); err == nil || !strings.Contains(err.Error(), "no Ed25519 key") {
		t.Errorf("another kind of key: %v", err)
	}
	private := keyPair(t, t.TempDir(), "a")
	text, err := os.ReadFile(private)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(empty, "other.pem"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadKeys(empty); err == nil || !strings.Contains(err.Error(), "no PUBLIC KEY") {
		t.Errorf("a private key among the public ones: %v", err)
	}
	if _, err := ReadSigner(filepath.Join(empty, "none.pem")); err == nil {
		t.Error("no error over a missing key")
	}
}
