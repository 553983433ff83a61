package tasktype

import (
	"fmt"
	"strings"

	"github.com/mayfly/mayfly/queue"
)

// Allow says what messages may ask a host for.
type Allow struct {
	// Commands are programs of the message's own choice, run on the host itself.
	Commands bool
	// Types are the host's task types, whatever they run.
	Types bool
	// Images are container images of the message's own choice.
	Images bool
}

// ParseAllow reads a list such as "commands,types,images". It must name at least one of them.
func ParseAllow(list string) (Allow, error) {
	var allow Allow
	for word := range strings.SplitSeq(list, ",") {
		switch strings.TrimSpace(word) {
		case "commands":
			allow.Commands = true
		case "types":
			allow.Types = true
		case "images":
			allow.Images = true
		default:
			return Allow{}, fmt.Errorf("cannot read %q as what messages may ask for: "+
				"write one or more of commands, types and images, with commas between them", list)
		}
	}
	return allow, nil
}

// String returns the list that ParseAllow reads.
func (a Allow) String() string {
	var words []string
	if a.Commands {
		words = append(words, "commands")
	}
	if a.Types {
		words = append(words, "types")
	}
	if a.Images {
		words = append(words, "images")
	}
	return strings.Join(words, ",")
}

// check refuses a task that asks for what is not allowed.
func (a Allow) check(t queue.Task) error {
	switch {
	case t.Type != "" && !a.Types:
		return refuse("type", t.Type, "this host runs no task types; it allows "+a.allowed())
	case t.Image != "" && !a.Images:
		return refuse("image", t.Image, "this host runs no images that a message names; it allows "+a.allowed())
	case t.Type == "" && t.Image == "" && !a.Commands && t.Command != nil:
		return refuse("command", strings.Join(t.Command, " "), "this host runs no commands that a message names; it allows "+a.allowed())
	case t.Type == "" && t.Image == "" && !a.Commands:
		return refuse("shell", t.Shell, "this host runs no commands that a message names; it allows "+a.allowed())
	}
	return nil
}

// allowed names what is allowed, for a sentence.
func (a Allow) allowed() string {
	if a == (Allow{}) {
		return "nothing"
	}
	return strings.ReplaceAll(a.String(), ",", ", ")
}
