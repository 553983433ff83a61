package rabbit

import (
	"net"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// listening is a connection that notes when something was heard.
type listening struct {
	net.Conn
	heard *atomic.Int64 // nanoseconds of the Unix epoch
	read  time.Time     // when something was read last
}

// longAgo is how long nothing may have been read until what is read then may have been there for a while: who was stopped, or whose machine was, finds it when he wakes, and
// the broker may be gone since.
const longAgo = time.Second

func (l *listening) Read(b []byte) (int, error) {
	n, err := l.Conn.Read(b)
	if n > 0 {
		now := time.Now()
		came := now
		if now.Sub(l.read) > longAgo {
			came = now.Add(-silence(l.Conn))
		}
		l.read = now
		l.heard.Store(came.UnixNano())
	}
	return n, err
}

// silence is how long ago the kernel has got something by a connection; 0 where it does not tell.
func silence(c net.Conn) time.Duration {
	socket, ok := c.(syscall.Conn)
	if !ok {
		return 0
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return 0
	}
	var ago time.Duration
	_ = raw.Control(func(fd uintptr) { // fails for a connection that is closed, by which nothing is heard any more
		if info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			ago = time.Duration(info.Last_data_recv) * time.Millisecond
		}
	})
	return ago
}
