package rabbit

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

// wire pieces of AMQP 0-9-1.
func long(b []byte) []byte { return append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...) }
func member(key string, f []byte) []byte {
	return slices.Concat([]byte{byte(len(key))}, []byte(key), f)
}
func textField(s string) []byte { return append([]byte{'S'}, long([]byte(s))...) }

func tables(depth int) []byte {
	f := textField("x")
	for range depth {
		f = append([]byte{'F'}, long(member("t", f))...)
	}
	return f
}

func arrays(depth int) []byte {
	f := []byte{'V'}
	for range depth {
		f = append([]byte{'A'}, long(f)...)
	}
	return f
}

// headerFrame is a frame of content headers with a content type, these members, and a priority.
func headerFrame(members ...[]byte) []byte {
	payload := slices.Concat(make([]byte, 12), []byte{0xa8, 0}, []byte{4}, []byte("text"), long(slices.Concat(members...)), []byte{7})
	return frameOf(frameOfHeaders, payload)
}

func frameOf(kind byte, payload []byte) []byte {
	return slices.Concat([]byte{kind, 0, 1}, long(payload), []byte{0xce})
}

// through sends bytes through a sieve, which gets them in pieces.
func through(t *testing.T, b []byte) []byte {
	t.Helper()
	ours, theirs := net.Pipe()
	defer ours.Close()
	s := newSieve(ours)
	s.in.Reset(iotest.HalfReader(bytes.NewReader(b)))
	theirs.Close()
	got, err := io.ReadAll(iotest.HalfReader(s))
	if err != nil && err != io.ErrUnexpectedEOF {
		t.Fatal(err)
	}
	return got
}

// TestSieve holds which headers pass.
func TestSieve(t *testing.T) {
	t.Parallel()
	own, other := member("own", textField("x")), member("n", []byte{'I', 0, 0, 0, 1})
	every := member("every", append([]byte{'F'}, long(slices.Concat(member("a", []byte{'t', 1}), member("b", []byte{'s', 0, 1}), member("c", []byte{'D', 1, 0, 0, 0, 1}),
		member("d", append([]byte{'T'}, make([]byte, 8)...)), member("e", append([]byte{'x'}, long([]byte("x"))...)), member("f", append([]byte{'A'}, long([]byte{'V', 'V'})...))))...))
	for name, c := range map[string]struct{ in, want []byte }{
		"plain":         {headerFrame(own, other), headerFrame(own, other)},
		"every type":    {headerFrame(every, own), headerFrame(every, own)},
		"deep enough":   {headerFrame(member("d", tables(nestingMost)), own), headerFrame(member("d", tables(nestingMost)), own)},
		"too deep":      {headerFrame(own, member("d", tables(nestingMost+1)), other), headerFrame(own, other)},
		"deep arrays":   {headerFrame(own, member("d", arrays(5000)), other), headerFrame(own, other)},
		"two":           {headerFrame(member("d", tables(100)), own, member("e", arrays(100))), headerFrame(own)},
		"many elements": {headerFrame(own, member("d", append([]byte{'A'}, long(bytes.Repeat([]byte{'V'}, membersMost+1))...)), other), headerFrame(own, other)},
		"unknown type":  {headerFrame(own, member("d", []byte{'?', 1, 2}), other), headerFrame(own)},
		"cut off":       {headerFrame(own, member("d", []byte{'S', 0xff, 0, 0, 0})), headerFrame(own)},
		"no value":      {headerFrame(own, []byte{3, 'a'}), headerFrame(own)},
		"many members":  {headerFrame(bytes.Repeat(member("k", []byte{'V'}), membersMost+9)), headerFrame(bytes.Repeat(member("k", []byte{'V'}), membersMost))},
		"a body":        {frameOf(3, headerFrame(member("d", tables(100)))), frameOf(3, headerFrame(member("d", tables(100))))},
		"short":         {frameOf(frameOfHeaders, []byte{1}), frameOf(frameOfHeaders, []byte{1})},
		"protocol":      {[]byte("AMQP\x00\x00\x09\x01"), []byte("AMQP\x00\x00\x09\x01")},
	} {
		before, after := frameOf(1, []byte("method")), frameOf(8, nil)
		if name == "protocol" {
			before = nil
		}
		if got := through(t, slices.Concat(before, c.in, after)); !bytes.Equal(got, slices.Concat(before, c.want, after)) {
			t.Errorf("%s: passed\n%q\nwant\n%q", name, shortened(got), shortened(slices.Concat(before, c.want, after)))
		}
	}
}

func shortened(b []byte) string { return strings.ToValidUTF8(string(b[:min(len(b), 300)]), "?") }

// FuzzSieve has a broker send anything: what passes is stable, and no longer.
func FuzzSieve(f *testing.F) {
	f.Add(headerFrame(member("own", textField("x")), member("d", tables(40))))
	f.Add(headerFrame(member("a", arrays(40)), member("b", []byte{'?'})))
	f.Add(slices.Concat(frameOf(1, []byte("x")), headerFrame(), frameOf(3, nil)))
	f.Fuzz(func(t *testing.T, b []byte) {
		once := through(t, b)
		if len(once) > len(b) {
			t.Errorf("%d bytes became %d", len(b), len(once))
		}
		if twice := through(t, once); !bytes.Equal(once, twice) {
			t.Errorf("%q became %q, then %q", b, once, twice)
		}
	})
}
