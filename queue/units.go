package queue

import (
	"errors"
	"fmt"
	"math"
	"math/bits"
	"slices"
	"strconv"
	"strings"
	"time"
)

// maxSize is the largest accepted size in bytes: an exbibyte, so that sums of a few sizes fit an int64.
const maxSize = 1 << 60

// units are the spellings of a size, largest first within decimal and binary. KB is the one second spelling.
var units = []struct {
	name  string
	bytes int64
}{
	{"PB", 1e15}, {"TB", 1e12}, {"GB", 1e9}, {"MB", 1e6}, {"kB", 1e3}, {"KB", 1e3},
	{"PiB", 1 << 50}, {"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10},
	{"B", 1},
}

const (
	sizeRemedy     = `write a number of bytes, or a size such as "8GB" (decimal) or "512MiB" (binary)`
	durationRemedy = `write a duration such as "90s", "15m" or "2h30m", or a number of seconds`
)

// ParseSize reads a size: a number, possibly with a fraction, and a unit (B, kB or KB, MB, GB, TB, PB, KiB, MiB, GiB, TiB
// or PiB), or a whole number of bytes without a unit. The result is exact and in the range 0 to 1 EiB; a fraction of a
// byte is an error. The error is one sentence with the remedy.
func ParseSize(s string) (int64, error) {
	n, remedy := parseSize(s, true)
	if remedy != "" {
		return 0, fmt.Errorf("cannot read %s as a size: %s", quote(s), remedy)
	}
	return n, nil
}

// parseSize returns a size, or else what would be right. bare allows a number without a unit.
func parseSize(s string, bare bool) (n int64, remedy string) {
	number := s[:len(s)-len(strings.TrimLeft(s, "0123456789."))]
	unit := s[len(number):]
	if strings.HasPrefix(s, "-") {
		return 0, "a size must not be negative"
	}
	value, ok := parseDecimal(number)
	if !ok {
		return 0, sizeRemedy
	}
	if unit == "" {
		if !bare {
			return 0, fmt.Sprintf(`add the unit ("%[1]sB", "%[1]sMB", "%[1]sGB"), or write a number of bytes without quotes`, number)
		}
		unit = "B"
	}
	for _, u := range units {
		if u.name == unit {
			return value.bytes(u.bytes)
		}
	}
	return 0, unitRemedy(number, unit)
}

// unitRemedy guesses which unit was meant.
func unitRemedy(number, unit string) string {
	unit = strings.ToLower(strings.TrimSpace(unit))
	for _, u := range units {
		if strings.ToLower(u.name) == unit {
			return fmt.Sprintf("write %q", number+u.name)
		}
	}
	if unit == "" {
		return sizeRemedy
	}
	if strings.HasPrefix("bytes", unit) { //nolint:gocritic // the haystack is a constant
		return fmt.Sprintf("write %q", number+"B")
	}
	for _, prefix := range []string{"kilo", "mega", "giga", "tera", "peta"} {
		if unit[0] != prefix[0] || !isUnitWord(unit, prefix) {
			continue
		}
		decimal, binary := strings.ToUpper(unit[:1])+"B", strings.ToUpper(unit[:1])+"iB"
		if unit[0] == 'k' {
			decimal = "kB"
		}
		return fmt.Sprintf("write %q (decimal) or %q (binary)", number+decimal, number+binary)
	}
	return sizeRemedy
}

// isUnitWord recognises g, gi, gig, gigs, giga, gigabyte, gibibytes and the like.
func isUnitWord(unit, prefix string) bool {
	unit = strings.TrimSuffix(unit, "s")
	for _, ending := range []string{"byte", "bit", "b"} {
		if stem, ok := strings.CutSuffix(unit, ending); ok {
			unit = stem
			break
		}
	}
	return unit != "" && strings.HasPrefix(prefix, unit) || unit == prefix[:1]+"i" || unit == prefix[:2]+"bi"
}

// FormatSize writes a number of bytes for people, in a form that ParseSize reads. What a unit says with up to five digits
// and one decimal is exact ("8GB", "1.5GiB"); the rest is cut, never rounded up, to one decimal of a decimal unit.
func FormatSize(n int64) string {
	if n < 0 {
		return "-" + formatSize(uint64(-n)) // the least int64 is its own negative, which as a uint64 is right
	}
	return formatSize(uint64(n))
}

func formatSize(n uint64) string {
	best := ""
	for _, u := range units {
		unit := uint64(u.bytes)
		if n < unit || n/unit > 99999 || n%unit*10%unit != 0 {
			continue
		}
		if s := withUnit(n, unit, u.name); best == "" || len(s) < len(best) {
			best = s
		}
	}
	if best != "" {
		return best
	}
	for _, u := range units {
		if n >= uint64(u.bytes) {
			return withUnit(n, uint64(u.bytes), u.name)
		}
	}
	return "0B"
}

// withUnit writes n in the unit, cut to one decimal.
func withUnit(n, unit uint64, name string) string {
	s := strconv.FormatUint(n/unit, 10)
	if tenth := n % unit * 10 / unit; tenth > 0 {
		s += "." + strconv.FormatUint(tenth, 10)
	}
	return s + name
}

// ParseDuration reads a duration as Go writes it ("90s", "2h30m"), or a number of seconds. The range is 0 to MaxDuration.
// The error is one sentence with the remedy.
func ParseDuration(s string) (time.Duration, error) {
	d, remedy := parseDuration(s)
	if strings.Trim(s, "0123456789.") == "" {
		if seconds, err := strconv.ParseFloat(s, 64); err == nil || errors.Is(err, strconv.ErrRange) {
			d, remedy = secondsToDuration(seconds)
		}
	}
	if remedy != "" {
		return 0, fmt.Errorf("cannot read %s as a duration: %s", quote(s), remedy)
	}
	return d, nil
}

// parseDuration returns a duration with units, or else what would be right.
func parseDuration(s string) (d time.Duration, remedy string) {
	d, err := time.ParseDuration(s)
	switch {
	case err != nil && isDuration(s):
		return 0, tooLong // than Go can tell, too
	case err != nil:
		return 0, durationRemedy
	case d < 0:
		return 0, "a duration must not be negative"
	case d > MaxDuration:
		return 0, tooLong
	}
	return d, ""
}

// isDuration reports whether s is a list of numbers with units, however large.
func isDuration(s string) bool {
	if s == "" {
		return false
	}
	for s != "" {
		rest := strings.TrimLeft(s, "0123456789.")
		if _, err := strconv.ParseFloat(s[:len(s)-len(rest)], 64); err != nil && !errors.Is(err, strconv.ErrRange) {
			return false
		}
		unit := rest[:len(rest)-len(strings.TrimLeft(rest, "nuµμmsh"))]
		if !slices.Contains([]string{"ns", "us", "µs", "μs", "ms", "s", "m", "h"}, unit) {
			return false
		}
		s = rest[len(unit):]
	}
	return true
}

const tooLong = "the longest duration is 8760h, a year"

// secondsToDuration converts to the nearest nanosecond.
func secondsToDuration(seconds float64) (d time.Duration, remedy string) {
	switch {
	case math.IsNaN(seconds):
		return 0, durationRemedy
	case seconds < 0:
		return 0, "a duration must not be negative"
	case seconds > MaxDuration.Seconds():
		return 0, tooLong
	}
	return time.Duration(math.Round(seconds * 1e9)), ""
}

// decimal is the number coefficient / 10^scale.
type decimal struct {
	coefficient uint64
	scale       int
}

// parseDecimal reads digits with at most one point between them, at most 18 of them behind it.
func parseDecimal(s string) (d decimal, ok bool) {
	whole, fraction, point := strings.Cut(s, ".")
	if whole == "" || point && fraction == "" {
		return decimal{}, false
	}
	fraction = strings.TrimRight(fraction, "0")
	coefficient, err := strconv.ParseUint(whole+fraction, 10, 64)
	return decimal{coefficient, len(fraction)}, err == nil && len(fraction) <= 18
}

// bytes multiplies by a unit. What is not a whole number of bytes, or too many of them, it says is wrong.
func (d decimal) bytes(unit int64) (n int64, remedy string) {
	high, low := bits.Mul64(d.coefficient, uint64(unit))
	divisor := uint64(1)
	for range d.scale {
		divisor *= 10 // at most 10^18
	}
	if high >= divisor {
		return 0, tooLarge
	}
	quotient, remainder := bits.Div64(high, low, divisor)
	switch {
	case remainder != 0:
		return 0, "this is not a whole number of bytes"
	case quotient > maxSize:
		return 0, tooLarge
	}
	return int64(quotient), ""
}

const tooLarge = `the largest size is "1024PiB"`
