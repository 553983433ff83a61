package queue

import (
	"crypto"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// SignatureHeader is the header of a message that holds the signature of its body: "ed25519", the name of the key, and the 64 bytes of
// the signature (RFC 8032) in base64, separated by spaces.
const SignatureHeader = "task-signature"

const algorithm = "ed25519"

// Keys are the public keys, by name, of those whose tasks are taken; nil takes everybody's.
type Keys map[string]ed25519.PublicKey

// ReadKeys reads the public keys in a directory: each is a file NAME.pem as "openssl pkey -pubout" writes it. A directory without one is
// refused, for it would refuse all tasks.
func ReadKeys(dir string) (Keys, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.pem"))
	if err != nil {
		return nil, fmt.Errorf("cannot look for keys: %w", err)
	}
	keys := Keys{}
	for _, file := range files {
		der, err := readPEM(file, "PUBLIC KEY")
		if err != nil {
			return nil, err
		}
		key, err := x509.ParsePKIXPublicKey(der)
		public, ok := key.(ed25519.PublicKey)
		if err == nil && !ok {
			err = fmt.Errorf("it is no Ed25519 key but %T", key)
		}
		if err != nil {
			return nil, fmt.Errorf("cannot use the key %s: %w", file, err)
		}
		keys[strings.TrimSuffix(filepath.Base(file), ".pem")] = public
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("cannot find a key in %s: put NAME.pem there (openssl genpkey -algorithm ed25519 | openssl pkey -pubout)", dir)
	}
	return keys, nil
}

// Verify refuses a message whose body was not signed with one of the keys.
func (k Keys) Verify(m Message) error {
	if k == nil {
		return nil
	}
	text, _ := m.Headers[SignatureHeader].(string)
	if text == "" {
		return &Refusal{Field: SignatureHeader, Remedy: "missing; this host takes signed tasks only"}
	}
	refuse := func(remedy string) error {
		return &Refusal{Field: SignatureHeader, Value: fmt.Sprintf("%.64q", text), Remedy: remedy}
	}
	parts := strings.Split(text, " ")
	if len(parts) != 3 || parts[0] != algorithm {
		return refuse(`must be "ed25519", the key's name and the signature in base64, separated by spaces`)
	}
	signature, err := base64.StdEncoding.DecodeString(parts[2])
	if err != nil || len(signature) != ed25519.SignatureSize {
		return refuse(fmt.Sprintf("the signature must be %d bytes in base64", ed25519.SignatureSize))
	}
	key, ok := k[parts[1]]
	if !ok {
		return refuse("this host does not know the key of that name")
	}
	if !ed25519.Verify(key, m.Body, signature) {
		return refuse("it is not this key's signature of this body")
	}
	return nil
}

// Signer signs tasks with a key of a name.
type Signer struct {
	name string
	key  ed25519.PrivateKey
}

// ReadSigner reads a private key from a file NAME.pem, as "openssl genpkey -algorithm ed25519" writes it. Its name goes with its signatures.
func ReadSigner(file string) (*Signer, error) {
	der, err := readPEM(file, "PRIVATE KEY")
	if err != nil {
		return nil, err
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	private, ok := key.(ed25519.PrivateKey)
	if err == nil && !ok {
		err = fmt.Errorf("it is no Ed25519 key but %T", key)
	}
	name := strings.TrimSuffix(filepath.Base(file), ".pem")
	if err == nil && (name == "" || strings.Contains(name, " ")) {
		err = errors.New("its name, the file's without .pem, must not be empty or have spaces")
	}
	if err != nil {
		return nil, fmt.Errorf("cannot use the key %s: %w", file, err)
	}
	return &Signer{name, private}, nil
}

// Sign returns the header for a body.
func (s *Signer) Sign(body []byte) (string, error) {
	signature, err := s.key.Sign(nil, body, crypto.Hash(0))
	if err != nil {
		return "", fmt.Errorf("cannot sign the task: %w", err)
	}
	return algorithm + " " + s.name + " " + base64.StdEncoding.EncodeToString(signature), nil
}

func readPEM(file, kind string) ([]byte, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("cannot read the key: %w", err)
	}
	block, _ := pem.Decode(text)
	if block == nil || block.Type != kind {
		return nil, fmt.Errorf("cannot use the key %s: it is no %s in PEM", file, kind)
	}
	return block.Bytes, nil
}
