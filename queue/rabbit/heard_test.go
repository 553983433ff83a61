package rabbit

import (
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mayfly/mayfly/integration/broker"
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

// TestHeardOfRefusals has a broker refuse a host that it has served: what it says then is no sign that the host's deliveries are still its own.
func TestHeardOfRefusals(t *testing.T) {
	t.Parallel()
	b := broker.Shared(t, broker.V40)
	url := b.Vhost(t)
	eval := func(format string, args ...any) {
		t.Helper()
		if out, err := b.Eval(fmt.Sprintf(format, args...)); err != nil || !strings.Contains(out, "ok") {
			t.Fatal(out, err)
		}
	}
	eval(`rabbit_auth_backend_internal:add_user(<<"heard">>, <<"a">>, <<"test">>).`)
	eval(`rabbit_auth_backend_internal:set_permissions(<<"heard">>, <<"%s">>, <<".*">>, <<".*">>, <<".*">>, <<"test">>).`, broker.VhostName(url))
	t.Cleanup(func() { eval(`rabbit_auth_backend_internal:delete_user(<<"heard">>, <<"test">>).`) })
	cl, log := dial(t, Config{URLs: []string{strings.Replace(url, "guest:guest", "heard:a", 1)}, Host: "h", Pools: []string{"p"}})
	log.await(t, "connected to RabbitMQ")
	if ago := time.Since(cl.Heard()); ago > patience {
		t.Fatalf("heard %s ago", ago)
	}
	eval(`rabbit_auth_backend_internal:change_password(<<"heard">>, <<"b">>, <<"test">>).`)
	s, err := cl.receive.session(within(t))
	if err != nil {
		t.Fatal(err)
	}
	_ = s.conn.Close()
	log.await(t, "level=WARN", "lost RabbitMQ")
	lost := time.Now()
	log.await(t, "level=DEBUG", "still out of reach", "not allowed")
	if heard := cl.Heard(); heard.After(lost) {
		t.Errorf("heard %s after the connection was lost", heard.Sub(lost))
	}
}
