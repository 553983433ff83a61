package queue

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"
)

// refused lists bodies with the whole sentence that refuses each. They are seeds of the fuzz test too.
var refused = []struct{ body, want string }{
	// The text.
	{` 	`,
		`body: empty; send a JSON object such as {"command": ["true"]}`},
	{`{`,
		`body is {: must be one JSON object, but a name in double quotes was expected at byte 2`},
	{`[1, 2]`,
		`body is [1, 2]: must be a JSON object, not an array`},
	{`"text"`,
		`body is "text": must be a JSON object, not a string`},
	{`7`,
		`body is 7: must be a JSON object, not a number`},
	{`null`,
		`body is null: must be a JSON object, not null`},
	{`hello`,
		`body is hello: must be one JSON object, but a value was expected at byte 1`},
	{`{"shell":"x"} {"shell":"y"}`,
		`body is {"shell":"x"} {"shell":"y"}: must be one JSON object, but more text follows its end at byte 15`},
	{`{"shell":"x"}}`,
		`body is {"shell":"x"}}: must be one JSON object, but more text follows its end at byte 14`},
	{`{"shell":"x",}`,
		`body is {"shell":"x",}: must be one JSON object, but a name in double quotes was expected at byte 14`},
	{`{"shell" "x"}`,
		`body is {"shell" "x"}: must be one JSON object, but a colon was expected at byte 10`},
	{`{shell:"x"}`,
		`body is {shell:"x"}: must be one JSON object, but a name in double quotes was expected at byte 2`},
	{`{"shell":"x"`,
		`body is {"shell":"x": must be one JSON object, but a comma or a closing brace was expected at byte 13`},
	{`{"shell":"x`,
		`body is {"shell":"x: must be one JSON object, but a closing quote was expected at byte 12`},
	{`{"shell":"\x41"}`,
		`body is {"shell":"\x41"}: must be one JSON object, but an unknown escape was written at byte 11`},
	{`{"shell":"a	b"}`,
		`body is {"shell":"a b"}: must be one JSON object, but a control character was written without an escape at byte 12`},
	{`{"shell":"\ud800"}`,
		`body is {"shell":"\ud800"}: must be one JSON object, but half of a surrogate pair, which is no character, was written at byte 11`},
	{`{"name":"\ud800\ud800","shell":"x"}`,
		`body is {"name":"\ud800\ud800","shell":"x"}: must be one JSON object, but half of a surrogate pair, which is no character, was written at byte 10`},
	{`{"priority":01,"shell":"x"}`,
		`body is {"priority":01,"shell":"x"}: must be one JSON object, but a comma or a closing brace was expected at byte 14`},
	{`{"priority":+1,"shell":"x"}`,
		`body is {"priority":+1,"shell":"x"}: must be one JSON object, but a value was expected at byte 13`},
	{`{"resources":{"cpu":.5},"shell":"x"}`,
		`body is {"resources":{"cpu":.5},"shell":"x"}: must be one JSON object, but a value was expected at byte 21`},
	{`{"resources":{"cpu":1.},"shell":"x"}`,
		`body is {"resources":{"cpu":1.},"shell":"x"}: must be one JSON object, but a digit was expected at byte 23`},
	{`{"resources":{"cpu":NaN},"shell":"x"}`,
		`body is {"resources":{"cpu":NaN},"shell":"x"}: must be one JSON object, but a value was expected at byte 21`},
	{`{"resources":{"network":True},"shell":"x"}`,
		`body is {"resources":{"network":True},"shell":"x"}: must be one JSON object, but a value was expected at byte 25`},
	{`{"params":[1 2],"shell":"x"}`,
		`body is {"params":[1 2],"shell":"x"}: must be one JSON object, but a comma or a closing bracket was expected at byte 14`},
	{`{"params":nul,"shell":"x"}`,
		`body is {"params":nul,"shell":"x"}: must be one JSON object, but a value was expected at byte 11`},
	// Names.
	{`{"comand":["x"]}`,
		`comand: this field is unknown; did you mean command?`},
	{`{"Command":["x"]}`,
		`Command: this field is unknown; did you mean command?`},
	{`{"max-attempts":3,"shell":"x"}`,
		`max-attempts: this field is unknown; did you mean max_attempts?`},
	{`{"timeuot":3,"shell":"x"}`,
		`timeuot: this field is unknown; did you mean timeout?`},
	{`{"frobnicate":3,"shell":"x"}`,
		`frobnicate: this field is unknown; the fields here are id, name, command, shell, type, params, image, environment, workdir, stdin, resources, alternatives, timeout, grace, max_attempts, backoff, priority, deadline, labels, on_lost and pool`},
	{`{"resources":{"mem":"8GB"},"shell":"x"}`,
		`resources.mem: this field is unknown; did you mean memory?`},
	{`{"resources":{"gpu_mem":"8GB"},"shell":"x"}`,
		`resources.gpu_mem: this field is unknown; did you mean gpu_memory?`},
	{`{"resources":{"gpus":1},"shell":"x"}`,
		`resources.gpus: this field is unknown; did you mean gpu?`},
	{`{"alternatives":[{"gpu":1},{"cpus":1}],"shell":"x"}`,
		`alternatives[1].cpus: this field is unknown; did you mean cpu?`},
	{`{"id":"a","shell":"x","id":"a"}`,
		`id: given twice; give it once`},
	{`{"shell":"x","\u0073hell":"x"}`,
		`shell: given twice; give it once`},
	{`{"params":{"a":[0,{"b":1,"b":2}]},"shell":"x"}`,
		`params.a[1].b: given twice; give it once`},
	{`{"environment":{"A":"1","A":"1"},"shell":"x"}`,
		`environment.A: given twice; give it once`},
	{`{"labels":{"a b":"1","a b":"1"},"shell":"x"}`,
		`labels."a b": given twice; give it once`},
	// Types.
	{`{"id":456,"shell":"x"}`,
		`id is 456: must be a string, not a number`},
	{`{"name":["x"],"shell":"x"}`,
		`name is ["x"]: must be a string, not an array`},
	{`{"command":"python3 sim.py"}`,
		`command is "python3 sim.py": must be an array such as ["python3", "sim.py"] (a line of shell belongs in shell), not a string`},
	{`{"command":["x",1]}`,
		`command[1] is 1: must be a string, not a number`},
	{`{"command":["x",null]}`,
		`command[1] is null: must be a string, not null`},
	{`{"shell":["x"]}`,
		`shell is ["x"]: must be a string, not an array`},
	{`{"environment":["A=1"],"shell":"x"}`,
		`environment: must be a JSON object of strings, not an array`},
	{`{"environment":{"PORT":8080},"shell":"x"}`,
		`environment.PORT: must be a string, not a number`},
	{`{"environment":{"A":null},"shell":"x"}`,
		`environment.A: must be a string, not null`},
	{`{"resources":8,"shell":"x"}`,
		`resources is 8: must be a JSON object, not a number`},
	{`{"resources":{"cpu":"8"},"shell":"x"}`,
		`resources.cpu is "8": must be a number of cores from 0.001 to 65536, not a string`},
	{`{"resources":{"memory":true},"shell":"x"}`,
		`resources.memory is true: must be a number of bytes or a size such as "8GB", not a boolean`},
	{`{"resources":{"gpu":"1"},"shell":"x"}`,
		`resources.gpu is "1": must be a whole number from 0 to 1024, not a string`},
	{`{"resources":{"network":"no"},"shell":"x"}`,
		`resources.network is "no": must be true or false, not a string`},
	{`{"alternatives":{"gpu":2},"shell":"x"}`,
		`alternatives is {"gpu":2}: must be an array of JSON objects, not an object`},
	{`{"alternatives":[null],"shell":"x"}`,
		`alternatives[0] is null: must be a JSON object, not null`},
	{`{"timeout":["2h"],"shell":"x"}`,
		`timeout is ["2h"]: must be a duration such as "90s" or a number of seconds, not an array`},
	{`{"max_attempts":"3","shell":"x"}`,
		`max_attempts is "3": must be a whole number from 1 to 100, not a string`},
	{`{"deadline":1700000000,"shell":"x"}`,
		`deadline is 1700000000: must be a time such as 2026-12-01T00:00:00Z, not a number`},
	{`{"stdin":{"a":1},"shell":"x"}`,
		`stdin is {"a":1}: must be a string, not an object`},
	// What to run.
	{`{}`,
		`command: missing; give exactly one of command, shell and type`},
	{`{"name":"nothing to run"}`,
		`command: missing; give exactly one of command, shell and type`},
	{`{"image":"app:1"}`,
		`command: missing; give exactly one of command, shell and type`},
	{`{"params":{},"command":null}`,
		`command: missing; give exactly one of command, shell and type`},
	{`{"command":["x"],"shell":"x"}`,
		`shell is "x": given together with command; give exactly one of command, shell and type`},
	{`{"type":"t","shell":"x"}`,
		`type is "t": given together with shell; give exactly one of command, shell and type`},
	{`{"type":"t","shell":"x","command":["x"]}`,
		`type is "t": given together with command and shell; give exactly one of command, shell and type`},
	{`{"command":[]}`,
		`command is []: must name a program to run`},
	{`{"command":[""]}`,
		`command[0] is "": must not be empty`},
	{`{"shell":""}`,
		`shell is "": must not be empty`},
	{`{"command":["x","a\u0000b"]}`,
		`command[1] is "a\u0000b": must not hold a NUL character`},
	{`{"shell":"a\u0000b"}`,
		`shell is "a\u0000b": must not hold a NUL character`},
	{`{"shell":"x","params":{},"stdin":"text"}`,
		`stdin is "text": given together with params, and both feed standard input; give one of them`},
	{`{"type":"../etc"}`,
		`type is "../etc": must be 1 to 64 characters of A-Z a-z 0-9 . _ - and begin with a letter or a digit`},
	// Forms.
	{`{"id":"","shell":"x"}`,
		`id is "": must be 1 to 128 characters of A-Z a-z 0-9 . _ : @ + = - and begin with a letter or a digit`},
	{`{"id":"-a","shell":"x"}`,
		`id is "-a": must be 1 to 128 characters of A-Z a-z 0-9 . _ : @ + = - and begin with a letter or a digit`},
	{`{"id":"a/b","shell":"x"}`,
		`id is "a/b": must be 1 to 128 characters of A-Z a-z 0-9 . _ : @ + = - and begin with a letter or a digit`},
	{`{"id":"ä","shell":"x"}`,
		`id is "ä": must be 1 to 128 characters of A-Z a-z 0-9 . _ : @ + = - and begin with a letter or a digit`},
	{`{"name":"a\u001b[2Jb","shell":"x"}`,
		`name is "a\u001b[2Jb": must be 1 to 256 bytes of printable text`},
	{`{"image":"--privileged","shell":"x"}`,
		`image is "--privileged": must be an image reference such as "registry.example/app:1"`},
	{`{"image":"a b","shell":"x"}`,
		`image is "a b": must be an image reference such as "registry.example/app:1"`},
	{`{"environment":{"MAYFLY_HOST":"x"},"shell":"x"}`,
		`environment.MAYFLY_HOST: names that begin with MAYFLY_ are ours; choose another`},
	{`{"environment":{"":"x"},"shell":"x"}`,
		`environment."": the name of a variable must not be empty and must not hold = or NUL`},
	{`{"environment":{"A=B":"x"},"shell":"x"}`,
		`environment.A=B: the name of a variable must not be empty and must not hold = or NUL`},
	{`{"environment":{"A":"\u0000"},"shell":"x"}`,
		`environment.A: must not hold a NUL character`},
	{`{"workdir":"data","shell":"x"}`,
		`workdir is "data": must be an absolute path of at most 4095 bytes, such as "/data/run1"`},
	{`{"workdir":"/a\u0000","shell":"x"}`,
		`workdir is "/a\u0000": must be an absolute path of at most 4095 bytes, such as "/data/run1"`},
	{`{"deadline":"2026-12-01","shell":"x"}`,
		`deadline is "2026-12-01": must be a time of RFC 3339 since 1970, such as 2026-12-01T00:00:00Z`},
	{`{"deadline":"2026-12-01T0:00:00Z","shell":"x"}`,
		`deadline is "2026-12-01T0:00:00Z": must be a time of RFC 3339 since 1970, such as 2026-12-01T00:00:00Z`},
	{`{"deadline":"0001-01-01T00:00:00Z","shell":"x"}`,
		`deadline is "0001-01-01T00:00:00Z": must be a time of RFC 3339 since 1970, such as 2026-12-01T00:00:00Z`},
	{`{"labels":{"":"x"},"shell":"x"}`,
		`labels."": the name of a label must be 1 to 256 bytes of printable text`},
	{`{"pool":"GPU","shell":"x"}`,
		`pool is "GPU": must be 1 to 64 characters of a-z 0-9 _ - and begin with a letter or a digit`},
	// Numbers.
	{`{"resources":{"cpu":0},"shell":"x"}`,
		`resources.cpu is 0: must be a number of cores from 0.001 to 65536`},
	{`{"resources":{"cpu":-1},"shell":"x"}`,
		`resources.cpu is -1: must be a number of cores from 0.001 to 65536`},
	{`{"resources":{"cpu":1e999},"shell":"x"}`,
		`resources.cpu is 1e999: must be a number of cores from 0.001 to 65536`},
	{`{"resources":{"cpu":65537},"shell":"x"}`,
		`resources.cpu is 65537: must be a number of cores from 0.001 to 65536`},
	{`{"resources":{"gpu":-1},"shell":"x"}`,
		`resources.gpu is -1: must be a whole number from 0 to 1024`},
	{`{"resources":{"gpu":1.5},"shell":"x"}`,
		`resources.gpu is 1.5: must be a whole number from 0 to 1024`},
	{`{"resources":{"gpu":1e99},"shell":"x"}`,
		`resources.gpu is 1e99: must be a whole number from 0 to 1024`},
	{`{"resources":{"pids":0},"shell":"x"}`,
		`resources.pids is 0: must be a whole number from 1 to 4194304`},
	{`{"max_attempts":0,"shell":"x"}`,
		`max_attempts is 0: must be a whole number from 1 to 100`},
	{`{"max_attempts":101,"shell":"x"}`,
		`max_attempts is 101: must be a whole number from 1 to 100`},
	{`{"priority":10,"shell":"x"}`,
		`priority is 10: must be a whole number from 0 to 9`},
	{`{"priority":-1,"shell":"x"}`,
		`priority is -1: must be a whole number from 0 to 9`},
	// Sizes.
	{`{"resources":{"memory":0},"shell":"x"}`,
		`resources.memory is 0: must be at least 1MiB (a plain number counts bytes)`},
	{`{"resources":{"memory":8},"shell":"x"}`,
		`resources.memory is 8: must be at least 1MiB (a plain number counts bytes)`},
	{`{"resources":{"memory":-8000000},"shell":"x"}`,
		`resources.memory is -8000000: a size must not be negative`},
	{`{"resources":{"memory":1000000.5},"shell":"x"}`,
		`resources.memory is 1000000.5: this is not a whole number of bytes, or too many of them`},
	{`{"resources":{"memory":99999999999999999999},"shell":"x"}`,
		`resources.memory is 99999999999999999999: this is not a whole number of bytes, or too many of them`},
	{`{"resources":{"memory":"0B"},"shell":"x"}`,
		`resources.memory is "0B": must be at least 1MiB (a plain number counts bytes)`},
	{`{"resources":{"memory":"-8GB"},"shell":"x"}`,
		`resources.memory is "-8GB": a size must not be negative`},
	{`{"resources":{"memory":"8"},"shell":"x"}`,
		`resources.memory is "8": add the unit ("8B", "8MB", "8GB"), or write a number of bytes without quotes`},
	{`{"resources":{"memory":"8 GB"},"shell":"x"}`,
		`resources.memory is "8 GB": write "8GB"`},
	{`{"resources":{"memory":"8gb"},"shell":"x"}`,
		`resources.memory is "8gb": write "8GB"`},
	{`{"resources":{"memory":"8 gigs"},"shell":"x"}`,
		`resources.memory is "8 gigs": write "8GB" (decimal) or "8GiB" (binary)`},
	{`{"resources":{"memory":"8G"},"shell":"x"}`,
		`resources.memory is "8G": write "8GB" (decimal) or "8GiB" (binary)`},
	{`{"resources":{"memory":"lots"},"shell":"x"}`,
		`resources.memory is "lots": write a number of bytes, or a size such as "8GB" (decimal) or "512MiB" (binary)`},
	{`{"resources":{"memory":"1025PiB"},"shell":"x"}`,
		`resources.memory is "1025PiB": the largest size is "1024PiB"`},
	{`{"resources":{"disk":"0.3B"},"shell":"x"}`,
		`resources.disk is "0.3B": this is not a whole number of bytes`},
	{`{"resources":{"disk":0},"shell":"x"}`,
		`resources.disk is 0: must be at least 1B (a plain number counts bytes)`},
	{`{"resources":{"gpu_memory":"1.5.5GB"},"shell":"x"}`,
		`resources.gpu_memory is "1.5.5GB": write a number of bytes, or a size such as "8GB" (decimal) or "512MiB" (binary)`},
	// Durations.
	{`{"timeout":0,"shell":"x"}`,
		`timeout is 0: must be more than 0`},
	{`{"timeout":"0s","shell":"x"}`,
		`timeout is "0s": must be more than 0`},
	{`{"timeout":-1,"shell":"x"}`,
		`timeout is -1: a duration must not be negative`},
	{`{"timeout":"-1s","shell":"x"}`,
		`timeout is "-1s": a duration must not be negative`},
	{`{"timeout":"1 hour","shell":"x"}`,
		`timeout is "1 hour": write a duration such as "90s", "15m" or "2h30m", or a number of seconds`},
	{`{"timeout":"90","shell":"x"}`,
		`timeout is "90": write a duration such as "90s", "15m" or "2h30m", or a number of seconds`},
	{`{"timeout":"8761h","shell":"x"}`,
		`timeout is "8761h": the longest duration is 8760h, a year`},
	{`{"timeout":1e999,"shell":"x"}`,
		`timeout is 1e999: the longest duration is 8760h, a year`},
	{`{"grace":-0.5,"shell":"x"}`,
		`grace is -0.5: a duration must not be negative`},
	{`{"backoff":"soon","shell":"x"}`,
		`backoff is "soon": write a duration such as "90s", "15m" or "2h30m", or a number of seconds`},
}

