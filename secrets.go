package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/mayfly/mayfly/internal/secret"
)

// secretMost is far more than a list of URLs has, in bytes.
const secretMost = 64 << 10

// readSecret reads a file that a setting names, unless somebody else may have read or written it. Its last newline is no part of it.
func readSecret(setting, path string) (string, error) {
	f, err := secret.Open(setting, path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, secretMost+1))
	if err != nil {
		return "", fmt.Errorf("cannot read %s: %w", setting, err)
	}
	value := strings.TrimSpace(string(text))
	switch {
	case len(text) > secretMost:
		return "", fmt.Errorf("cannot use %s=%s: it has more than %d bytes", setting, path, secretMost)
	case value == "":
		return "", fmt.Errorf("cannot use %s=%s: it is empty", setting, path)
	}
	return value, nil
}

// readSecrets reads what settings hold in files.
func (c *config) readSecrets() error {
	if c.AMQPURLFile == "" {
		return nil
	}
	if c.AMQPURL != "" {
		return errors.New("cannot use MAYFLY_AMQP_URL together with MAYFLY_AMQP_URL_FILE: unset one of them")
	}
	text, err := readSecret("MAYFLY_AMQP_URL_FILE", c.AMQPURLFile)
	c.AMQPURL = strings.Join(strings.Fields(text), ",") // one a line is as good as commas
	return err
}
