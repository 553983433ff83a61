package broker

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"testing"
)

// ports of one broker, all on one address.
type ports struct{ amqp, amqps, dist, epmd int }

// Ports of brokers come from below those that the kernel gives to whoever asks for any (32768 and above by default, ip_local_port_range in Linux's
// Documentation/networking/ip-sysctl.rst): a broker that is stopped in a test must find its own free when it is started again.
const (
	portFirst = 10000
	portLast  = 32000
	// networks is how many there may be at once.
	networks = 250
)

// reservePorts picks ports that nobody listens on, and which no other broker of any test takes until they are released.
func reservePorts() (ports, []io.Closer, error) {
	var p ports
	var held []io.Closer
	for _, port := range []*int{&p.amqp, &p.amqps, &p.dist, &p.epmd} {
		number, reservation, err := reservePort()
		if err != nil {
			release(held)
			return ports{}, nil, err
		}
		*port, held = number, append(held, reservation)
	}
	return p, held, nil
}

// reservePort picks one.
func reservePort() (int, io.Closer, error) {
	var last error
	for range 1000 {
		port := portFirst + rand.IntN(portLast-portFirst)
		reservation, err := reserve("port", port)
		if err == nil {
			var l net.Listener
			if l, err = net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
				_ = l.Close()
				return port, reservation, nil
			}
			_ = reservation.Close()
		}
		last = err
	}
	return 0, nil, fmt.Errorf("cannot find a free port: %w", last)
}

// Port returns a port on 127.0.0.1 that nobody listens on, and which no other test takes until this one has ended.
func Port(t testing.TB) int {
	t.Helper()
	port, held, err := reservePort()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = held.Close() })
	return port
}

// reserveNetwork picks the number of a cluster's network, which no other test has until it is closed.
func reserveNetwork() (int, io.Closer, error) {
	first, last := rand.IntN(networks), error(nil)
	for i := range networks {
		number := (first + i) % networks
		reservation, err := reserve("network", number)
		if err == nil {
			return number, reservation, nil
		}
		last = err
	}
	return 0, nil, fmt.Errorf("cannot find a free network: %w", last)
}

// reserve holds an address of a socket that has no file, so that it ends with the process at the latest.
func reserve(what string, number int) (io.Closer, error) {
	return net.Listen("unix", fmt.Sprintf("@mayfly-test-%s-%d", what, number))
}

func release(held []io.Closer) {
	for _, h := range held {
		_ = h.Close()
	}
}
