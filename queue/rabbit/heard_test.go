package rabbit

import (
	"net"
	"sync/atomic"
	"testing"
	"time"
)

// TestHeard reads what came a while ago, as a process does that was stopped meanwhile, and what comes just now.
func TestHeard(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	client, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	server, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	var heard atomic.Int64
	l := &listening{Conn: client, heard: &heard}
	const stopped = 2 * longAgo
	for name, wait := range map[string]time.Duration{"at once": 0, "after a stop": stopped} {
		if _, err := server.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(wait) // it is the age of what is read that matters
		if _, err := l.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		if ago := time.Since(time.Unix(0, heard.Load())); ago < wait-wait/4 || wait == 0 && ago > longAgo {
			t.Errorf("%s: heard %s ago", name, ago)
		}
	}
}
