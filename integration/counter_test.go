package integration

import (
	"bufio"
	"bytes"
	bytesof "encoding/binary" // "binary" is the path of ours
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"sync"
)

// counter is a way to a broker that counts what clients say to it, and hear from it.
type counter struct {
	addr     string // clients connect to it
	listener net.Listener
	group    sync.WaitGroup

	mu          sync.Mutex
	said, heard side
	connections int
	wrong       error
}

// side is one direction.
type side struct {
	// Methods are counted by name (AMQP 0-9-1).
	Methods map[string]int
	// Messages are counted by kind: the type that a control message has, or "". Bodies are their bytes.
	Messages, Bodies map[string]int
	// Bytes are all, with the protocol's own.
	Bytes int
}

func newSide() side {
	return side{Methods: map[string]int{}, Messages: map[string]int{}, Bodies: map[string]int{}}
}

// less is what was counted since before.
func (s side) less(before side) side {
	difference := func(a, b map[string]int) map[string]int {
		d := map[string]int{}
		for name, n := range a {
			if n > b[name] {
				d[name] = n - b[name]
			}
		}
		return d
	}
	return side{Methods: difference(s.Methods, before.Methods), Messages: difference(s.Messages, before.Messages),
		Bodies: difference(s.Bodies, before.Bodies), Bytes: s.Bytes - before.Bytes}
}

// all counts the methods.
func (s side) all() (n int) {
	for _, m := range s.Methods {
		n += m
	}
	return n
}

// tally is what was counted.
type tally struct {
	Said, Heard side
	Connections int
}

func (t tally) less(before tally) tally {
	return tally{Said: t.Said.less(before.Said), Heard: t.Heard.less(before.Heard), Connections: t.Connections}
}

// count makes a way to the broker at an address.
func count(broker string) (*counter, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	c := &counter{addr: l.Addr().String(), listener: l, said: newSide(), heard: newSide()}
	c.group.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			c.group.Go(func() { c.note(c.pass(conn, broker)) })
		}
	})
	return c, nil
}

// close ends it when all clients have gone, and says what went wrong.
func (c *counter) close() error {
	c.listener.Close()
	c.group.Wait()
	return c.wrong
}

func (c *counter) note(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.wrong == nil {
		c.wrong = err
	}
}

// pass connects one client.
func (c *counter) pass(client net.Conn, broker string) error {
	defer client.Close()
	server, err := net.Dial("tcp", broker)
	if err != nil {
		return err
	}
	defer server.Close()
	c.mu.Lock()
	c.connections++
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		c.connections--
		c.mu.Unlock()
	}()
	var group sync.WaitGroup
	group.Go(func() {
		c.note(c.read(io.TeeReader(server, client), &c.heard))
		client.Close()
	})
	from := bufio.NewReader(io.TeeReader(client, server))
	if _, err = io.CopyN(io.Discard, from, 8); err == nil { // the protocol's header
		err = c.read(from, &c.said)
	} else {
		err = nil // it has said nothing
	}
	server.Close()
	group.Wait()
	return err
}

// methods are those that are told apart, by class and method.
var methods = map[uint32]string{60<<16 | 40: "publish", 60<<16 | 60: "deliver", 60<<16 | 80: "ack", 60<<16 | 120: "nack", 60<<16 | 10: "qos", 60<<16 | 20: "consume",
	60<<16 | 30: "cancel", 20<<16 | 10: "channel", 20<<16 | 40: "channel close", 40<<16 | 10: "declare exchange", 50<<16 | 10: "declare queue", 50<<16 | 20: "bind queue"}

// kinds are those of the messages that are told apart, by what stands in their headers.
var kinds = []string{"mayfly.question", "mayfly.offer", "mayfly.hello"}

// read takes what one side says apart, until it has said all.
func (c *counter) read(from io.Reader, into *side) error {
	in := bufio.NewReader(from)
	var head [7]byte // type, channel, size
	var frame []byte
	for {
		if _, err := io.ReadFull(in, head[:]); err != nil {
			return nil
		}
		size := int(bytesof.BigEndian.Uint32(head[3:]))
		if head[0] == 0 || head[0] > 8 || size > 1<<20 {
			return fmt.Errorf("what begins with %x is no frame", head)
		}
		if cap(frame) < size+1 {
			frame = make([]byte, size+1)
		}
		frame = frame[:size+1]
		if _, err := io.ReadFull(in, frame); err != nil {
			return nil
		}
		c.frame(head[0], frame[:size], into)
	}
}

// frame counts one.
func (c *counter) frame(of byte, frame []byte, into *side) {
	c.mu.Lock()
	defer c.mu.Unlock()
	into.Bytes += 7 + len(frame) + 1
	switch {
	case of == 1 && len(frame) >= 4: // a method
		name := methods[bytesof.BigEndian.Uint32(frame)]
		if name == "" {
			name = "other"
		}
		into.Methods[name]++
	case of == 2 && len(frame) >= 12: // a message's header: class, weight, size of the body, properties
		kind := ""
		for _, k := range kinds {
			if bytes.Contains(frame, []byte(k)) {
				kind = k
			}
		}
		into.Messages[kind]++
		into.Bodies[kind] += int(bytesof.BigEndian.Uint64(frame[4:]))
	case of == 8:
		into.Messages["heartbeat"]++
	}
}

func (c *counter) now() tally {
	c.mu.Lock()
	defer c.mu.Unlock()
	copied := func(s side) side {
		return side{Methods: maps.Clone(s.Methods), Messages: maps.Clone(s.Messages), Bodies: maps.Clone(s.Bodies), Bytes: s.Bytes}
	}
	return tally{Said: copied(c.said), Heard: copied(c.heard), Connections: c.connections}
}

// countVariable has the test's binary be a counter for the broker at this address, so that what it takes of the processor is not the test's.
const countVariable = "COUNTER_TEST_BROKER"

// countAlone is the life of such a process: it says where it is, then for each line that it is sent what it has counted, until there are no more.
func countAlone(broker string) error {
	c, err := count(broker)
	if err != nil {
		return err
	}
	fmt.Println(c.addr)
	out := json.NewEncoder(os.Stdout)
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		if err := out.Encode(c.now()); err != nil {
			return err
		}
	}
	return c.close()
}
