package queue

import "strings"

// What stands for what is not shown.
const (
	maskedValue = `"(hidden)"`
	maskedRest  = "… (hidden from here on: it is no JSON, and may hold values of environment)"
)

// Mask returns the body of a message as people may see it: without the values of its environment, which may be secrets. Of a body that is
// no JSON, all is left out from where these may begin.
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
	err := s.document(func() error {
		if s.kind() != "an object" {
			_, err := s.skip()
			return err
		}
		return s.object(func(name string) error {
			switch {
			case name != "environment":
				_, err := s.skip()
				return err
			case s.kind() != "an object":
				return hide()
			}
			return s.object(func(string) error { return hide() })
		})
	})
	if err == nil {
		return []byte(out.String() + s.text[from:])
	}
	shown, _, found := strings.Cut(s.text, `"environment"`)
	if !found {
		return body
	}
	return []byte(shown + maskedRest)
}
