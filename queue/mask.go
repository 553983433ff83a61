package queue

import (
	"strings"
	"unicode/utf8"
)

// What stands for what is not shown.
const (
	maskedValue = `"(hidden)"`
	maskedRest  = "… (hidden from here on: it is no JSON, and may hold values of environment)"
)

// Mask returns the body of a message as people may see it: without the values of its environment, which may be secrets, also where it is misspelt, or where the body is a list
// of tasks. Of a body that is no such JSON, all is left out from where these may begin.
func Mask(body []byte) []byte {
	s := scanner{text: string(body), lax: true}
	var out strings.Builder
	from := 0
	hide := func() error {
		s.space()
		out.WriteString(s.text[from:s.pos])
		out.WriteString(maskedValue)
		_, err := s.skip()
		from = s.pos
		return err
	}
	var mask func() error
	mask = func() error {
		switch s.kind() {
		case "an object":
			return s.object(func(name string) error {
				switch {
				case !likeEnvironment(name):
					_, err := s.skip()
					return err
				case s.kind() != "an object":
					return hide()
				}
				return s.object(func(string) error { return hide() })
			})
		case "an array":
			return s.array(func(int) error { return mask() })
		}
		if text, err := s.skip(); err != nil || s.depth > 0 || secretFrom(text) < 0 {
			return err
		}
		return errFound // the body is a string, which may hold a task
	}
	if s.document(mask) == nil {
		return []byte(out.String() + s.text[from:])
	}
	if from = secretFrom(s.text); from < 0 {
		return body
	}
	return []byte(s.text[:from] + maskedRest)
}

// likeEnvironment reports whether a field's name is environment, or may be meant to be.
func likeEnvironment(name string) bool {
	name = strings.ToLower(name)
	_, alike := compare(name, "environment")
	return alike || strings.HasPrefix(name, "env")
}

// secretFrom returns where the values of an environment may begin in a text of which the form is not known, or -1: the name may be misspelt, quoted in any way, or
// written with escapes, which all begin with \u00 where they stand for its letters. In a text that is not UTF-8, or has a NUL, they may begin anywhere: it may be UTF-16, as programs
// on Windows write it, where no name is found by its bytes.
func secretFrom(text string) int {
	if !utf8.ValidString(text) || strings.Contains(text, "\x00") {
		return 0
	}
	for i := range len(text) {
		if rest := text[i:]; strings.HasPrefix(rest, `\u00`) || len(rest) >= 3 && strings.EqualFold(rest[:3], "env") {
			if i > 0 && text[i-1] == '"' {
				i--
			}
			return i
		}
	}
	return -1
}
