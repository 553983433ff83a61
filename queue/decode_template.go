package queue

import (
	"time"
)

// Template is the host's part of the tasks of one type: what they run and their defaults, and how far a message may depart
// from them.
type Template struct {
	Description string
	// Task holds the defaults. It has a Command, a Shell or an Image, and neither ID, Name, Type, Params, Stdin, Deadline nor
	// Pool. What was not given has the value by which Decode says so.
	Task Task
	// Override lists the paths of the fields that a message may set ("timeout", "resources.memory"). The list is as given:
	// who reads it says which paths there are.
	Override []string
	// Max limits what a message may set; zero fields do not limit.
	Max Resources
	// MaxTimeout limits the timeout that a message may set; 0 does not.
	MaxTimeout time.Duration
}

// templateFields are the fields of a template: those of a task that a host can know ahead of its message, and its own.
var templateFields = append(
	lift(func(t *Template) *Task { return &t.Task }, taskFields,
		"command", "shell", "image", "environment", "workdir", "resources", "alternatives", "timeout", "grace", "max_attempts",
		"backoff", "priority", "labels"),
	field[Template]{"description", func(s *scanner, t *Template) error { return s.anyString(&t.Description) }},
	field[Template]{"override", func(s *scanner, t *Template) error { return s.paths(&t.Override) }},
	field[Template]{"max", func(s *scanner, t *Template) error { return readRecord(s, t, limitFields) }},
)

// limitFields are the fields of a template's max.
var limitFields = append(
	lift(func(t *Template) *Resources { return &t.Max }, resourceFields, "cpu", "memory", "disk", "gpu_memory", "pids"),
	field[Template]{"gpu", func(s *scanner, t *Template) error { return s.integer(&t.Max.GPU, 1, maxGPU) }},
	field[Template]{"timeout", func(s *scanner, t *Template) error { return s.duration(&t.MaxTimeout, 1) }},
)

// DecodeTemplate reads a task type's JSON document, as strictly as Decode reads a message and in the same words. The error
// is always a *Refusal.
func DecodeTemplate(document []byte) (Template, error) {
	t := Template{Task: Task{Grace: -1, Backoff: -1, Priority: DefaultPriority, NoPriority: true}}
	if err := readDocument(document, &t, templateFields); err != nil {
		return Template{}, err
	}
	switch task := &t.Task; {
	case task.Command != nil && task.Shell != "":
		return Template{}, &Refusal{Field: "shell", Value: quote(task.Shell),
			Remedy: "given together with command; give one of them"}
	case task.Command == nil && task.Shell == "" && task.Image == "":
		return Template{}, &Refusal{Field: "command", Remedy: "missing; give command, shell or image"}
	}
	return t, nil
}

// paths reads an array of strings.
func (s *scanner) paths(into *[]string) error {
	if err := s.expect("an array", "an array of names of fields"); err != nil {
		return err
	}
	return s.array(func(int) error {
		path, _, err := s.given()
		*into = append(*into, path)
		return err
	})
}