func TestDecodeRefusesWithOneSentence(t *testing.T) {
	t.Parallel()
	for _, c := range refused {
		if got := refusal(t, Message{Body: []byte(c.body)}); got != c.want {
			t.Errorf("%s\n got %s\nwant %s", c.body, got, c.want)
		}
	}
}

func TestDecodeRefusesWhatIsTooMuch(t *testing.T) {
	t.Parallel()
	x := strings.Repeat("x", 1<<17)
	deep := strings.Repeat("[", MaxDepth) + strings.Repeat("]", MaxDepth)
	for _, c := range []struct{ name, body, want string }{
		{"nothing", "", `body: empty; send a JSON object such as {"command": ["true"]}`},
		{"too large", `{"stdin":"` + strings.Repeat("x", MaxBody) + `"}`,
			"body: has 16777228 bytes; at most 16777216 (16MiB) are accepted, so send a reference to large data"},
		{"not UTF-8", "{\"shell\":\"a\xffb\"}", "body: must be UTF-8; byte 12 is 0xff"},
		{"byte order mark", "\ufeff" + `{"shell":"x"}`,
			`body is \ufeff{"shell":"x"}: must be one JSON object, but a byte order mark stands at byte 1`},
		{"too deep", `{"params":` + deep + `,"shell":"x"}`,
			`body is …` + strings.Repeat("[", 31) + strings.Repeat("]", 29) +
				`…: must be one JSON object, but arrays and objects nested deeper than 64 begin at byte 74`},
		{"a long string", `{"name":"` + x + `","shell":"x"}`,
			`name is "` + x[:59] + `…": must be 1 to 256 bytes of printable text`},
		{"a long value", `{"name":[` + strings.Repeat("1,", 99) + `1],"shell":"x"}`,
			`name is [` + strings.Repeat("1,", 29) + `1…: must be a string, not an array`},
		{"a long name", `{"` + x + `":1}`, `"` + x[:60] + `…": this field is unknown; the fields here are ` +
			`id, name, command, shell, type, params, image, environment, workdir, stdin, resources, alternatives, timeout, grace, ` +
			`max_attempts, backoff, priority, deadline, labels, on_lost and pool`},
		{"an id of 129 bytes", `{"id":"` + x[:129] + `","shell":"x"}`, `id is "` + x[:59] + `…": ` + idRemedy},
		{"a pool of 65 bytes", `{"pool":"` + x[:65] + `","shell":"x"}`, `pool is "` + x[:59] + `…": ` + poolRemedy},
		{"an argument", `{"command":["x","` + x + `"]}`, `command[1] is "` + x[:59] +
			`…": has 131072 bytes, and Linux hands a program no more than 131071 in one piece; use stdin`},
		{"a variable", `{"environment":{"A":"` + x[:131070] + `"},"shell":"x"}`,
			`environment.A: has 131072 bytes, and Linux hands a program no more than 131071 in one piece; use stdin`},
		{"alternatives", `{"alternatives":[{}` + strings.Repeat(",{}", 16) + `],"shell":"x"}`,
			`alternatives[16]: at most 16 alternatives are accepted`},
		{"a size with many digits", `{"resources":{"disk":"0.` + strings.Repeat("0", 30) + `1GB"},"shell":"x"}`,
			`resources.disk is "0.` + strings.Repeat("0", 30) + `1GB": ` + sizeRemedy},
		{"a duration with many units", `{"timeout":"` + strings.Repeat("1h", 999) + `","shell":"x"}`,
			`timeout is "` + strings.Repeat("1h", 29) + `1…": ` + durationRemedy},
	} {
		got := refusal(t, Message{Body: []byte(c.body)})
		if got != c.want {
			t.Errorf("%s\n got %s\nwant %s", c.name, got, c.want)
		}
	}
	ok := strings.Repeat("[", MaxDepth-1) + strings.Repeat("]", MaxDepth-1)
	decode(t, Message{Body: fmt.Appendf(nil, `{"params":%s,"command":["x",%q]}`, ok, x[1:])})
}

