package rabbit

import (
	"bufio"
	"encoding/binary"
	"io"
	"math"
	"net"
)

// sieve takes from incoming messages the headers that the library does not read: it gives the connection up over one that nests too deeply,
// and the broker, which relays all that producers send, would deliver the same message again for ever. The wire format is that of AMQP 0-9-1,
// sections 4.2.3 (frames), 4.2.5 (tables) and 4.2.6 (content headers), with RabbitMQ's types of fields.
type sieve struct {
	net.Conn
	in *bufio.Reader
	// left is how much of a frame passes as it is; out is what was looked at and is to be read.
	left int
	out  []byte
	buf  []byte
}

const (
	frameHead      = 7 // type, channel, size
	frameOfHeaders = 2
	frameEnd       = 1
	// headersFrame is far more than a broker's frames have.
	headersFrame = 16 << 20
	// nestingMost and membersMost are half of what the library reads; nobody's headers come near.
	nestingMost = 16
	membersMost = 4096
)

func newSieve(c net.Conn) *sieve { return &sieve{Conn: c, in: bufio.NewReader(c)} }

// Read implements io.Reader.
func (s *sieve) Read(p []byte) (int, error) {
	if len(s.out) == 0 && s.left == 0 {
		if err := s.next(); err != nil {
			return 0, err
		}
	}
	if len(s.out) > 0 {
		n := copy(p, s.out)
		s.out = s.out[n:]
		return n, nil
	}
	n, err := s.in.Read(p[:min(len(p), s.left)])
	s.left -= n
	return n, err
}

// next begins a frame.
func (s *sieve) next() error {
	head, err := s.in.Peek(frameHead)
	if err != nil {
		return err
	}
	size := int(binary.BigEndian.Uint32(head[3:]))
	switch {
	case head[0] == 'A': // no frame: the broker wants another protocol
		s.left = math.MaxInt
	case head[0] != frameOfHeaders || size > headersFrame:
		s.left = frameHead + size + frameEnd
	default:
		n := frameHead + size + frameEnd
		if cap(s.buf) < n {
			s.buf = make([]byte, n)
		}
		s.out = s.buf[:n]
		if _, err := io.ReadFull(s.in, s.out); err != nil {
			s.out = nil
			return err
		}
		s.out = mend(s.out)
	}
	return nil
}

// mend returns a frame of content headers without the headers that cannot be read.
func mend(frame []byte) []byte {
	const flagsAt, propertiesAt = 12, 14 // behind class, weight and the size of the body
	const contentType, contentEncoding, headers = 1 << 15, 1 << 14, 1 << 13
	payload := frame[frameHead : len(frame)-frameEnd]
	if len(payload) < propertiesAt {
		return frame
	}
	flags := binary.BigEndian.Uint16(payload[flagsAt:])
	at := propertiesAt
	for _, flag := range []uint16{contentType, contentEncoding} {
		if flags&flag != 0 {
			if at >= len(payload) {
				return frame
			}
			at += 1 + int(payload[at])
		}
	}
	if flags&headers == 0 || len(payload)-at < 4 {
		return frame
	}
	size := int(binary.BigEndian.Uint32(payload[at:]))
	if size > len(payload)-at-4 {
		return frame
	}
	table, rest := payload[at+4:at+4+size], payload[at+4+size:]
	kept, whole := readable(table)
	if whole {
		return frame
	}
	mended := append([]byte{}, frame[:frameHead+at]...)
	mended = binary.BigEndian.AppendUint32(mended, uint32(len(kept)))
	mended = append(append(append(mended, kept...), rest...), frame[len(frame)-frameEnd:]...)
	binary.BigEndian.PutUint32(mended[3:], uint32(len(mended)-frameHead-frameEnd))
	return mended
}

// readable returns the members of a table that can be read, and reports whether those are all.
func readable(table []byte) (kept []byte, whole bool) {
	var bad [][2]int
	members := 0
	at := 0
	for at < len(table) {
		start := at
		at += 1 + int(table[at])
		n := -1
		fine := false
		if at < len(table) {
			n, fine = extent(table[at:], 1)
		}
		if n < 0 || members >= membersMost { // where the next one begins is not known, or does not matter
			bad = append(bad, [2]int{start, len(table)})
			break
		}
		at += n
		if !fine {
			bad = append(bad, [2]int{start, at})
			continue
		}
		members++
	}
	if bad == nil {
		return table, true
	}
	from := 0
	for _, b := range bad {
		kept = append(kept, table[from:b[0]]...)
		from = b[1]
	}
	return append(kept, table[from:]...), false
}

// extent returns the length of the field that b begins with, its type included, and whether the library reads it; -1 where its length is not
// known.
func extent(b []byte, depth int) (n int, fine bool) {
	kind := b[0]
	switch kind {
	case 'V':
		return 1, true
	case 't', 'b', 'B':
		n = 1 + 1
	case 's', 'u':
		n = 1 + 2
	case 'I', 'i', 'f':
		n = 1 + 4
	case 'D':
		n = 1 + 5
	case 'l', 'd', 'T':
		n = 1 + 8
	case 'S', 'x', 'A', 'F':
		if len(b) < 5 {
			return -1, false
		}
		n = 5 + int(binary.BigEndian.Uint32(b[1:]))
	default:
		return -1, false
	}
	if n > len(b) {
		return -1, false
	}
	if kind != 'A' && kind != 'F' {
		return n, true
	}
	if depth > nestingMost {
		return n, false
	}
	at := 5
	for members := 0; at < n; members++ {
		if kind == 'F' {
			at += 1 + int(b[at])
		}
		if at >= n || members >= membersMost {
			return n, false
		}
		size, ok := extent(b[at:n], depth+1)
		if size < 0 || !ok {
			return n, false
		}
		at += size
	}
	return n, true
}
