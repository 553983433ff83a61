package mayfly

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	amqp "github.com/rabbitmq/amqp091-go"
)

// WithSigning signs all tasks with a key, for hosts that take signed tasks only (MAYFLY_TASK_KEYS). They know its public half by
// the name, which has no spaces.
func WithSigning(name string, key ed25519.PrivateKey) Option {
	return func(s *settings) { s.signer = &signer{name, key} }
}

// signer signs the bodies of tasks; nil does not.
type signer struct {
	name string
	key  ed25519.PrivateKey
}

func (s *signer) check() error {
	switch {
	case s == nil:
		return nil
	case s.name == "" || strings.Contains(s.name, " "):
		return fmt.Errorf("cannot sign as %q: a key's name is not empty and has no spaces", s.name)
	case len(s.key) != ed25519.PrivateKeySize:
		return errors.New("cannot sign: the key is no Ed25519 private key")
	}
	return nil
}

// sign adds the signature of a body to a message's headers.
func (s *signer) sign(headers amqp.Table, body []byte) amqp.Table {
	if s == nil {
		return headers
	}
	if headers == nil {
		headers = amqp.Table{}
	}
	headers["task-signature"] = "ed25519 " + s.name + " " + base64.StdEncoding.EncodeToString(ed25519.Sign(s.key, body))
	return headers
}
