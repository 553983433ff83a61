package queue

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

func TestMask(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]string{
		`{"shell":"x"}`: `{"shell":"x"}`,
		`{"environment": {"A": "s3cret", "B" : ""} , "shell":"x"}`:                       `{"environment": {"A": "(hidden)", "B" : "(hidden)"} , "shell":"x"}`,
		`{"\u0065nvironment":{"A":7,"B":["s3cret"]}}`:                                    `{"\u0065nvironment":{"A":"(hidden)","B":"(hidden)"}}`,
		`{"environment": ["A=s3cret"]}`:                                                  `{"environment": "(hidden)"}`,
		`{"environment":{"A":"s3cret"},"environment":{"B":"s3cret"}}`:                    `{"environment":{"A":"(hidden)"},"environment":{"B":"(hidden)"}}`,
		`{"shell":"x" "environment":{"A":"s3cret"}}`:                                     `{"shell":"x" ` + maskedRest,
		`{"environment":{"A":"s3cret}`:                                                   `{` + maskedRest,
		`{"environment":{"A":"s3cret"}} `:                                                `{"environment":{"A":"(hidden)"}} `,
		`{"environment":{"A":"s3cret"}} x`:                                               `{` + maskedRest,
		`{"params":{"environment":{"A":"said"}},"shell":"x"}`:                            `{"params":{"environment":{"A":"said"}},"shell":"x"}`,
		`{"env":{"A":"s3cret"},"shell":"x"}`:                                             `{"env":{"A":"(hidden)"},"shell":"x"}`,
		`{"Environment":{"A":"s3cret"},"enviroment":{"B":"s3cret"},"ENV_VARS":"s3cret"}`: `{"Environment":{"A":"(hidden)"},"enviroment":{"B":"(hidden)"},"ENV_VARS":"(hidden)"}`,
		`{"labels":{"env":"test"},"name":"env"}`:                                         `{"labels":{"env":"test"},"name":"env"}`,
		`[{"environment":{"A":"s3cret"}}, {"env":["s3cret"]}]`:                           `[{"environment":{"A":"(hidden)"}}, {"env":"(hidden)"}]`,
		`"{\"shell\":\"x\",\"environment\":{\"A\":\"s3cret\"}}"`:                         `"{\"shell\":\"x\",\` + maskedRest,
		`{"shell":"x","environmen\u0074":{"A":"s3cret"},}`:                               `{"shell":"x",` + maskedRest,
		`{"shell":"x","e\u006evironment":{"A":"s3cret"},}`:                               `{"shell":"x","e` + maskedRest,
		`{"shell":"x",'env':{"A":"s3cret"}}`:                                             `{"shell":"x",'` + maskedRest,
		`no JSON`:                                                                        `no JSON`,
		``:                                                                               ``,
		`["environment"]`:                                                                `["environment"]`,
		`{"environment":` + strings.Repeat(`{"a":`, 99) + `"s3cret"` + strings.Repeat("}", 99) + `}`: `{` + maskedRest,
	} {
		if got := string(Mask([]byte(body))); got != want {
			t.Errorf("%s is shown as %s, want %s", body, got, want)
		}
	}
}

// TestOtherEncodings holds that nothing is shown of a document in which names and values are not found by their bytes: one in UTF-16, say. One that is JSON but for
// its letters is shown as any other.
func TestOtherEncodings(t *testing.T) {
	t.Parallel()
	const text = `{"environment":{"A":"7777"},"shell":"x"}`
	hidden := []string{"{\"shell\":\"x\"\x00,'environ\x00ment':{\"A\":\"7777\"}}", "{\"shell\":\"x\xff\",'\xe5nvironment':{\"A\":\"7777\"}}"}
	for _, order := range []binary.AppendByteOrder{binary.LittleEndian, binary.BigEndian} {
		var wide []byte
		for _, c := range "\ufeff" + text {
			wide = order.AppendUint16(wide, uint16(c))
		}
		hidden = append(hidden, string(wide), string(wide[2:]))
	}
	for _, body := range hidden {
		if shown := string(Mask([]byte(body))); shown != maskedRest {
			t.Errorf("%q is shown as %q", body, shown)
		}
		var r *Refusal
		if _, err := Decode(Message{Body: []byte(body)}); !errors.As(err, &r) || r.Value != "" {
			t.Errorf("%q: %v", body, err)
		}
	}
	if shown := string(Mask([]byte("{\"name\":\"\xff\",\"environment\":{\"A\":\"7777\xff\"}}"))); shown != "{\"name\":\"\xff\",\"environment\":{\"A\":\"(hidden)\"}}" {
		t.Errorf("shown as %q", shown)
	}
}

// TestRefusalsHideSecrets holds that no refusal shows a value of the environment.
func TestRefusalsHideSecrets(t *testing.T) {
	t.Parallel()
	for _, body := range []string{
		`{"shell":"x","environment":{"A":7777}}`,
		`{"shell":"x","environment":{"A":["7777"]}}`,
		`{"shell":"x","environment":{"A":"7777\u0000"}}`,
		`{"shell":"x","environment":{"A":"7777` + strings.Repeat("7", maxArgument) + `"}}`,
		`{"shell":"x","environment":["A=7777"]}`,
		`{"shell":"x","environment":"7777"}`,
		`{"shell":"x","environment":{"A":"7777`,
		`{"shell":"x","environment":{"A":"7777\x"}}`,
		`{"shell":"x" "environment":{"A":"7777"}}`,
		`{"environment":{"A":"7777"} "shell":"x"}`,
		`{"environment":{"A":"7777"},"shell":"x"} y`,
		`{"environment":{"A":"7777","A":"7777"},"shell":"x"}`,
		`{"command":["true"],"environmen\u0074":{"A":"7777"},}`,
		`{"command":["true"],"e\u006evironment":{"A":"7777"},}`,
		`{"command":["true"],"env":{"A":"7777"},}`,
		`{"command":["true"],'Environment':{"A":"7777"}}`,
		`{"env":{"A":"7777"},"shell":"x"}`,
		`[{"environment":{"A":"7777"},"shell":"x"}]`,
		`"{\"environment\":{\"A\":\"7777\"}}"`,
		"{'e\x00nvironment':{\"A\":\"7777\"}}",
	} {
		if _, err := Decode(Message{Body: []byte(body)}); err == nil || strings.Contains(err.Error(), "7777") {
			t.Errorf("%.60s: %v", body, err)
		}
	}
}

// FuzzMask holds that what was a task stays JSON, and that no value of its environment is shown.
func FuzzMask(f *testing.F) {
	f.Add([]byte(everyField), "v")
	for _, c := range refused {
		f.Add([]byte(c.body), "s3cret")
	}
	f.Fuzz(func(t *testing.T, body []byte, value string) {
		shown := Mask(body)
		if json.Valid(body) && !json.Valid(shown) && !bytes.Contains(shown, []byte(maskedRest)) {
			t.Errorf("%q is shown as %q", body, shown)
		}
		text, err := json.Marshal(map[string]any{"command": []string{"x"}, "environment": map[string]string{"A": value + "\x01s3cret\x01"}})
		if err != nil {
			t.Fatal(err)
		}
		if shown := Mask(text); bytes.Contains(shown, []byte(`s3cret`)) {
			t.Errorf("%q is shown", shown)
		}
	})
}
