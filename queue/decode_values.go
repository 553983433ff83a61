package queue

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// Limits of values. All of them are ours unless a source is named.
const (
	// minCPU is a thousandth of a core, the finest share that schedulers commonly know.
	minCPU = 0.001
	maxCPU = 65536
	// minMemory is what the smallest program needs to start. It also catches a number that was meant in MB or GB.
	minMemory = 1 << 20
	maxGPU    = 1024
	// maxPIDs is the most that Linux can count (PID_MAX_LIMIT).
	maxPIDs = 4 << 20
	// maxArgument is the longest single argument or variable that Linux passes to a program, its NUL left out
	// (MAX_ARG_STRLEN).
	maxArgument     = 128<<10 - 1
	maxAlternatives = 16
	// maxLabels and maxLabel bound what a host remembers of each task and shows in lists: how many labels, and the bytes of a value.
	maxLabels = 64
	maxLabel  = 1024
	// maxUnits is the longest string in which a size or a duration is looked for.
	maxUnits = 64
)

// expect refuses a value of any kind but the given one.
func (s *scanner) expect(kind, wanted string) error {
	found := s.kind()
	if found == kind {
		return nil
	}
	text, err := s.skip()
	if err != nil {
		return err
	}
	return refuse(text, "must be %s, not %s", wanted, found)
}

// given reads a string and returns it with its text in the document.
func (s *scanner) given() (value, text string, err error) {
	if err := s.expect("a string", "a string"); err != nil {
		return "", "", err
	}
	start := s.pos
	value, err = s.str()
	return value, s.text[start:s.pos], err
}

// anyString reads a string.
func (s *scanner) anyString(into *string) error {
	value, _, err := s.given()
	*into = value
	return err
}

// word reads a string of a certain form.
func (s *scanner) word(into *string, valid func(string) bool, remedy string) error {
	value, text, err := s.given()
	if err != nil {
		return err
	}
	if !valid(value) {
		return refuse(text, "%s", remedy)
	}
	*into = value
	return nil
}

// passed reads a string that is handed to a program together with so many bytes more.
func (s *scanner) passed(into *string, more int) error {
	value, text, err := s.given()
	switch {
	case err != nil:
		return err
	case strings.IndexByte(value, 0) >= 0:
		return refuse(text, "must not hold a NUL character")
	case len(value)+more > maxArgument:
		return refuse(text, "has %d bytes, and Linux hands a program no more than %d in one piece; use stdin",
			len(value)+more, maxArgument)
	}
	*into = value
	return nil
}

// program reads a string that is passed and says what to run.
func (s *scanner) program(into *string) error {
	err := s.passed(into, 0)
	if err == nil && *into == "" {
		return refuse(`""`, "must not be empty")
	}
	return err
}

func (s *scanner) command(into *[]string) error {
	if err := s.expect("an array", `an array such as ["python3", "sim.py"] (a line of shell belongs in shell)`); err != nil {
		return err
	}
	start := s.pos
	var args []string
	err := s.array(func(i int) error {
		args = append(args, "")
		if i == 0 {
			return s.program(&args[i])
		}
		return s.passed(&args[i], 0)
	})
	if err == nil && args == nil {
		return refuse(s.text[start:s.pos], "must name a program to run")
	}
	*into = args
	return err
}

// environment reads variables. Their values may be secrets: no refusal shows one.
func (s *scanner) environment(into *map[string]string) error {
	if err := s.expect("an object", "a JSON object of strings"); err != nil {
		return withoutValue(err)
	}
	return s.pairs(into, func(name string) (string, error) {
		switch {
		case name == "" || strings.ContainsAny(name, "=\x00"):
			return "", refuse("", "the name of a variable must not be empty and must not hold = or NUL")
		case strings.HasPrefix(name, "MAYFLY_"):
			return "", refuse("", "names that begin with MAYFLY_ are ours; choose another")
		}
		var value string
		err := s.passed(&value, len(name)+len("="))
		return value, withoutValue(err)
	})
}

// withoutValue takes from a refusal the value that it shows.
func withoutValue(err error) error {
	if r := (*Refusal)(nil); errors.As(err, &r) {
		r.Value = ""
	}
	return err
}

func (s *scanner) labels(into *map[string]string) error {
	n := 0
	return s.pairs(into, func(name string) (string, error) {
		if n++; n > maxLabels {
			return "", refuse("", "at most %d labels are accepted", maxLabels)
		}
		if !validName(name) {
			return "", refuse("", "the name of a label %s", nameRemedy)
		}
		value, text, err := s.given()
		if err == nil && len(value) > maxLabel {
			return "", refuse(text, "has %d bytes; the value of a label has at most %d", len(value), maxLabel)
		}
		return value, err
	})
}

// pairs reads an object of strings.
func (s *scanner) pairs(into *map[string]string, value func(name string) (string, error)) error {
	if err := s.expect("an object", "a JSON object of strings"); err != nil {
		return err
	}
	pairs := make(map[string]string)
	*into = pairs
	return s.object(func(name string) (err error) {
		pairs[name], err = value(name)
		return err
	})
}