func TestDecodeRefusesWhatTheMessageContradicts(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		message Message
		want    string
	}{
		{Message{Body: []byte(`{"shell":"x"}`), MessageID: "a b\xff"}, `message_id is "a b\xff": ` + idRemedy},
		{Message{Body: []byte(`{"shell":"x","pool":"gpu"}`), Pool: "cpu"},
			`pool is "gpu": the message came through pool "cpu"; leave the field out, or publish with routing key "gpu"`},
	} {
		if got := refusal(t, c.message); got != c.want {
			t.Errorf("got  %s\nwant %s", got, c.want)
		}
	}
}

// refusal returns the sentence with which m is refused.
func refusal(t *testing.T, m Message) string {
	t.Helper()
	task, err := Decode(m)
	r := (*Refusal)(nil)
	if !errors.As(err, &r) {
		t.Fatalf("%s was taken for the task %+v, error %v", firstRunes(string(m.Body)), task, err)
	}
	checkRefusal(t, r)
	return r.Error()
}

// checkRefusal holds a refusal to what is true of each.
func checkRefusal(t *testing.T, r *Refusal) {
	t.Helper()
	sentence := r.Error()
	if r.Field == "" || r.Remedy == "" || !utf8.ValidString(sentence) || !printable(sentence) || len(sentence) > 2000 {
		t.Errorf("refusal is not fit to show: %q", sentence)
	}
}

// The names of an object are held in an array at first and in a map beyond that.
func TestDecodeRefusesDuplicatesAmongAnyNumberOfNames(t *testing.T) {
	t.Parallel()
	for n := 1; n <= 40; n++ {
		for twice := range n {
			var members []string
			for i := range n {
				members = append(members, fmt.Sprintf(`"v%d":""`, i))
			}
			once := `{"shell":"x","environment":{` + strings.Join(members, ",") + `}}`
			if got := decode(t, Message{Body: []byte(once)}); len(got.Environment) != n {
				t.Fatalf("%d variables of %d", len(got.Environment), n)
			}
			members = append(members, members[twice])
			body := `{"shell":"x","environment":{` + strings.Join(members, ",") + `}}`
			want := fmt.Sprintf("environment.v%d: given twice; give it once", twice)
			if got := refusal(t, Message{Body: []byte(body)}); got != want {
				t.Fatalf("%d names: %s, want %s", n, got, want)
			}
		}
	}
}
