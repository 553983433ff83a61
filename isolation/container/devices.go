package container

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/docker/docker/api/types/container"

	"github.com/mayfly/mayfly/internal/logkey"
)

// way is how an engine is asked for devices.
type way string

// The ways, the better one first. The other one is older than the interface, and knows the devices of some vendors.
const (
	byInterface way = "CDI"
	byDriver    way = "the runtime"
)

// vendors are those whose devices Docker knows without the interface, by the part of a device's name before the =.
var vendors = map[string]struct{ driver, capability, install string }{
	"nvidia.com/gpu": {"nvidia", "gpu", "nvidia-container-toolkit"},
}

// giving are runtimes that give devices to each container that names them in its environment. plain gives those that were asked for.
var giving = []string{"nvidia"}

const plain = "runc"

// requests asks for devices in that way. It returns none where there is a device that cannot be asked for so.
func (w way) requests(names []string) []container.DeviceRequest {
	if w == byInterface {
		return []container.DeviceRequest{{Driver: "cdi", DeviceIDs: names}}
	}
	var list []container.DeviceRequest
	for _, name := range names {
		kind, id, _ := strings.Cut(name, "=")
		v, ok := vendors[kind]
		if !ok {
			return nil
		}
		i := slices.IndexFunc(list, func(q container.DeviceRequest) bool { return q.Driver == v.driver })
		if i < 0 {
			i = len(list)
			list = append(list, container.DeviceRequest{Driver: v.driver, Capabilities: [][]string{{v.capability}}})
		}
		list[i].DeviceIDs = append(list[i].DeviceIDs, id)
	}
	return list
}

// notHere is what an engine says, in some words or others, that does not have the interface.
const notHere = "this engine does not have it, or has it switched off"

// askForDevices completes the settings by the devices that the program is to have, in the way that is tried first, and by that it is to
// have no others.
func (r *run) askForDevices(ctx context.Context) error {
	a, err := r.engine.ask(ctx)
	if err != nil {
		return err
	}
	if slices.Contains(giving, a.runtime) {
		r.host.Runtime = plain
	}
	if len(r.spec.CDI) == 0 {
		return nil
	}
	if a.cdi {
		r.ways = append(r.ways, byInterface)
	}
	if byDriver.requests(r.spec.CDI) != nil {
		r.ways = append(r.ways, byDriver)
	}
	if len(r.ways) == 0 {
		return r.noDevices(map[way]string{byInterface: notHere})
	}
	r.engine.mu.Lock()
	worked := r.engine.way
	r.engine.mu.Unlock()
	if worked == r.ways[len(r.ways)-1] {
		slices.Reverse(r.ways)
	}
	r.host.DeviceRequests = r.ways[0].requests(r.spec.CDI)
	return nil
}

// startWithDevices starts the container. The engine says only then that it cannot give the devices: so the container is made again for
// the next way.
func (r *run) startWithDevices(ctx context.Context) error {
	if len(r.ways) == 0 {
		return r.start(ctx)
	}
	said := map[way]string{}
	if !slices.Contains(r.ways, byInterface) {
		said[byInterface] = notHere
	}
	for i, w := range r.ways {
		if i > 0 {
			if err := r.engine.docker.ContainerRemove(ctx, r.id, container.RemoveOptions{Force: true, RemoveVolumes: true}); err != nil {
				return fmt.Errorf("cannot remove a container that did not get its devices: %w", err)
			}
			r.host.DeviceRequests = w.requests(r.spec.CDI)
			if err := r.make(ctx); err != nil {
				return r.classify("cannot make the container", err)
			}
		}
		err := r.start(ctx)
		var refused *refusal
		if !errors.As(err, &refused) {
			if err == nil {
				r.engine.mu.Lock()
				r.engine.way = w
				r.engine.mu.Unlock()
			}
			return err
		}
		said[w] = refused.words
		r.engine.config.Log.Debug("devices not given", "program", r.spec.ID, "way", string(w), logkey.Err, refused)
	}
	r.engine.mu.Lock()
	r.engine.about = nil // it may be set up anew meanwhile
	r.engine.mu.Unlock()
	return r.noDevices(said)
}

// refusal is why an engine does not give devices.
type refusal struct{ words string }

func (e *refusal) Error() string { return e.words }

// noDriver is how an engine says that it does not know a way.
const noDriver = "could not select device driver"

// refusesDevices tells by the engine's words that it was the devices for which a container was not started: it knows no such way, there is
// no such device, or what prepares it failed.
func refusesDevices(text string) bool {
	text = strings.ToLower(text)
	return slices.ContainsFunc([]string{noDriver, "device injection failed", "inject cdi devices", "running hook", "executing hook", " hook #"},
		func(words string) bool { return strings.Contains(text, words) })
}

// noDevices says what came of all ways. It is the host's fault: the program is not to blame.
func (r *run) noDevices(said map[way]string) error {
	text := "cannot give the container its devices " + strings.Join(r.spec.CDI, ", ")
	lacks := func(w way) bool { return said[w] == notHere || strings.Contains(said[w], noDriver) }
	kind, _, _ := strings.Cut(r.spec.CDI[0], "=")
	switch v := vendors[kind]; {
	case lacks(byInterface) && lacks(byDriver):
		text += fmt.Sprintf(": Docker has neither CDI nor the %s runtime: install %s and restart Docker", v.driver, v.install)
	case lacks(byDriver):
		text += fmt.Sprintf(": Docker finds them neither by CDI nor by the %s runtime: install %s and restart Docker", v.driver, v.install)
	case lacks(byInterface) && said[byDriver] == "":
		text += ": Docker has no CDI: it takes version 25 or later, with the feature cdi switched on"
	}
	var words []string
	for _, w := range []way{byInterface, byDriver} {
		if said[w] != "" {
			words = append(words, fmt.Sprintf("%s said: %s", w, said[w]))
		}
	}
	return fmt.Errorf("%s (%s)", text, strings.Join(words, "; "))
}
