package tasktype

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/mayfly/mayfly/queue"
)

// template is a type file, checked.
type template struct {
	queue.Template
	override map[string]bool
}

// free lists the fields that any message may set, whatever its type.
var free = []string{"params", "stdin", "name", "id", "labels", "deadline", "priority", "max_attempts", "backoff", "on_lost", "pool"}

// overridable lists what a type may let a message set besides.
func overridable() []string {
	paths := []string{"image", "environment", "workdir", "timeout", "grace", "alternatives", "resources"}
	for _, q := range quantities(queue.Resources{}, queue.Resources{}) {
		paths = append(paths, "resources."+q.name)
	}
	return paths
}

// newTemplate checks what the decoder cannot know: which fields there are to override, and that the defaults keep to the
// limits.
func newTemplate(decoded queue.Template) (template, error) {
	t := template{decoded, make(map[string]bool)}
	known := overridable()
	for i, path := range decoded.Override {
		field := fmt.Sprintf("override[%d]", i)
		switch {
		case path == "command" || path == "shell" || path == "type":
			return template{}, refuse(field, path, "a message of a type never brings its own program; leave it out")
		case !slices.Contains(known, path) && !slices.Contains(free, path):
			return template{}, refuse(field, path, "must be one of "+strings.Join(known, ", "))
		}
		t.override[path] = true
	}
	defaults := t.Task
	if err := t.checkLimits(defaults.Resources, defaults.Alternatives, defaults.Timeout, "max allows"); err != nil {
		return template{}, err
	}
	return t, nil
}

// resolve fills in what the message left to its type.
func (t template) resolve(message queue.Task) (queue.Task, error) {
	if err := t.checkOverrides(message); err != nil {
		return queue.Task{}, err
	}
	limit := "task type " + message.Type + " allows"
	if err := t.checkLimits(message.Resources, message.Alternatives, message.Timeout, limit); err != nil {
		return queue.Task{}, err
	}
	task, defaults := message, t.Task
	task.Command, task.Shell = defaults.Command, defaults.Shell
	task.Image = cmp.Or(message.Image, defaults.Image)
	task.Environment = merge(defaults.Environment, message.Environment)
	task.Labels = merge(defaults.Labels, message.Labels)
	task.Workdir = cmp.Or(message.Workdir, defaults.Workdir)
	task.Resources = defaults.Resources.With(message.Resources)
	if message.Alternatives == nil {
		task.Alternatives = defaults.Alternatives
	}
	task.Timeout = cmp.Or(message.Timeout, defaults.Timeout, t.MaxTimeout)
	task.MaxAttempts = cmp.Or(message.MaxAttempts, defaults.MaxAttempts)
	if message.Grace < 0 {
		task.Grace = defaults.Grace
	}
	if message.Backoff < 0 {
		task.Backoff = defaults.Backoff
	}
	if message.NoPriority {
		task.Priority, task.NoPriority = defaults.Priority, defaults.NoPriority
	}
	return task, nil
}

// checkOverrides refuses what the type does not let a message set.
func (t template) checkOverrides(message queue.Task) error {
	type setting struct {
		path  string
		given bool
		value string
	}
	settings := []setting{
		{"image", message.Image != "", message.Image},
		{"environment", len(message.Environment) > 0, strings.Join(slices.Sorted(maps.Keys(message.Environment)), " ")},
		{"workdir", message.Workdir != "", message.Workdir},
		{"timeout", message.Timeout != 0, message.Timeout.String()},
		{"grace", message.Grace >= 0, message.Grace.String()},
		{"alternatives", len(message.Alternatives) > 0, fmt.Sprintf("%d alternatives", len(message.Alternatives))},
	}
	gpus := t.Task.Resources.GPU > 0 || t.Task.Resources.GPUMemory > 0 || t.Task.Resources.GPUModel != ""
	for _, q := range quantities(message.Resources, queue.Resources{}) {
		if q.name == "gpu" && message.Resources.NoGPU {
			q.given = gpus // to have none is to be without those of the type
		}
		settings = append(settings, setting{"resources." + q.name, q.given, q.value})
	}
	for _, s := range settings {
		parent, _, _ := strings.Cut(s.path, ".")
		if s.given && !t.override[s.path] && !t.override[parent] {
			return refuse(s.path, s.value, fmt.Sprintf("task type %s does not let a message set this; leave it out", message.Type))
		}
	}
	return nil
}

// checkLimits refuses what exceeds the type's max.
func (t template) checkLimits(r queue.Resources, alternatives []queue.Resources, timeout time.Duration, whose string) error {
	check := func(path string, r queue.Resources) error {
		for _, q := range quantities(r, t.Max) {
			if q.over {
				return refuse(path+"."+q.name, q.value, fmt.Sprintf("%s at most %s", whose, q.limit))
			}
		}
		return nil
	}
	if err := check("resources", r); err != nil {
		return err
	}
	for i, alternative := range alternatives {
		if err := check(fmt.Sprintf("alternatives[%d]", i), alternative); err != nil {
			return err
		}
	}
	if t.MaxTimeout > 0 && timeout > t.MaxTimeout {
		return refuse("timeout", timeout.String(), fmt.Sprintf("%s at most %s", whose, t.MaxTimeout))
	}
	return nil
}

// merge returns the pairs of both; those of over win.
func merge(base, over map[string]string) map[string]string {
	if len(base) == 0 {
		return over
	}
	merged := maps.Clone(base)
	maps.Copy(merged, over)
	return merged
}
