// Package plain takes from texts of workers, producers and brokers what a terminal would obey, or what would make them look like other texts
// than they are: control characters, escape sequences, and characters that turn the direction of writing.
package plain

import (
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

// shown stands for what is taken out.
const shown = '\uFFFD'

// hostile reports whether a terminal or an editor obeys a character instead of showing it. Line feed and tab are the caller's to judge.
func hostile(r rune) bool {
	switch {
	case r == '\n', r == '\t':
		return false
	case r < ' ', r >= 0x7f && r < 0xa0: // C0, DEL, C1
		return true
	case r == '\u061c', r == '\u200e', r == '\u200f', r >= '\u202a' && r <= '\u202e', r >= '\u2066' && r <= '\u2069': // they turn the direction
		return true
	case r == '\u2028', r == '\u2029': // other line ends
		return true
	}
	return false
}

// Text is s with nothing but what can be shown, lines and tabs.
func Text(s string) string {
	return strings.Map(func(r rune) rune {
		if hostile(r) {
			return shown
		}
		return r
	}, s)
}

// Line is s as one line.
func Line(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case hostile(r):
			return shown
		}
		return r
	}, s)
}

// Clean reports whether Text would leave s as it is.
func Clean(s string) bool { return utf8.ValidString(s) && !strings.ContainsFunc(s, hostile) }

// JSON writes in a JSON text by their numbers what Text takes out. It means the same.
func JSON(text []byte) []byte {
	if Clean(string(text)) {
		return text
	}
	const digits = "0123456789abcdef"
	out := make([]byte, 0, len(text)+64)
	for _, r := range string(text) { // what hostile finds in valid JSON stands in strings, and C0 is escaped already
		if !hostile(r) || r == '\r' {
			out = utf8.AppendRune(out, r)
			continue
		}
		out = append(out, '\\', 'u', digits[r>>12&15], digits[r>>8&15], digits[r>>4&15], digits[r&15])
	}
	return out
}

// Whole is how many bytes of a text that goes on are there with all of their character: all but the beginning of the last one, where its rest is still to come.
func Whole(text []byte) int {
	for n := 1; n < utf8.UTFMax && n <= len(text); n++ {
		if c := text[len(text)-n]; utf8.RuneStart(c) {
			if c >= utf8.RuneSelf && !utf8.FullRune(text[len(text)-n:]) {
				return len(text) - n
			}
			break
		}
	}
	return len(text)
}

// Writer passes on what Text leaves of what is written to it, which may come in pieces. The end of a line may be CR LF.
type Writer struct {
	w io.Writer
	// held is the beginning of a character, or CR, of which the rest has not come.
	held []byte
}

// NewWriter returns a writer to w.
func NewWriter(w io.Writer) *Writer { return &Writer{w: w} }

// Write implements io.Writer.
func (p *Writer) Write(b []byte) (int, error) {
	text := slices.Concat(p.held, b)
	end := len(text)
	if end > 0 && text[end-1] == '\r' {
		end--
	} else {
		end = Whole(text)
	}
	out := Text(strings.ReplaceAll(string(text[:end]), "\r\n", "\n"))
	p.held = append([]byte{}, text[end:]...)
	if _, err := io.WriteString(p.w, out); err != nil {
		return 0, err
	}
	return len(b), nil
}

// Flush writes what is held: half a character.
func (p *Writer) Flush() error {
	held := p.held
	p.held = nil
	if len(held) == 0 {
		return nil
	}
	_, err := io.WriteString(p.w, Text(string(held)))
	return err
}
