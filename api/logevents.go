package api

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/mayfly/mayfly/manager"
)

const (
	// logTail is how much of a stream that is there already is sent as events, unless the client says.
	logTail = 256 << 10
	// logPiece is the most that one event brings.
	logPiece = 64 << 10
)

// Piece is output that came: text from an offset of a stream on. What is no UTF-8 is replaced.
type Piece struct {
	Stream  string `json:"stream"`
	Attempt int    `json:"attempt"`
	Offset  int64  `json:"offset"`
	Text    string `json:"text"`
}

// LogEnd says that nothing more comes of an attempt.
type LogEnd struct {
	Attempt int `json:"attempt"`
}

// logStream is one stream as it is sent.
type logStream struct {
	outputFile
	name string
	// half is the beginning of a character of which the rest has not come.
	half   []byte
	buffer []byte
}

// logEvents sends the streams of an attempt as events, until it has ended. A client that comes back says where it was by Last-Event-ID:
// "<attempt> <offset of stdout> <offset of stderr>".
func (s *Server) logEvents(w http.ResponseWriter, r *http.Request, l logRequest, only string, out manager.Output) error {
	streams := []*logStream{{name: stdout, outputFile: outputFile{path: out.Stdout}}, {name: stderr, outputFile: outputFile{path: out.Stderr}}}
	from := []int{l.offset, l.offset}
	var attempt, o, e int
	if n, err := fmt.Sscanf(r.Header.Get("Last-Event-ID"), "%d %d %d", &attempt, &o, &e); err == nil && n == 3 && attempt == out.Attempt && o >= 0 && e >= 0 {
		from, l.tail = []int{o, e}, -1
	} else if l.tail < 0 && l.offset < 0 {
		l.tail = logTail
	}
	events := newStream(w)
	for _, f := range streams {
		defer f.close()
	}
	for {
		there := out.Live || out.Kept
		for i, f := range streams {
			if only != "" && only != f.name {
				continue
			}
			err := f.open(l.tail, from[i], there)
			if err != nil && !errors.Is(err, errNotThere) {
				return l.cannot(err, out)
			}
			there = there || f.f != nil
		}
		for _, f := range streams { // when both are open: each event says where both are
			if f.f != nil && !f.send(events, streams, out.Attempt, !out.Live) {
				return nil
			}
		}
		if !there {
			return l.cannot(errNotThere, out)
		}
		if !events.flush() {
			return nil
		}
		if !out.Live || !l.follow {
			events.send("end", "", LogEnd{out.Attempt})
			return nil
		}
		if !wait(r, followPause) {
			return nil
		}
		out = s.goesOn(r, l, out)
	}
}

// send sends what has come; at the last it sends half a character, too. It reports whether the client still listens.
func (f *logStream) send(events *stream, all []*logStream, attempt int, last bool) bool {
	if f.buffer == nil {
		f.buffer = make([]byte, logPiece)
	}
	for {
		n, err := io.ReadFull(f.f, f.buffer)
		more := err == nil
		text := slices.Concat(f.half, f.buffer[:n])
		f.half = nil
		if more || !last {
			whole := len(text) - incomplete(text)
			text, f.half = text[:whole], text[whole:]
		}
		if len(text) > 0 {
			piece := Piece{f.name, attempt, f.at, strings.ToValidUTF8(string(text), "\uFFFD")}
			f.at += int64(len(text))
			if !events.send("output", fmt.Sprintf("%d %d %d", attempt, all[0].at, all[1].at), piece) {
				return false
			}
		}
		if !more {
			return true
		}
	}
}

// incomplete is how many bytes at the end of a text begin a character that is not complete.
func incomplete(text []byte) int {
	for n := 1; n < utf8.UTFMax && n <= len(text); n++ {
		if b := text[len(text)-n]; utf8.RuneStart(b) {
			if b >= utf8.RuneSelf && !utf8.FullRune(text[len(text)-n:]) {
				return n
			}
			return 0
		}
	}
	return 0
}
