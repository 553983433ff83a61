package queue

import (
	"math"
	"strings"
	"testing"
	"time"
)

func TestParseSize(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		text string
		want int64
	}{
		{"0", 0}, {"1024", 1024}, {"512B", 512}, {"1kB", 1e3}, {"1KB", 1e3}, {"256MB", 256e6}, {"8GB", 8e9}, {"2TB", 2e12},
		{"1PB", 1e15}, {"1KiB", 1 << 10}, {"256MiB", 256 << 20}, {"1.5GiB", 3 << 29}, {"0.5TiB", 1 << 39}, {"1PiB", 1 << 50},
		{"1024PiB", 1 << 60}, {"1.50GB", 15e8}, {"0.001kB", 1}, {"2.0B", 2}, {"08GB", 8e9}, {"1152921504606846976", 1 << 60},
	} {
		if got, err := ParseSize(c.text); err != nil || got != c.want {
			t.Errorf("%s is %d, %v; want %d", c.text, got, err, c.want)
		}
	}
	for _, c := range []struct{ text, want string }{
		{"", sizeRemedy}, {"GB", sizeRemedy}, {"8XB", sizeRemedy}, {"8GB ", `write "8GB"`}, {" 8GB", sizeRemedy},
		{"+8GB", sizeRemedy}, {".5GB", sizeRemedy}, {"5.GB", sizeRemedy}, {"1e9", sizeRemedy}, {"8,5GB", sizeRemedy},
		{"٣GB", sizeRemedy}, {"8 ", sizeRemedy}, {"8kib", `write "8KiB"`}, {"8mb", `write "8MB"`}, {"8b", `write "8B"`},
		{"8 bytes", `write "8B"`}, {"8k", `write "8kB" (decimal) or "8KiB" (binary)`},
		{"8Mi", `write "8MB" (decimal) or "8MiB" (binary)`}, {"8 megabytes", `write "8MB" (decimal) or "8MiB" (binary)`},
		{"8 gibibytes", `write "8GB" (decimal) or "8GiB" (binary)`}, {"8 grams", sizeRemedy},
		{"-1", "a size must not be negative"}, {"0.3B", "this is not a whole number of bytes"},
		{"0.0001kB", "this is not a whole number of bytes"}, {"0.3KiB", "this is not a whole number of bytes"},
		{"1025PiB", tooLarge}, {"1152921504606846977", tooLarge}, {"18446744073709551615PiB", tooLarge},
		{"18446744073709551616", sizeRemedy},
	} {
		_, err := ParseSize(c.text)
		if want := "cannot read " + quote(c.text) + " as a size: " + c.want; err == nil || err.Error() != want {
			t.Errorf("%q: %v, want %s", c.text, err, want)
		}
	}
}

func TestFormatSize(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		n    int64
		want string
	}{
		{0, "0B"}, {1, "1B"}, {999, "999B"}, {1000, "1kB"}, {1500, "1.5kB"}, {1536, "1536B"}, {8e9, "8GB"}, {8 << 30, "8GiB"},
		{3 << 29, "1.5GiB"}, {1 << 60, "1024PiB"}, {999_999_999, "999.9MB"}, {67_430_293_504, "67.4GB"}, {-8e9, "-8GB"},
		{math.MaxInt64, "9223.3PB"}, {math.MinInt64, "-8192PiB"},
	} {
		if got := FormatSize(c.n); got != c.want {
			t.Errorf("%d is written %s, want %s", c.n, got, c.want)
		}
	}
}

func TestParseDuration(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		text string
		want time.Duration
	}{
		{"0", 0}, {"0s", 0}, {"90", 90 * time.Second}, {"1.5", 1500 * time.Millisecond}, {"2h30m", 150 * time.Minute},
		{"1.5h", 90 * time.Minute}, {"250ms", 250 * time.Millisecond}, {"8760h", MaxDuration}, {"31536000", MaxDuration},
	} {
		if got, err := ParseDuration(c.text); err != nil || got != c.want {
			t.Errorf("%s is %v, %v; want %v", c.text, got, err, c.want)
		}
	}
	for _, c := range []struct{ text, want string }{
		{"", durationRemedy}, {"soon", durationRemedy}, {"1 h", durationRemedy}, {"1d", durationRemedy}, {"NaN", durationRemedy},
		{"Inf", durationRemedy}, {"0x10", durationRemedy}, {"1e3", durationRemedy}, {"1.2.3", durationRemedy},
		{"-1s", "a duration must not be negative"}, {"8760h1ns", tooLong}, {"31536001", tooLong}, {"9999999h", tooLong}, {"9999999999999h", tooLong},
		{"99999999999999999999h30m1.5s", tooLong}, {strings.Repeat("9", 400) + "h", tooLong}, {"9999999hh", durationRemedy}, {"9999999h ", durationRemedy},
		{"9999999x", durationRemedy}, {".h", durationRemedy}, {"9999999h1", durationRemedy},
	} {
		_, err := ParseDuration(c.text)
		if want := "cannot read " + quote(c.text) + " as a duration: " + c.want; err == nil || err.Error() != want {
			t.Errorf("%q: %v, want %s", c.text, err, want)
		}
	}
}
