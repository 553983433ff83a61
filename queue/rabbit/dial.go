package rabbit

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"golang.org/x/sys/unix"
)

const (
	// heartbeat is the interval of heartbeats; a peer that is silent for two is taken for gone.
	heartbeat = 10 * time.Second
	// dialLimit bounds the TCP connection, and again the TLS and AMQP handshakes.
	dialLimit = 10 * time.Second
	// unackedLimit bounds how long sent bytes may stay unacknowledged by the peer's kernel: the same as the heartbeat
	// takes to notice the loss, because a writer stuck in the kernel cannot notice it otherwise.
	unackedLimit = 2 * heartbeat
	// closeLimit bounds the farewell.
	closeLimit = 2 * time.Second
	// channelMax bounds the open channels of a connection: one per pool and band, and few others.
	channelMax = 2047
)

// CutOff is how long a host may hear nothing of the broker before it has to take itself for cut off: the broker says something each half heartbeat,
// and gives up on a host when it has heard nothing for two whole ones.
const CutOff = heartbeat

// refused is an error that trying again does not mend: wrong credentials, virtual host or certificate.
type refused struct{ error }

func (r refused) Unwrap() error { return r.error }

// dialer makes connections to the broker.
type dialer struct {
	endpoints []endpoint
	tls       *tls.Config
	host      string
	// first is where the next dial begins.
	first atomic.Int64
	// heard is when a peer was last heard, in nanoseconds of the Unix epoch.
	heard atomic.Int64
}

// avoid has the next connections begin with the endpoint that follows: this one is in reach and of no use.
func (d *dialer) avoid(addr string) {
	if i := slices.IndexFunc(d.endpoints, func(e endpoint) bool { return e.addr == addr }); i >= 0 {
		d.first.Store(int64(i + 1))
	}
}

// dial tries each endpoint in turn. The error is that of the last one.
func (d *dialer) dial(ctx context.Context, role string) (conn *amqp.Connection, e endpoint, err error) {
	first := int(d.first.Load()) % len(d.endpoints)
	for i := range d.endpoints {
		e = d.endpoints[(first+i)%len(d.endpoints)]
		conn, err = d.dialOne(ctx, e, role)
		if err == nil {
			return conn, e, nil
		}
		if ctx.Err() != nil {
			return nil, e, ctx.Err()
		}
	}
	return nil, e, err
}

func (d *dialer) dialOne(ctx context.Context, e endpoint, role string) (*amqp.Connection, error) {
	properties := amqp.NewConnectionProperties()
	properties["product"] = "Mayfly"
	properties.SetClientConnectionName(strings.TrimSpace("mayfly " + role + " " + d.host))
	// This capability makes the broker say why it refuses a login, instead of hanging up.
	config := amqp.Config{
		Heartbeat:  heartbeat,
		ChannelMax: channelMax,
		Properties: properties,
	}
	if e.external {
		config.SASL = []amqp.Authentication{&amqp.ExternalAuth{}}
	}
	var raw net.Conn
	var stop func() bool
	config.Dial = func(network, _ string) (net.Conn, error) {
		nd := net.Dialer{Timeout: dialLimit, KeepAlive: heartbeat}
		var err error
		if raw, err = nd.DialContext(ctx, network, e.addr); err != nil {
			return nil, err
		}
		limitUnacked(raw)
		// The library lifts the deadline once the connection is open. Until then, ctx ends the handshake.
		_ = raw.SetDeadline(time.Now().Add(dialLimit))
		conn := raw
		stop = context.AfterFunc(ctx, func() { _ = conn.Close() })
		heard := raw
		if role == roleReceive {
			heard = &listening{Conn: raw, heard: &d.heard}
		}
		if !e.secure {
			return newSieve(heard), nil
		}
		t := d.tls.Clone()
		if t.ServerName == "" {
			t.ServerName, _, _ = net.SplitHostPort(e.addr)
		}
		// Not left to the library: the sieve must see what is under the encryption.
		secure := tls.Client(heard, t)
		if err := secure.HandshakeContext(ctx); err != nil {
			return nil, err
		}
		return newSieve(secure), nil
	}
	conn, err := amqp.DialConfig(strings.Replace(e.url, "amqps:", "amqp:", 1), config)
	if stop != nil && !stop() && err == nil {
		_ = conn.Close()
		err = ctx.Err()
	}
	if err != nil {
		if raw != nil {
			_ = raw.Close()
		}
		return nil, e.explain(err)
	}
	return conn, nil
}

// limitUnacked makes the kernel give up a connection whose peer is silent.
func limitUnacked(c net.Conn) {
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return
	}
	if sys, err := tcp.SyscallConn(); err == nil {
		_ = sys.Control(func(fd uintptr) {
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(unackedLimit.Milliseconds()))
		})
	}
}

// explain turns the error of a dial into a sentence, and into refused where the configuration is at fault.
func (e endpoint) explain(err error) error {
	var fault *amqp.Error
	var unknown x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	var hostname x509.HostnameError
	var alert tls.AlertError
	var header tls.RecordHeaderError
	switch {
	case errors.As(err, &fault) && fault.Code == amqp.AccessRefused:
		return refused{fmt.Errorf("cannot log in to RabbitMQ at %s as %s: %s", e.addr, e.who(), fault.Reason)}
	case errors.As(err, &fault) && fault.Code == amqp.NotAllowed:
		return refused{fmt.Errorf("cannot use the virtual host %q of RabbitMQ at %s as %s: %s", e.vhost, e.addr, e.who(), fault.Reason)}
	case errors.As(err, &unknown), errors.As(err, &invalid), errors.As(err, &hostname):
		return refused{fmt.Errorf("cannot trust the certificate of RabbitMQ at %s: %w", e.addr, err)}
	case errors.As(err, &alert), strings.Contains(err.Error(), "remote error: tls:"):
		// With TLS 1.3 a server refuses a client after the handshake, and the library passes on only the text.
		return refused{fmt.Errorf("cannot agree on TLS with RabbitMQ at %s: it wants a client certificate that it trusts: %w", e.addr, err)}
	case errors.As(err, &header):
		return refused{fmt.Errorf("cannot speak TLS with %s: there is no TLS listener on that port", e.addr)}
	case e.secure && (errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET) || errors.Is(err, unix.EPIPE)):
		// A restart of the broker looks the same, so this is tried again.
		return fmt.Errorf("cannot reach RabbitMQ at %s: it hung up at the TLS handshake; it may want a client certificate that it "+
			"trusts: %w", e.addr, err)
	default:
		return fmt.Errorf("cannot reach RabbitMQ at %s: %w", e.addr, err)
	}
}

func (e endpoint) who() string {
	if e.external {
		return "the holder of the client certificate"
	}
	return e.user
}