// raw reads any value and keeps a copy of its text.
func (s *scanner) raw(into *json.RawMessage) error {
	text, err := s.skip()
	*into = json.RawMessage(text)
	return err
}

func (s *scanner) alternatives(into *[]Resources) error {
	if err := s.expect("an array", "an array of JSON objects"); err != nil {
		return err
	}
	return s.array(func(i int) error {
		if i == maxAlternatives {
			return refuse("", "at most %d alternatives are accepted", maxAlternatives)
		}
		var r Resources
		err := readRecord(s, &r, resourceFields)
		*into = append(*into, r)
		return err
	})
}

func (s *scanner) gpus(r *Resources) error {
	err := s.integer(&r.GPU, 0, maxGPU)
	r.NoGPU = err == nil && r.GPU == 0
	return err
}

func (s *scanner) flag(into **bool) error {
	if err := s.expect("a boolean", "true or false"); err != nil {
		return err
	}
	value, err := s.boolean()
	*into = &value
	return err
}

// integer reads a whole number, which may be written with a fraction of zero or an exponent, as some encoders do.
func (s *scanner) integer(into *int, least, most int) error {
	wanted := fmt.Sprintf("a whole number from %d to %d", least, most)
	if err := s.expect("a number", wanted); err != nil {
		return err
	}
	text, err := s.number()
	if err != nil {
		return err
	}
	n, ok := wholeNumber(text)
	if !ok || n < int64(least) || n > int64(most) {
		return refuse(text, "must be %s", wanted)
	}
	*into = int(n)
	return nil
}

// wholeNumber returns the value of a JSON number that is an integer of at most 2^53, up to which all encoders are exact,
// or else is written without fraction and exponent.
func wholeNumber(text string) (int64, bool) {
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		return n, true
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || f != math.Trunc(f) || math.Abs(f) > 1<<53 {
		return 0, false
	}
	return int64(f), true
}

func (s *scanner) cores(into *float64) error {
	wanted := fmt.Sprintf("a number of cores from %v to %v", minCPU, maxCPU)
	if err := s.expect("a number", wanted); err != nil {
		return err
	}
	text, err := s.number()
	if err != nil {
		return err
	}
	n, err := strconv.ParseFloat(text, 64)
	if err != nil || n < minCPU || n > maxCPU {
		return refuse(text, "must be %s", wanted)
	}
	*into = n
	return nil
}

// size reads a number of bytes, or a string that is a number with a unit.
func (s *scanner) size(into *int64, least int64) (err error) {
	var text, remedy string
	var n int64
	switch s.kind() {
	case "a number":
		if text, err = s.number(); err != nil {
			return err
		}
		var whole bool
		switch n, whole = wholeNumber(text); {
		case strings.HasPrefix(text, "-"):
			remedy = "a size must not be negative"
		case !whole:
			remedy = "this is not a whole number of bytes, or too many of them"
		case n > maxSize:
			remedy = tooLarge
		}
	case "a string":
		var value string
		if value, text, err = s.given(); err != nil {
			return err
		}
		if remedy = sizeRemedy; len(value) <= maxUnits {
			n, remedy = parseSize(value, false)
		}
	default:
		return s.expect("a number", `a number of bytes or a size such as "8GB"`)
	}
	if remedy == "" && n < least {
		remedy = fmt.Sprintf("must be at least %s (a plain number counts bytes)", formatSize(uint64(least)))
	}
	if remedy != "" {
		return refuse(text, "%s", remedy)
	}
	*into = n
	return nil
}

// duration reads a number of seconds, or a string as Go writes durations.
func (s *scanner) duration(into *time.Duration, least time.Duration) (err error) {
	var text, remedy string
	var d time.Duration
	switch s.kind() {
	case "a number":
		if text, err = s.number(); err != nil {
			return err
		}
		seconds, _ := strconv.ParseFloat(text, 64) // out of range: infinite, and so too long
		d, remedy = secondsToDuration(seconds)
	case "a string":
		var value string
		if value, text, err = s.given(); err != nil {
			return err
		}
		if remedy = durationRemedy; len(value) <= maxUnits {
			d, remedy = parseDuration(value)
		}
	default:
		return s.expect("a number", `a duration such as "90s" or a number of seconds`)
	}
	if remedy == "" && d < least {
		remedy = "must be more than 0"
	}
	if remedy != "" {
		return refuse(text, "%s", remedy)
	}
	*into = d
	return nil
}

func (s *scanner) instant(into *time.Time) error {
	if err := s.expect("a string", "a time such as "+instantExample); err != nil {
		return err
	}
	value, text, err := s.given()
	if err != nil {
		return err
	}
	t, err := time.Parse(time.RFC3339, value)
	// time.Parse also takes an hour of one digit and a comma before the fraction, which RFC 3339 does not.
	if err != nil || value[len("2026-12-01T00")] != ':' || strings.Contains(value, ",") || t.Year() < 1970 {
		return refuse(text, "must be a time of RFC 3339 since 1970, such as "+instantExample)
	}
	*into = t
	return nil
}

const instantExample = "2026-12-01T00:00:00Z"

// printable reports whether s is fit for a line of a log or a terminal.
func printable(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) < 0
}
