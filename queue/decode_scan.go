package queue

import "fmt"

// scanner reads one JSON text (RFC 8259) from front to back, once. It is our own because encoding/json matches names
// whatever their case, keeps the last of two equal names, and replaces halves of surrogate pairs: three ways in which a
// task could silently become another one. A fuzz test holds it to encoding/json in everything else.
type scanner struct {
	text  string // valid UTF-8, except under PeekID
	pos   int
	depth int
	// lax leaves out the search for duplicate names.
	lax bool
}

// malformed says that the text is not the JSON that we accept. It becomes a Refusal of the whole body.
type malformed struct {
	what string
	pos  int
}

// Error returns the sentence that ends the remedy of the Refusal.
func (e *malformed) Error() string { return fmt.Sprintf("%s at byte %d", e.what, e.pos+1) }

func (s *scanner) malformed(what string) error { return &malformed{what, s.pos} }

// kind skips white space and names what the next value is by its first byte: "an object", "a number", and so on; empty
// when no value begins here.
func (s *scanner) kind() string {
	s.space()
	switch c := s.peek(); {
	case c == '{':
		return "an object"
	case c == '[':
		return "an array"
	case c == '"':
		return "a string"
	case c == '-' || '0' <= c && c <= '9':
		return "a number"
	case c == 't' || c == 'f':
		return "a boolean"
	case c == 'n':
		return "null"
	}
	return ""
}

// peek returns the next byte, or 0 at the end: no JSON text holds a 0 outside of a string's escapes.
func (s *scanner) peek() byte {
	if s.pos < len(s.text) {
		return s.text[s.pos]
	}
	return 0
}

func (s *scanner) space() {
	for s.pos < len(s.text) {
		switch s.text[s.pos] {
		case ' ', '\t', '\n', '\r':
			s.pos++
		default:
			return
		}
	}
}

// object reads an object and calls visit at the beginning of each member's value, which visit must read. The name goes
// into the path of what visit refuses.
func (s *scanner) object(visit func(name string) error) error {
	if err := s.enter(); err != nil {
		return err
	}
	s.space()
	if s.peek() == '}' {
		return s.leave()
	}
	var seen nameSet
	for {
		s.space()
		if s.peek() != '"' {
			return s.malformed("a name in double quotes was expected")
		}
		name, err := s.str()
		if err != nil {
			return err
		}
		if !s.lax && !seen.add(name) {
			return at(name, &Refusal{Remedy: "given twice; give it once"})
		}
		s.space()
		if s.peek() != ':' {
			return s.malformed("a colon was expected")
		}
		s.pos++
		s.space()
		if err := visit(name); err != nil {
			return at(name, err)
		}
		s.space()
		switch s.peek() {
		case ',':
			s.pos++
		case '}':
			return s.leave()
		default:
			return s.malformed("a comma or a closing brace was expected")
		}
	}
}

// array reads an array and calls visit at the beginning of each element, which visit must read.
func (s *scanner) array(visit func(index int) error) error {
	if err := s.enter(); err != nil {
		return err
	}
	s.space()
	if s.peek() == ']' {
		return s.leave()
	}
	for i := 0; ; i++ {
		s.space()
		if err := visit(i); err != nil {
			return atIndex(i, err)
		}
		s.space()
		switch s.peek() {
		case ',':
			s.pos++
		case ']':
			return s.leave()
		default:
			return s.malformed("a comma or a closing bracket was expected")
		}
	}
}

func (s *scanner) enter() error {
	if s.depth == MaxDepth {
		return s.malformed(fmt.Sprintf("arrays and objects nested deeper than %d begin", MaxDepth))
	}
	s.depth++
	s.pos++
	return nil
}

func (s *scanner) leave() error {
	s.depth--
	s.pos++
	return nil
}

// TooDeep reports whether a valid JSON text nests arrays and objects deeper than MaxDepth. What others put into documents of ours must leave room for these:
// encoding/json reads no more than 10,000 levels, and a text of so many could be read alone, but not as a part of anything.
func TooDeep(text []byte) bool {
	s := scanner{text: string(text)}
	var err error
	for s.pos < len(s.text) && err == nil {
		switch s.peek() {
		case '[', '{':
			if s.enter() != nil {
				return true
			}
		case ']', '}':
			err = s.leave()
		case '"':
			_, err = s.quoted()
		default:
			s.pos++
		}
	}
	return false
}

// skip reads any value and returns its text.
func (s *scanner) skip() (string, error) {
	kind := s.kind()
	start := s.pos
	var err error
	switch kind {
	case "an object":
		err = s.object(func(string) error { _, err := s.skip(); return err })
	case "an array":
		err = s.array(func(int) error { _, err := s.skip(); return err })
	case "a string":
		_, err = s.quoted()
	case "a number":
		_, err = s.number()
	case "a boolean":
		_, err = s.boolean()
	case "null":
		err = s.literal("null")
	default:
		err = s.malformed("a value was expected")
	}
	return s.text[start:s.pos], err
}

func (s *scanner) literal(word string) error {
	if len(s.text)-s.pos < len(word) || s.text[s.pos:s.pos+len(word)] != word {
		return s.malformed("a value was expected")
	}
	s.pos += len(word)
	return nil
}

func (s *scanner) boolean() (bool, error) {
	if s.peek() == 't' {
		return true, s.literal("true")
	}
	return false, s.literal("false")
}

// number reads a number and returns its text, which has the grammar of RFC 8259.
func (s *scanner) number() (string, error) {
	start := s.pos
	if s.peek() == '-' {
		s.pos++
	}
	if s.peek() == '0' {
		s.pos++
	} else if !s.digits() {
		return "", s.malformed("a digit was expected")
	}
	if s.peek() == '.' {
		s.pos++
		if !s.digits() {
			return "", s.malformed("a digit was expected")
		}
	}
	if c := s.peek(); c == 'e' || c == 'E' {
		s.pos++
		if c := s.peek(); c == '+' || c == '-' {
			s.pos++
		}
		if !s.digits() {
			return "", s.malformed("a digit was expected")
		}
	}
	return s.text[start:s.pos], nil
}

func (s *scanner) digits() bool {
	start := s.pos
	for '0' <= s.peek() && s.peek() <= '9' {
		s.pos++
	}
	return s.pos > start
}

// nameSet holds the names of one object: the few of an ordinary one on the stack, those of a hostile one in a map.
type nameSet struct {
	few  [8]string
	n    int
	many map[string]struct{}
}

// add reports whether name is new.
func (s *nameSet) add(name string) bool {
	if s.many == nil {
		for _, old := range s.few[:s.n] {
			if old == name {
				return false
			}
		}
		if s.n < len(s.few) {
			s.few[s.n] = name
			s.n++
			return true
		}
		s.many = make(map[string]struct{}, 4*len(s.few))
		for _, old := range s.few {
			s.many[old] = struct{}{}
		}
	}
	before := len(s.many)
	s.many[name] = struct{}{}
	return len(s.many) > before
}
