package api

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
)

// connectionsEach is how many connections one address may have: a browser has a few, a batch that is waited for some thirty, and several people may be behind
// one address.
const connectionsEach = 64

// shareListener gives no address more than its share of the connections. Where it has that many, the oldest one by which nobody has shown
// that they may come in makes way for the next: who only connects keeps nobody else of the same address out.
type shareListener struct {
	net.Listener
	mu sync.Mutex
	// open are the connections of each address, the oldest first.
	open map[netip.Addr][]*shareConn
}

func (l *shareListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		c := &shareConn{Conn: conn, listener: l, address: addressOf(conn.RemoteAddr().String())}
		closing := l.enter(c)
		if closing != nil {
			closing.Close()
		}
		if closing != c {
			return c, nil
		}
	}
}

// enter adds a connection and returns the one that is to be closed for it: none, another, or itself.
func (l *shareListener) enter(c *shareConn) *shareConn {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := l.open[c.address]
	var closing *shareConn
	if len(list) >= connectionsEach {
		i := slices.IndexFunc(list, func(o *shareConn) bool { return !o.welcome.Load() })
		if i < 0 {
			return c
		}
		closing = list[i]
		list = slices.Delete(list, i, i+1)
	}
	l.open[c.address] = append(list, c)
	return closing
}

func (l *shareListener) leave(c *shareConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	left := slices.DeleteFunc(l.open[c.address], func(o *shareConn) bool { return o == c })
	if len(left) == 0 {
		delete(l.open, c.address)
		return
	}
	l.open[c.address] = left
}

type shareConn struct {
	net.Conn
	listener *shareListener
	address  netip.Addr
	// welcome says that a request has come by it that was let in.
	welcome atomic.Bool
}

func (c *shareConn) Close() error {
	c.listener.leave(c)
	return c.Conn.Close()
}

// connKey is that of the connection in the context of a request.
type connKey struct{}

func withConn(ctx context.Context, c net.Conn) context.Context {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	return context.WithValue(ctx, connKey{}, c)
}

// welcome has the connection of a request stay.
func welcome(r *http.Request) {
	if c, ok := r.Context().Value(connKey{}).(*shareConn); ok {
		c.welcome.Store(true)
	}
}

// welcomed reports whether a request has come by the same connection before that was let in.
func welcomed(r *http.Request) bool {
	c, ok := r.Context().Value(connKey{}).(*shareConn)
	return ok && c.welcome.Load()
}

// addressOf is what counts as one address: who has one of a network of IPv6 has all of it, and who is on this host all that lead back to it.
func addressOf(remote string) netip.Addr {
	at, err := netip.ParseAddrPort(remote)
	if err != nil {
		return netip.Addr{}
	}
	a := at.Addr().Unmap()
	switch {
	case a.IsLoopback():
		return netip.IPv6Loopback()
	case a.Is6():
		if p, err := a.Prefix(64); err == nil {
			return p.Addr()
		}
	}
	return a
}
