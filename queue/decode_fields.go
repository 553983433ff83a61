package queue

import (
	"slices"
	"strings"
)

// field is one member of an object and how it is read. A member whose value is null is not read at all.
type field[T any] struct {
	name string
	read func(s *scanner, into *T) error
}

// taskFields are the fields of a message.
var taskFields = []field[Task]{
	{"id", func(s *scanner, t *Task) error { return s.word(&t.ID, ValidID, idRemedy) }},
	{"name", func(s *scanner, t *Task) error { return s.word(&t.Name, validName, nameRemedy) }},
	{"command", func(s *scanner, t *Task) error { return s.command(&t.Command) }},
	{"shell", func(s *scanner, t *Task) error { return s.program(&t.Shell) }},
	{"type", func(s *scanner, t *Task) error { return s.word(&t.Type, ValidType, typeRemedy) }},
	{"params", func(s *scanner, t *Task) error { return s.raw(&t.Params) }},
	{"image", func(s *scanner, t *Task) error { return s.word(&t.Image, validImage, imageRemedy) }},
	{"environment", func(s *scanner, t *Task) error { return s.environment(&t.Environment) }},
	{"workdir", func(s *scanner, t *Task) error { return s.word(&t.Workdir, validWorkdir, workdirRemedy) }},
	{"stdin", func(s *scanner, t *Task) error { return s.anyString(&t.Stdin) }},
	{"resources", func(s *scanner, t *Task) error { return readRecord(s, &t.Resources, resourceFields) }},
	{"alternatives", func(s *scanner, t *Task) error { return s.alternatives(&t.Alternatives) }},
	{"timeout", func(s *scanner, t *Task) error { return s.duration(&t.Timeout, 1) }},
	{"grace", func(s *scanner, t *Task) error { return s.duration(&t.Grace, 0) }},
	{"max_attempts", func(s *scanner, t *Task) error { return s.integer(&t.MaxAttempts, 1, MaxAttempts) }},
	{"backoff", func(s *scanner, t *Task) error { return s.duration(&t.Backoff, 0) }},
	{"priority", func(s *scanner, t *Task) error {
		t.NoPriority = false
		return s.integer(&t.Priority, 0, MaxPriority)
	}},
	{"deadline", func(s *scanner, t *Task) error { return s.instant(&t.Deadline) }},
	{"labels", func(s *scanner, t *Task) error { return s.labels(&t.Labels) }},
	{"on_lost", func(s *scanner, t *Task) error {
		return s.word((*string)(&t.OnLost), func(v string) bool { return v == string(KeepOnLost) || v == string(KillOnLost) }, onLostRemedy)
	}},
	{"pool", func(s *scanner, t *Task) error { return s.word(&t.Pool, ValidPool, poolRemedy) }},
}

// resourceFields are the fields of resources and of each alternative.
var resourceFields = []field[Resources]{
	{"cpu", func(s *scanner, r *Resources) error { return s.cores(&r.CPU) }},
	{"memory", func(s *scanner, r *Resources) error { return s.size(&r.Memory, minMemory) }},
	{"gpu", func(s *scanner, r *Resources) error { return s.gpus(r) }},
	{"gpu_memory", func(s *scanner, r *Resources) error { return s.size(&r.GPUMemory, 1) }},
	{"gpu_model", func(s *scanner, r *Resources) error { return s.word(&r.GPUModel, validName, nameRemedy) }},
	{"disk", func(s *scanner, r *Resources) error { return s.size(&r.Disk, 1) }},
	{"network", func(s *scanner, r *Resources) error { return s.flag(&r.Network) }},
	{"pids", func(s *scanner, r *Resources) error { return s.integer(&r.PIDs, 1, maxPIDs) }},
}

// readRecord reads an object with the given fields and no others.
func readRecord[T any](s *scanner, into *T, fields []field[T]) error {
	if err := s.expect("an object", "a JSON object"); err != nil {
		return err
	}
	return s.object(func(name string) error {
		for i := range fields {
			if fields[i].name != name {
				continue
			}
			if s.peek() == 'n' {
				return s.literal("null")
			}
			return fields[i].read(s, into)
		}
		return unknown(name, names(fields))
	})
}

// names lists the names of fields.
func names[T any](fields []field[T]) []string {
	list := make([]string, len(fields))
	for i := range fields {
		list[i] = fields[i].name
	}
	return list
}

// lift makes the named fields of a part those of the whole.
func lift[Whole, Part any](part func(*Whole) *Part, fields []field[Part], only ...string) []field[Whole] {
	var lifted []field[Whole]
	for _, f := range fields {
		if slices.Contains(only, f.name) {
			lifted = append(lifted, field[Whole]{f.name, func(s *scanner, whole *Whole) error { return f.read(s, part(whole)) }})
		}
	}
	return lifted
}

// The forms of names and references. A function says what is accepted, the text beside it what a refusal asks for.
const (
	idRemedy = "must be 1 to 128 characters of A-Z a-z 0-9 . _ : @ + = - and begin with a letter or a digit"

	nameRemedy = "must be 1 to 256 bytes of printable text"
	maxName    = 256

	typeRemedy = "must be 1 to 64 characters of A-Z a-z 0-9 . _ - and begin with a letter or a digit"
	maxType    = 64

	onLostRemedy = `must be "keep" or "kill"`

	poolRemedy = "must be 1 to 64 characters of a-z 0-9 _ - and begin with a letter or a digit"

	imageRemedy = `must be an image reference such as "registry.example/app:1"`
	maxImage    = 512

	workdirRemedy = `must be an absolute path of at most 4095 bytes, such as "/data/run1"`
	maxPathname   = 4095 // Linux: PATH_MAX less its terminating NUL
)

const (
	lower  = "abcdefghijklmnopqrstuvwxyz"
	upper  = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	digits = "0123456789"
)

// ValidID reports whether s can be the id of a task (see Task.ID).
func ValidID(s string) bool {
	return len(s) <= MaxID && begins(s, lower+upper+digits) && consists(s, lower+upper+digits+"._:@+=-")
}

// ValidType reports whether s can be the name of a task type: 1 to 64 bytes of A-Z a-z 0-9 . _ -, beginning with a letter or a
// digit.
func ValidType(s string) bool {
	return len(s) <= maxType && begins(s, lower+upper+digits) && consists(s, lower+upper+digits+"._-")
}

// ValidPool reports whether s can be the name of a pool: 1 to MaxPool bytes of a-z 0-9 _ -, beginning with a letter or a digit.
func ValidPool(s string) bool {
	return len(s) <= MaxPool && begins(s, lower+digits) && consists(s, lower+digits+"_-")
}

func validImage(s string) bool {
	return len(s) <= maxImage && begins(s, lower+upper+digits) && consists(s, lower+upper+digits+"._-/:@") && !strings.Contains(s, "//")
}

func validWorkdir(s string) bool {
	return len(s) <= maxPathname && strings.HasPrefix(s, "/") && !strings.Contains(s, "\x00")
}

func validName(s string) bool { return s != "" && len(s) <= maxName && printable(s) }

func begins(s, chars string) bool { return s != "" && strings.IndexByte(chars, s[0]) >= 0 }

func consists(s, chars string) bool {
	for _, c := range []byte(s) {
		if strings.IndexByte(chars, c) < 0 {
			return false
		}
	}
	return true
}
