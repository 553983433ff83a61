package queue

import (
	"encoding/json"
	"errors"
	"path"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// FuzzDecode holds Decode to its word on any body: a task within every limit, or a refusal that is fit to show.
func FuzzDecode(f *testing.F) {
	f.Add([]byte(everyField), "m", "")
	f.Add([]byte(`{"id": "job_456", "type": "process_data", "params": {"dataset": "report_Q3"}}`), "", "default")
	f.Add([]byte(`{"shell": "echo \ud83d\ude00", "stdin": "\u0000", "resources": {"memory": "1.5GiB"}}`), "x/y", "gpu")
	for _, c := range refused {
		f.Add([]byte(c.body), "", "")
	}
	f.Fuzz(func(t *testing.T, body []byte, messageID, pool string) {
		m := Message{Body: body, MessageID: messageID, Pool: pool}
		id := PeekID(m)
		if !ValidID(id) {
			t.Errorf("PeekID returned %q", id)
		}
		task, err := Decode(m)
		if err != nil {
			r := (*Refusal)(nil)
			if !errors.As(err, &r) {
				t.Fatalf("the error is %T", err)
			}
			checkRefusal(t, r)
			return
		}
		checkTask(t, task, m)
		m.MessageID = "fallback" // so that no id is made up
		if again, err := Decode(m); err != nil || again.ID != PeekID(m) {
			t.Errorf("Decode says id %q (%v), PeekID %q", again.ID, err, PeekID(m))
		}
		if !json.Valid(body) {
			t.Error("encoding/json does not take the body for JSON")
		}
	})
}

// FuzzScanner holds the scanner to encoding/json: the same texts are JSON, and strings and numbers mean the same.
func FuzzScanner(f *testing.F) {
	for _, seed := range []string{everyField, `[1,-0.5e+7,{"a":"\n\u00e9\ud83d\ude00"},true,false,null]`, `"\ud800"`, ` {} x`, `01`, `[1,]`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if !utf8.ValidString(text) {
			return
		}
		s := scanner{text: text, lax: true}
		err := s.document(func() error { _, err := s.skip(); return err })
		valid := json.Valid([]byte(text))
		if err == nil && !valid {
			t.Fatal("accepted what encoding/json refuses")
		}
		if err != nil && valid && !strings.Contains(err.Error(), "nested deeper") && !strings.Contains(err.Error(), "surrogate") {
			t.Fatalf("refused what encoding/json accepts: %v", err)
		}
		if s = (scanner{text: text}); err == nil && s.kind() == "a string" {
			got, err := s.str()
			var want string
			if json.Unmarshal([]byte(text), &want) != nil || err == nil && got != want {
				t.Errorf("the string is %q, want %q", got, want)
			}
			if err != nil && !strings.ContainsRune(want, utf8.RuneError) {
				t.Errorf("refused %q: %v", want, err)
			}
		}
	})
}

// FuzzUnits holds sizes and durations to their range, and sizes to what FormatSize writes.
func FuzzUnits(f *testing.F) {
	for _, seed := range []string{"8GB", "1.5GiB", "0.3B", "8 gigs", "1024PiB", "99999999999999999999", "90", "2h30m", "-1s", ".5", "1e3", "NaN"} {
		f.Add(seed, int64(1536))
	}
	f.Fuzz(func(t *testing.T, s string, size int64) {
		n, err := ParseSize(s)
		if n < 0 || n > maxSize || err != nil && (n != 0 || !printable(err.Error())) {
			t.Errorf("the size of %q is %d, %v", s, n, err)
		}
		d, err := ParseDuration(s)
		if d < 0 || d > MaxDuration || err != nil && (d != 0 || !printable(err.Error())) {
			t.Errorf("the duration of %q is %v, %v", s, d, err)
		}
		if size >= 0 && size <= maxSize {
			back, err := ParseSize(FormatSize(size))
			if err != nil || back > size || back < size-size/10 {
				t.Errorf("%d is written %s and read %d, %v", size, FormatSize(size), back, err)
			}
		}
	})
}

// checkTask holds a task to what its type documents.
func checkTask(t *testing.T, task Task, m Message) {
	t.Helper()
	programs := 0
	for _, given := range []bool{task.Command != nil, task.Shell != "", task.Type != ""} {
		if given {
			programs++
		}
	}
	ok := func(what string, fine bool) {
		t.Helper()
		if !fine {
			t.Errorf("%s is wrong in %+v", what, task)
		}
	}
	ok("id", ValidID(task.ID))
	ok("the number of command, shell, type", programs == 1)
	ok("command", task.Command == nil || task.Command[0] != "")
	ok("params", task.Params == nil || json.Valid(task.Params) && task.Stdin == "")
	ok("workdir", task.Workdir == "" || path.IsAbs(task.Workdir))
	ok("timeout", 0 <= task.Timeout && task.Timeout <= MaxDuration)
	ok("grace", -1 <= task.Grace && task.Grace <= MaxDuration)
	ok("backoff", -1 <= task.Backoff && task.Backoff <= MaxDuration)
	ok("max_attempts", 0 <= task.MaxAttempts && task.MaxAttempts <= MaxAttempts)
	ok("priority", 0 <= task.Priority && task.Priority <= MaxPriority)
	ok("pool", task.Pool == m.Pool || m.Pool == "" && ValidPool(task.Pool))
	ok("deadline", task.Deadline.IsZero() || task.Deadline.After(time.Unix(-86400, 0)))
	ok("name", printable(task.Name) && len(task.Name) <= maxName)
	for _, arg := range append(task.Command, task.Shell, task.Workdir, task.Image) {
		ok("an argument", utf8.ValidString(arg) && !strings.Contains(arg, "\x00") && len(arg) <= maxArgument)
	}
	for name, value := range task.Environment {
		ok("environment", name != "" && !strings.ContainsAny(name, "=\x00") && !strings.HasPrefix(name, "MAYFLY_") &&
			!strings.Contains(value, "\x00") && len(name)+1+len(value) <= maxArgument)
	}
	ok("the number of labels", len(task.Labels) <= maxLabels)
	for name, value := range task.Labels {
		ok("a label", validName(name) && len(value) <= maxLabel)
	}
	ok("alternatives", len(task.Alternatives) <= maxAlternatives)
	for _, r := range append(task.Alternatives, task.Resources) {
		ok("cpu", r.CPU == 0 || r.CPU >= minCPU && r.CPU <= maxCPU)
		ok("memory", r.Memory == 0 || r.Memory >= minMemory && r.Memory <= maxSize)
		ok("gpu_memory", r.GPUMemory >= 0 && r.GPUMemory <= maxSize)
		ok("disk", r.Disk >= 0 && r.Disk <= maxSize)
		ok("gpu", r.GPU >= 0 && r.GPU <= maxGPU)
		ok("pids", r.PIDs >= 0 && r.PIDs <= maxPIDs)
	}
}
