package api

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

const (
	// maxSocketPath is the longest path of a Unix socket in bytes (unix(7)).
	maxSocketPath = 107
	// stopLimit is how long requests may go on once the server is to stop.
	stopLimit = 2 * time.Second
)

// Serve answers on a listener until ctx ends, and closes it.
func Serve(ctx context.Context, l net.Listener, h http.Handler) error {
	// Requests end with the server: a follower would hold up the stop otherwise.
	requests, endRequests := context.WithCancel(context.Background())
	defer endRequests()
	s := &http.Server{Handler: h, BaseContext: func(net.Listener) context.Context { return requests }, ConnContext: withConn,
		ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10, ErrorLog: log.New(discard{}, "", 0)}
	stopped := make(chan struct{})
	defer context.AfterFunc(ctx, func() {
		defer close(stopped)
		endRequests()
		limit, cancel := context.WithTimeout(context.Background(), stopLimit)
		defer cancel()
		if s.Shutdown(limit) != nil {
			s.Close()
		}
	})()
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("cannot serve the API on %s: %w", l.Addr(), err)
	}
	<-stopped
	return nil
}

type discard struct{}

func (discard) Write(b []byte) (int, error) { return len(b), nil }

// Listen makes the manager's Unix socket. It is for our user and group; a stale one is replaced, one that somebody listens
// on is not.
func Listen(path string) (net.Listener, error) {
	if len(path) > maxSocketPath {
		return nil, fmt.Errorf("cannot listen on %s: a socket's path has at most %d bytes; set MAYFLY_SOCKET", path, maxSocketPath)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("cannot make the directory of the socket MAYFLY_SOCKET=%s: %w", path, err)
	}
	if conn, err := net.Dial("unix", path); err == nil {
		conn.Close()
		return nil, fmt.Errorf("cannot listen on %s: another manager does; stop it, or set MAYFLY_SOCKET", path)
	}
	if info, err := os.Lstat(path); err == nil && info.Mode()&os.ModeSocket != 0 {
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("cannot remove the stale socket %s: %w", path, err)
		}
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %s: %w", path, err)
	}
	if err := os.Chmod(path, 0o660); err != nil {
		l.Close()
		return nil, fmt.Errorf("cannot set the mode of %s: %w", path, err)
	}
	return l, nil
}
