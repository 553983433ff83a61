package queue

import (
	"unicode/utf16"
	"unicode/utf8"
)

// str reads a string. One without escapes costs nothing: it is a piece of the text.
func (s *scanner) str() (string, error) {
	start := s.pos
	escaped, err := s.quoted()
	if err != nil {
		return "", err
	}
	inside := s.text[start+1 : s.pos-1]
	if !escaped {
		return inside, nil
	}
	plain, half := unescape(inside)
	if half >= 0 {
		s.pos = start + 1 + half
		return "", s.malformed(`half of a surrogate pair, which is no character, was written`)
	}
	return plain, nil
}

// quoted passes over a string, checks its grammar and reports whether it holds escapes.
func (s *scanner) quoted() (escaped bool, err error) {
	s.pos++
	for s.pos < len(s.text) {
		switch c := s.text[s.pos]; {
		case c == '"':
			s.pos++
			return escaped, nil
		case c == '\\':
			escaped = true
			n := escapeLen(s.text[s.pos:])
			if n == 0 {
				return false, s.malformed("an unknown escape was written")
			}
			s.pos += n
		case c < ' ':
			return false, s.malformed("a control character was written without an escape")
		default:
			s.pos++
		}
	}
	return false, s.malformed("a closing quote was expected")
}

// escapeLen returns the length of the escape with which text begins, or 0 where it is none.
func escapeLen(text string) int {
	if len(text) < 2 {
		return 0
	}
	switch text[1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 2
	case 'u':
		if hex4(text) >= 0 {
			return 6
		}
	}
	return 0
}

// hex4 returns the code unit of the \uXXXX with which text begins, or -1 where it begins otherwise.
func hex4(text string) rune {
	if len(text) < 6 || text[0] != '\\' || text[1] != 'u' {
		return -1
	}
	var r rune
	for _, c := range []byte(text[2:6]) {
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		case 'A' <= c && c <= 'F':
			c -= 'A' - 10
		default:
			return -1
		}
		r = r<<4 | rune(c)
	}
	return r
}

// unescape resolves the escapes of a string whose grammar was checked. half is the offset of a surrogate without its
// other half, or -1.
func unescape(inside string) (plain string, half int) {
	buffer := make([]byte, 0, len(inside)) // an escape is never shorter than what it stands for
	for i := 0; i < len(inside); {
		c := inside[i]
		if c != '\\' {
			buffer = append(buffer, c)
			i++
			continue
		}
		switch c := inside[i+1]; c {
		case 'b':
			buffer = append(buffer, '\b')
		case 'f':
			buffer = append(buffer, '\f')
		case 'n':
			buffer = append(buffer, '\n')
		case 'r':
			buffer = append(buffer, '\r')
		case 't':
			buffer = append(buffer, '\t')
		case 'u':
			r := hex4(inside[i:])
			if utf16.IsSurrogate(r) {
				r = utf16.DecodeRune(r, hex4(inside[i+6:]))
				if r == utf8.RuneError {
					return "", i
				}
				i += 6
			}
			buffer = utf8.AppendRune(buffer, r)
			i += 4
		default:
			buffer = append(buffer, c)
		}
		i += 2
	}
	return string(buffer), -1
}
