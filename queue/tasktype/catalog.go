package tasktype

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/mayfly/mayfly/queue"
)

// checkEvery is the least time between two looks at the directory; checkForNew, where a type is asked for that was not there: its file may be new, and who
// refuses its tasks buries them.
const (
	checkEvery  = time.Second
	checkForNew = 20 * time.Millisecond
)

// Catalog is the task types of a host, as its directory holds them. Its methods may be called from many goroutines at once.
type Catalog struct {
	// Reloaded, when set before the first call of Resolve, is told each time that the directory was read anew because it had
	// changed: nil, or why the types stay as they were.
	Reloaded func(err error)

	dir string

	mu      sync.Mutex
	types   map[string]template // replaced as a whole, never written to
	files   map[string]file     // what was read
	checked time.Time
	failure string // why the last look failed, so that it is told once
}

// Type is one task type for people to read.
type Type struct {
	Name        string `json:"name"`
	Description string `json:"description,omitempty"`
}

// Load reads the task types of dir; without a dir there are none. The error names the file, and where its content is at fault
// wraps a *queue.Refusal that names the field.
func Load(dir string) (*Catalog, error) {
	c := &Catalog{dir: dir, checked: time.Now()}
	if dir == "" {
		return c, nil
	}
	files, err := list(dir)
	if err != nil {
		return nil, fmt.Errorf("cannot read the task types: %w", err)
	}
	if c.types, err = read(dir, files); err != nil {
		return nil, err
	}
	c.files = files
	return c, nil
}

// Types lists the task types by name.
func (c *Catalog) Types() []Type {
	types := c.current(checkEvery)
	list := make([]Type, 0, len(types))
	for _, name := range slices.Sorted(maps.Keys(types)) {
		list = append(list, Type{name, types[name].Description})
	}
	return list
}

// Resolve turns a decoded task into one that says itself what to run: that of a type gets the type's program and defaults;
// any other is returned as it is. It refuses what allow does not allow, a type that the host does not know, and what the
// type does not let a message set, or not so high. The error is always a *queue.Refusal. Neither t nor what it refers to
// is written to.
func (c *Catalog) Resolve(t queue.Task, allow Allow) (queue.Task, error) {
	if err := allow.check(t); err != nil {
		return queue.Task{}, err
	}
	if t.Type == "" {
		return t, nil
	}
	types := c.current(checkEvery)
	template, ok := types[t.Type]
	if !ok {
		types = c.current(checkForNew)
		template, ok = types[t.Type]
	}
	if !ok {
		return queue.Task{}, refuse("type", t.Type, unknownType(types))
	}
	return template.resolve(t)
}

// current returns the types, read anew if the directory has changed, where the last look at it is as old.
func (c *Catalog) current(age time.Duration) map[string]template {
	types, told, err := c.refresh(age)
	if told && c.Reloaded != nil {
		c.Reloaded(err)
	}
	return types
}

// refresh looks at the directory if it is time to. told says that err, which may be nil, is news.
func (c *Catalog) refresh(age time.Duration) (types map[string]template, told bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dir == "" || time.Since(c.checked) < age {
		return c.types, false, nil
	}
	c.checked = time.Now()
	files, err := list(c.dir) // before reading: what is written from now on has another time
	switch {
	case err != nil:
		err = fmt.Errorf("cannot read the task types: %w", err)
	case maps.Equal(files, c.files):
		told = c.failure != "" // what was wrong was taken back
		c.failure = ""
		return c.types, told, nil
	default:
		var fresh map[string]template
		if fresh, err = read(c.dir, files); err == nil {
			c.types, c.files, c.failure = fresh, files, ""
			return c.types, true, nil
		}
	}
	told = err.Error() != c.failure
	c.failure = err.Error()
	return c.types, told, err
}

// maxListed is the number of types that a refusal lists.
const maxListed = 20

func unknownType(types map[string]template) string {
	if len(types) == 0 {
		return "this host has no task types; send command or shell, or give it a directory of types"
	}
	names := slices.Sorted(maps.Keys(types))
	more := ""
	if len(names) > maxListed {
		more = fmt.Sprintf(" and %d more", len(names)-maxListed)
		names = names[:maxListed]
	}
	return "this host has no such task type; it has " + strings.Join(names, ", ") + more
}

// refuse refuses the value of a field.
func refuse(field, value, remedy string) error {
	return &queue.Refusal{Field: field, Value: quote(value), Remedy: remedy}
}

// quote shows the beginning of a value in one printable line.
func quote(value string) string {
	const most = 60
	if runes := []rune(value[:min(len(value), 4*most)]); len(runes) > most {
		value = string(runes[:most]) + "…"
	}
	return fmt.Sprintf("%q", value)
}
