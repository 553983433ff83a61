package queue

import (
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/oklog/ulid/v2"
)

// Decode turns a message into a task. It is strict and exact: what it does not refuse is what the producer wrote, and
// nothing that the producer wrote was passed over. Where a field is optional, null means that it is absent. The error is
// always a *Refusal. The time taken is linear in the length of the body.
//
// The id is that of the body, else the message id, else a new ULID. The pool is the message's, else that of the body, else
// DefaultPool.
func Decode(m Message) (Task, error) {
	t := Task{Grace: -1, Backoff: -1, Priority: DefaultPriority, NoPriority: true}
	if err := readDocument(m.Body, &t, taskFields); err != nil {
		return Task{}, err
	}
	if err := checkProgram(&t); err != nil {
		return Task{}, err
	}
	if t.Params != nil && t.Stdin != "" {
		return Task{}, &Refusal{Field: "stdin", Value: quote(t.Stdin),
			Remedy: "given together with params, and both feed standard input; give one of them"}
	}
	if t.ID == "" && m.MessageID != "" {
		if !ValidID(m.MessageID) {
			return Task{}, &Refusal{Field: "message_id", Value: quote(m.MessageID), Remedy: idRemedy}
		}
		t.ID = m.MessageID
	}
	if t.ID == "" {
		t.ID = newID()
	}
	switch {
	case m.Pool != "" && t.Pool != "" && m.Pool != t.Pool:
		return Task{}, &Refusal{Field: "pool", Value: quote(t.Pool), Remedy: fmt.Sprintf(
			"the message came through pool %s; leave the field out, or publish with routing key %s", quote(m.Pool), quote(t.Pool))}
	case m.Pool != "":
		t.Pool = m.Pool
	case t.Pool == "":
		t.Pool = DefaultPool
	}
	return t, nil
}

// checkProgram refuses a task that does not say exactly once what to run.
func checkProgram(t *Task) error {
	given := make([]string, 0, 3)
	value := ""
	if t.Command != nil {
		given = append(given, "command")
	}
	if t.Shell != "" {
		given, value = append(given, "shell"), t.Shell
	}
	if t.Type != "" {
		given, value = append(given, "type"), t.Type
	}
	switch len(given) {
	case 0:
		return &Refusal{Field: "command", Remedy: "missing; give exactly one of command, shell and type"}
	case 1:
		return nil
	}
	last := len(given) - 1
	return &Refusal{Field: given[last], Value: quote(value), Remedy: fmt.Sprintf(
		"given together with %s; give exactly one of command, shell and type", enumerate(given[:last]))}
}

// readDocument reads a body that is one object with the given fields. The error is a *Refusal.
func readDocument[T any](body []byte, into *T, fields []field[T]) error {
	if len(body) > MaxBody {
		return &Refusal{Field: "body", Remedy: fmt.Sprintf(
			"has %d bytes; at most %d (16MiB) are accepted, so send a reference to large data", len(body), MaxBody)}
	}
	if !utf8.Valid(body) {
		i := invalidUTF8(body)
		return &Refusal{Field: "body", Remedy: fmt.Sprintf("must be UTF-8; byte %d is 0x%02x", i+1, body[i])}
	}
	s := scanner{text: string(body)} // one copy: the task's strings are pieces of it, and the caller keeps the body
	err := s.document(func() error { return readRecord(&s, into, fields) })
	if bad := (*malformed)(nil); errors.As(err, &bad) {
		shown := ""
		if secretFrom(s.text) < 0 { // where they end is not known
			shown = around(s.text, bad.pos)
		}
		return &Refusal{Field: "body", Value: shown, Remedy: "must be one JSON object, but " + bad.Error()}
	}
	if r := (*Refusal)(nil); errors.As(err, &r) {
		if r.Field == "" {
			r.Field = "body"
			if secretFrom(s.text) >= 0 { // a list of tasks, say, or a task as a string
				r.Value = ""
			}
		}
		r.Field = cutPath(r.Field)
	}
	return err
}

// document reads the whole text with read, which must read one value.
func (s *scanner) document(read func() error) error {
	if strings.HasPrefix(s.text, "\ufeff") {
		return s.malformed("a byte order mark stands")
	}
	if s.space(); s.pos == len(s.text) {
		return &Refusal{Remedy: `empty; send a JSON object such as {"command": ["true"]}`}
	}
	if err := read(); err != nil {
		return err
	}
	if s.space(); s.pos < len(s.text) {
		return s.malformed("more text follows its end")
	}
	return nil
}

// PeekID returns an id for a message that Decode refuses: the one that was given, else a new ULID.
func PeekID(m Message) string {
	if id := GivenID(m); id != "" {
		return id
	}
	return newID()
}

// GivenID returns the id that the producer gave: that of the body where it can be found and is valid, else a valid message id, else nothing. It stops at the
// first id, so that it works on a body that is malformed behind it.
func GivenID(m Message) string {
	if len(m.Body) <= MaxBody {
		if id := peekID(string(m.Body)); id != "" {
			return id
		}
	}
	if ValidID(m.MessageID) {
		return m.MessageID
	}
	return ""
}

func peekID(body string) (id string) {
	s := scanner{text: body, lax: true}
	if s.kind() != "an object" {
		return ""
	}
	_ = s.object(func(name string) error {
		if name == "id" && s.peek() == '"' {
			given, err := s.str()
			if err == nil && ValidID(given) {
				id = given
			}
			return errFound
		}
		_, err := s.skip()
		return err
	})
	return id
}

// errFound ends a walk.
var errFound = errors.New("found")

// newID returns a ULID whose random part nobody can guess, so that two hosts never agree on one.
func newID() string { return ulid.MustNew(ulid.Now(), rand.Reader).String() }

// invalidUTF8 returns the offset of the first byte that is not UTF-8.
func invalidUTF8(body []byte) int {
	i := 0
	for i < len(body) {
		r, size := utf8.DecodeRune(body[i:])
		if r == utf8.RuneError && size == 1 {
			break
		}
		i += size
	}
	return i
}

// cutPath keeps the end of a path that is too long to show.
func cutPath(path string) string {
	if len(path) <= maxPath {
		return path
	}
	return "…" + strings.ToValidUTF8(path[len(path)-maxPath:], "")
}
