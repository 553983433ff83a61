package queue

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

const (
	// maxShown is the number of runes of a value that a refusal shows.
	maxShown = 60
	// maxPath is the number of bytes of a field's path that a refusal shows.
	maxPath = 240
)

// refuse begins a refusal of a value, given as it stands in the document. Its path grows as the error travels up.
func refuse(text, format string, args ...any) error {
	return &Refusal{Value: shorten(text), Remedy: fmt.Sprintf(format, args...)}
}

// at puts a member's name before the path of a refusal.
func at(name string, err error) error {
	r := (*Refusal)(nil)
	if !errors.As(err, &r) {
		return err
	}
	name = shownName(name)
	switch {
	case r.Field == "":
		r.Field = name
	case r.Field[0] == '[':
		r.Field = name + r.Field
	default:
		r.Field = name + "." + r.Field
	}
	return err
}

// atIndex puts an element's index before the path of a refusal.
func atIndex(i int, err error) error { return at("["+strconv.Itoa(i)+"]", err) }

// shownName leaves a name of letters, digits and the like as it is, and quotes any other.
func shownName(name string) string {
	if name == "" || len(name) > maxShown {
		return quote(name)
	}
	for _, c := range []byte(name) {
		if c <= ' ' || c > '~' || c == '"' {
			return quote(name)
		}
	}
	return name
}

// quote shows a string that does not stand in the document as it is, shortened.
func quote(s string) string {
	if short := firstRunes(s); len(short) < len(s) {
		return strconv.Quote(short + "…")
	}
	return strconv.Quote(s)
}

// shorten makes a piece of a JSON text fit for one line of a log: its first runes, all of them printable.
func shorten(text string) string {
	short := firstRunes(text)
	var b strings.Builder
	for _, r := range short {
		switch {
		case strconv.IsPrint(r) && r != utf8.RuneError:
			b.WriteRune(r)
		case r == '\n' || r == '\r' || r == '\t':
			b.WriteByte(' ')
		default:
			escaped := strconv.QuoteRuneToASCII(r)
			b.WriteString(escaped[1 : len(escaped)-1])
		}
	}
	if len(short) < len(text) {
		b.WriteString("…")
		if text[0] == '"' {
			b.WriteByte('"') // a string
		}
	}
	return b.String()
}

// around shows the text at pos with a little of what stands before it.
func around(text string, pos int) string {
	start := max(0, pos-maxShown/2)
	for start > 0 && !utf8.RuneStart(text[start]) {
		start--
	}
	if start == 0 {
		return shorten(text)
	}
	return "…" + shorten(text[start:])
}

// firstRunes returns the beginning of s, at most maxShown runes, without reading the rest.
func firstRunes(s string) string {
	end := 0
	for range maxShown {
		if end == len(s) {
			break
		}
		_, size := utf8.DecodeRuneInString(s[end:])
		end += size
	}
	return s[:end]
}

// unknown refuses a name that none of the known ones is, and suggests what was probably meant.
func unknown(name string, known []string) error {
	meant, least := "", 0
	for _, k := range known {
		if n, alike := compare(strings.ToLower(name), k); alike && (meant == "" || n < least) {
			meant, least = k, n
		}
	}
	if meant != "" {
		return &Refusal{Remedy: fmt.Sprintf("this field is unknown; did you mean %s?", meant)}
	}
	return &Refusal{Remedy: "this field is unknown; the fields here are " + enumerate(known)}
}

// enumerate writes "a, b and c".
func enumerate(names []string) string {
	if len(names) < 2 {
		return strings.Join(names, "")
	}
	last := len(names) - 1
	return strings.Join(names[:last], ", ") + " and " + names[last]
}

var separators = strings.NewReplacer("-", "", "_", "", " ", "")

// compare counts the slips of the keyboard between name and a known one, and reports whether they are alike: the one
// begins with the other ("mem", "timeouts"), or there is no more than one slip in four letters.
func compare(name, known string) (n int, alike bool) {
	if len(name) < 2 || len(name) > 2*len(known) {
		return 0, false
	}
	name, known = separators.Replace(name), separators.Replace(known)
	n = slips(name, known)
	begins := len(name) > 2 && (strings.HasPrefix(known, name) || strings.HasPrefix(name, known))
	return n, begins || n <= max(1, len(known)/4)
}

// slips counts the letters to add, drop, change or swap with a neighbour to make b of a (Damerau-Levenshtein distance,
// optimal string alignment).
func slips(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			change := last[j-1]
			if a[i-1] != b[j-1] {
				change++
			}
			row[j] = min(change, last[j]+1, row[j-1]+1)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
