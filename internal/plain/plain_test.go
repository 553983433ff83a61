package plain

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestText(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"plain ä 漢 👩‍💻\n\tx":  "plain ä 漢 👩‍💻\n\tx",
		"\x1b[2Jgone\x07":     "\uFFFD[2Jgone\uFFFD",
		"a\rb\x00\x7f":        "a\uFFFDb\uFFFD\uFFFD",
		"\u009b31m\x9b31m":    "\uFFFD31m\uFFFD31m",
		"\u202egnp.exe\u2069": "\uFFFDgnp.exe\uFFFD",
		"a\u2028b":            "a\uFFFDb",
	} {
		if got := Text(in); got != want {
			t.Errorf("Text(%q) = %q, want %q", in, got, want)
		}
		if Clean(in) != (in == want) {
			t.Errorf("Clean(%q) = %t", in, Clean(in))
		}
	}
	if got := Line("a\nb\tc\x1b"); got != "a b c\uFFFD" {
		t.Errorf("Line = %q", got)
	}
}

func TestJSON(t *testing.T) {
	t.Parallel()
	const in = "\x1b[2J\u009b\u007f\u202e\r\n ä"
	text, err := json.MarshalIndent(map[string]string{in: in}, "", "\t")
	if err != nil {
		t.Fatal(err)
	}
	var back map[string]string
	out := JSON(text)
	if err := json.Unmarshal(out, &back); err != nil || back[in] != in || !Clean(string(out)) {
		t.Errorf("%s: %v", out, err)
	}
}

// FuzzWriter holds the writer to Text, however what is written is cut.
func FuzzWriter(f *testing.F) {
	f.Add("a\r\nb\rc\x1b]0;x\x07ä漢👩‍💻", 1)
	f.Add("\xe2\x80", 2)
	f.Add("\r", 1)
	f.Fuzz(func(t *testing.T, text string, size int) {
		size = max(1, size&0xff)
		var out strings.Builder
		w := NewWriter(&out)
		for rest := text; rest != ""; rest = rest[min(size, len(rest)):] {
			if n, err := w.Write([]byte(rest[:min(size, len(rest))])); err != nil || n != min(size, len(rest)) {
				t.Fatal(n, err)
			}
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		got := out.String()
		if !Clean(got) {
			t.Errorf("%q became %q", text, got)
		}
		if want := Text(strings.ReplaceAll(text, "\r\n", "\n")); utf8.ValidString(text) && got != want {
			t.Errorf("%q became %q, want %q", text, got, want)
		}
	})
}
