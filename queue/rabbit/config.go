package rabbit

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/mayfly/mayfly/internal/secret"
	"github.com/mayfly/mayfly/queue"
)

// Declare says who makes the shared exchanges and queues.
type Declare string

// The modes of declaring.
const (
	// Auto makes what is missing and leaves alone what is there, whatever its arguments.
	Auto Declare = "auto"
	// Passive makes nothing shared; what is missing is an error that names it.
	Passive Declare = "passive"
)

// Config says which broker to use, and for whom.
type Config struct {
	// URLs are the broker's nodes ("amqp://user:password@host:5672/vhost", or amqps), tried in turn. At least one.
	URLs []string
	// CA, Cert and Key are paths of PEM files for amqps: the authorities to trust instead of the system's, and the
	// client's certificate and key. Each may be empty; Cert and Key go together, and a key that others may read is refused.
	CA, Cert, Key string
	// Host is the name of this host; it must be unique among the managers of a virtual host. Empty for a client that is
	// no host: it hears of no cancellation.
	Host string
	// Pools are the pools that the source receives from, higher in the list first among equals. May be empty.
	Pools []string
	// Declare is Auto when empty.
	Declare Declare
	// Log is required.
	Log *slog.Logger
}

// endpoint is one parsed URL.
type endpoint struct {
	url      string // as given: holds the password
	addr     string // host:port
	user     string // empty for EXTERNAL
	vhost    string
	secure   bool // amqps
	external bool
}

// parse checks the configuration. No error holds a password.
func (c *Config) parse() ([]endpoint, *tls.Config, error) {
	if c.Log == nil {
		return nil, nil, errors.New("cannot use RabbitMQ without a logger")
	}
	switch c.Declare {
	case "":
		c.Declare = Auto
	case Auto, Passive:
	default:
		return nil, nil, fmt.Errorf("cannot use MAYFLY_DECLARE=%s: it must be %s or %s", c.Declare, Auto, Passive)
	}
	for _, pool := range c.Pools {
		if err := checkPool(pool); err != nil {
			return nil, nil, err
		}
	}
	if len(controlQueue(c.Host)+".9") > 255 { // the longest of its names
		return nil, nil, fmt.Errorf("cannot use a host name of %d bytes: shorten MAYFLY_HOST", len(c.Host))
	}
	if len(c.URLs) == 0 {
		return nil, nil, errors.New("cannot reach RabbitMQ without a URL: set MAYFLY_AMQP_URL")
	}
	var all []endpoint
	secure := false
	for _, raw := range c.URLs {
		e, s, err := parseURL(raw)
		if err != nil {
			return nil, nil, err
		}
		secure = secure || s
		all = append(all, e)
	}
	if !secure {
		if c.CA != "" || c.Cert != "" || c.Key != "" {
			return nil, nil, errors.New("cannot use TLS files with an amqp:// URL: write amqps://")
		}
		return all, nil, nil
	}
	t, err := c.tls()
	return all, t, err
}

func parseURL(raw string) (e endpoint, secure bool, err error) {
	uri, err := amqp.ParseURI(raw)
	if err != nil {
		// The error of a URL quotes the URL, password included: only its cause may be shown.
		var broken *url.Error
		if errors.As(err, &broken) {
			err = errors.New("it is not a URL: a password must be percent-encoded")
		}
		return endpoint{}, false, fmt.Errorf("cannot read the RabbitMQ URL (MAYFLY_AMQP_URL): %w", err)
	}
	if uri.Port < 1 || uri.Port > 65535 {
		return endpoint{}, false, fmt.Errorf("cannot read the RabbitMQ URL (MAYFLY_AMQP_URL): its port is %d; use one from 1 to 65535", uri.Port)
	}
	e = endpoint{url: raw, addr: net.JoinHostPort(uri.Host, strconv.Itoa(uri.Port)), user: uri.Username, vhost: uri.Vhost}
	parsed, err := url.Parse(raw)
	if err == nil && strings.Contains(parsed.RawQuery+parsed.Fragment, "@") { // else a part of the password is taken for the port
		return endpoint{}, false, errors.New("cannot read the RabbitMQ URL (MAYFLY_AMQP_URL): a password must be percent-encoded")
	}
	secure = uri.Scheme == "amqps"
	e.secure = secure
	if err == nil && secure && parsed.User == nil {
		// Without a user the client's certificate says who it is.
		e.external, e.user = true, ""
	}
	return e, secure, nil
}

// tls reads the key material.
func (c *Config) tls() (*tls.Config, error) {
	t := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CA != "" {
		pem, err := os.ReadFile(c.CA)
		if err != nil {
			return nil, fmt.Errorf("cannot read the certificate authorities: %w", err)
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("cannot read the certificate authorities: %s holds no PEM certificate", c.CA)
		}
	}
	if (c.Cert == "") != (c.Key == "") {
		return nil, errors.New("cannot use a client certificate without its key, nor a key without its certificate: give both")
	}
	if c.Cert != "" {
		cert, err := secret.KeyPair(c.Cert, "MAYFLY_AMQP_KEY", c.Key)
		if err != nil {
			return nil, fmt.Errorf("cannot read the client certificate: %w", err)
		}
		t.Certificates = []tls.Certificate{cert}
	}
	return t, nil
}

// checkPool refuses names that a routing key could not carry: a dot would make two words of one.
func checkPool(pool string) error {
	if pool == "" || len(pool) > queue.MaxPool || strings.ContainsAny(pool, ".*# \t\n") {
		return fmt.Errorf("cannot use the pool name %q: it must have 1 to %d bytes, without dots, stars, hashes or spaces",
			pool, queue.MaxPool)
	}
	return nil
}
