package mayfly

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

const (
	// heartbeat is the interval of heartbeats; a peer that is silent for two is taken for gone.
	heartbeat = 10 * time.Second
	// dialLimit bounds the TCP connection, and again the TLS and AMQP handshakes.
	dialLimit = 10 * time.Second
	// writeLimit bounds a write: as long as heartbeats take to notice that the peer is gone, because a writer stuck in the
	// kernel would keep the library from noticing. A broker that blocks publishing says so, and nothing is written to it.
	writeLimit = 2 * heartbeat
	// closeLimit bounds the farewell.
	closeLimit = 2 * time.Second
)

// dialer makes connections to one broker, which may have several nodes.
type dialer struct {
	nodes []node
	at    int // the node that was tried last
}

// newDialer reads URLs with commas in between.
func newDialer(urls string, t *tls.Config) (*dialer, error) {
	d := &dialer{}
	for raw := range strings.SplitSeq(urls, ",") {
		n, err := newNode(strings.TrimSpace(raw), t)
		if err != nil {
			return nil, err
		}
		d.nodes = append(d.nodes, n)
	}
	return d, nil
}

// dial tries the nodes in turn, from the last one on. The error is that of the last one.
func (d *dialer) dial(ctx context.Context) (conn *amqp.Connection, raw net.Conn, err error) {
	for range d.nodes {
		if conn, raw, err = d.nodes[d.at].dial(ctx); err == nil || ctx.Err() != nil {
			return conn, raw, err
		}
		d.next()
	}
	return nil, nil, err
}

// next leaves a node that is of no use.
func (d *dialer) next() { d.at = (d.at + 1) % len(d.nodes) }

// addr is the address of the node that was tried last.
func (d *dialer) addr() string { return d.nodes[d.at].addr }

// node is one address of the broker.
type node struct {
	url  string // holds the password
	addr string
	tls  *tls.Config
	sasl []amqp.Authentication // nil for the URL's user and password
}

func newNode(raw string, t *tls.Config) (node, error) {
	uri, err := amqp.ParseURI(raw)
	if err != nil {
		// The error of a URL quotes the URL, password included: only its cause may be shown.
		if broken := (*url.Error)(nil); errors.As(err, &broken) {
			err = errors.New("it is not a URL: a password must be percent-encoded")
		}
		return node{}, fmt.Errorf("cannot read the RabbitMQ URL: %w", err)
	}
	if uri.Port < 1 || uri.Port > 65535 {
		return node{}, fmt.Errorf("cannot read the RabbitMQ URL: its port is %d; use one from 1 to 65535", uri.Port)
	}
	n := node{url: raw, addr: net.JoinHostPort(uri.Host, strconv.Itoa(uri.Port)), tls: t}
	if t == nil {
		return n, nil
	}
	if uri.Scheme != "amqps" {
		return node{}, errors.New("cannot use TLS with an amqp:// URL: write amqps://")
	}
	parsed, err := url.Parse(raw)
	if err == nil && parsed.User == nil && (len(t.Certificates) > 0 || t.GetClientCertificate != nil) {
		n.sasl = []amqp.Authentication{&amqp.ExternalAuth{}}
	}
	return n, nil
}

// dial makes a connection, and returns what it runs on, too. ctx ends its making, not the connection.
func (n *node) dial(ctx context.Context) (conn *amqp.Connection, raw net.Conn, err error) {
	config := amqp.Config{Heartbeat: heartbeat, Properties: amqp.NewConnectionProperties(), SASL: n.sasl}
	config.Properties.SetClientConnectionName("mayfly client")
	if n.tls != nil {
		config.TLSClientConfig = n.tls.Clone()
	}
	var stop func() bool
	config.Dial = func(network, addr string) (net.Conn, error) {
		var err error
		if raw, err = (&net.Dialer{Timeout: dialLimit}).DialContext(ctx, network, addr); err != nil {
			return nil, err
		}
		// The library lifts the deadline once the connection is open. Until then, ctx ends the handshake.
		_ = raw.SetReadDeadline(time.Now().Add(dialLimit))
		stop = context.AfterFunc(ctx, func() { _ = raw.Close() })
		return patient{raw}, nil
	}
	conn, err = amqp.DialConfig(n.url, config)
	if stop != nil && !stop() && err == nil {
		_ = conn.Close() // what it runs on is closed already
		err = ctx.Err()
	}
	if err != nil {
		if raw != nil {
			_ = raw.Close()
		}
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, nil, fmt.Errorf("cannot connect to RabbitMQ at %s: %w", n.addr, err)
	}
	return conn, raw, nil
}

// patient is a connection whose writes do not take for ever.
type patient struct{ net.Conn }

// Write writes within writeLimit.
func (c patient) Write(b []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(writeLimit)); err != nil {
		return 0, err
	}
	return c.Conn.Write(b)
}
