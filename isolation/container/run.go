package container

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/client"

	"github.com/mayfly/mayfly/internal/logkey"
	"github.com/mayfly/mayfly/isolation"
	"github.com/mayfly/mayfly/isolation/cgroup"
)

// run is one call of Run.
type run struct {
	engine *Engine
	spec   isolation.Spec
	begun  time.Time
	id     string         // of the container
	label  string         // its place; empty while it has none
	parent *cgroup.Parent // of its control group; nil where there is none
	// config and host are what it is made from, and ways those in which its devices can be asked for.
	config *container.Config
	host   *container.HostConfig
	ways   []way
	// stopped and killed are what was done to it.
	stopped isolation.Stop
	killed  bool
	fed     atomic.Bool // it has all of its standard input; see feed.go
	taken   bool        // somebody else's container has its name
}

// all takes the program from its image to its exit. asked is the context whose end has it stopped.
func (r *run) all(ctx, asked context.Context, started func(isolation.Started)) (*isolation.Exit, error) {
	found, err := r.find(ctx)
	if err != nil {
		return nil, err
	}
	if !found && r.spec.Joins { // somebody has removed it
		return &isolation.Exit{Lost: true, StartedAt: r.begun, FinishedAt: r.begun}, nil
	}
	if !found {
		if found, err = r.create(ctx, asked); err != nil {
			return nil, err
		}
	}
	if found && !r.fed.Load() {
		return r.starved(ctx)
	}
	if !found {
		if err := r.startWithDevices(ctx); err != nil {
			return nil, err
		}
	}
	state, err := r.engine.docker.ContainerInspect(ctx, r.id)
	if err != nil {
		return nil, fmt.Errorf("cannot look at the container: %w", err)
	}
	begun := parseTime(state.State.StartedAt)
	if started != nil {
		started(isolation.Started{PID: state.State.Pid, At: begun})
	}
	ended, following := make(chan struct{}), make(chan output, 1)
	giveUp, letGo := context.WithCancel(ctx)
	defer letGo()
	go func() { following <- r.takeOutput(ctx, giveUp, ended) }()
	account := r.account(state.State.Pid)
	lost, err := r.await(ctx, asked, begun)
	used := account()
	close(ended)
	if err != nil {
		return nil, err
	}
	patience := time.AfterFunc(followLimit, letGo)
	out := <-following
	patience.Stop()
	exit, err := r.exit(ctx, lost, used.OOMKills)
	if err != nil {
		return nil, err
	}
	exit.CPU, exit.MemoryPeak = used.CPU, used.MemoryPeak
	exit.StdoutDropped, exit.StderrDropped = out.stdoutDropped, out.stderrDropped
	if out.fault != nil {
		exit.OutputError = out.fault.Error()
	}
	exit.DiskFull, exit.CarryError = r.unmount()
	return exit, nil
}

// account begins to count what the container uses. Its result ends that, and returns the count.
func (r *run) account(pid int) func() cgroup.Account {
	if r.parent != nil {
		return func() cgroup.Account {
			defer r.parent.Close()
			return r.parent.Account()
		}
	}
	return startMeter(pid).stop
}

// followLimit is how long the engine may go on with the log of a container that has ended. Much of it may be under way still; but an
// engine that was restarted has been seen to never come to its end.
const followLimit = 30 * time.Second

// reach waits for an engine that does not answer, which is no reason for all tasks to fail one after the other, unless somebody
// asks for an end.
func (r *run) reach(ctx, asked context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(asked, cancel)()
	return r.engine.comeBack(ctx, r.spec.ID)
}

// find takes a container that is there already: of an earlier life.
func (r *run) find(ctx context.Context) (bool, error) {
	r.engine.mu.Lock()
	k, ok := r.engine.kept[r.spec.ID]
	r.engine.mu.Unlock()
	if !ok {
		return false, nil
	}
	return true, r.adopt(ctx, k.container)
}

// adopt goes on with a container, and reads from it what it was made from.
func (r *run) adopt(ctx context.Context, id string) error {
	c, err := r.engine.docker.ContainerInspect(ctx, id)
	if err != nil {
		return fmt.Errorf("cannot look at the container: %w", err)
	}
	spec, err := specOf(c.Config.Labels)
	if err != nil || !r.owns(&c) {
		return fmt.Errorf("cannot go on with the container %s: it is another's", id)
	}
	r.id, r.spec, r.label = c.ID, spec, c.Config.Labels[labelPlace]
	r.fed.Store(c.Config.Labels[labelFeed] == "" || wasFed(spec.Private))
	if c.HostConfig.CgroupParent != "" {
		r.parent, err = cgroup.FindParent(r.engine.parentName(r.label))
	}
	return err
}

// owns reports whether a container was made for the program.
func (r *run) owns(c *container.InspectResponse) bool {
	spec, err := specOf(c.Config.Labels)
	return err == nil && spec.ID == r.spec.ID && c.Config.Labels[labelOwner] == r.engine.config.Owner
}

// name is the container's. What Docker does not take in a name is written as _, and a sum of the id tells it from others that are written
// the same; the label has the id as it is.
func (r *run) name() string {
	clean := strings.Map(func(c rune) rune {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '.' || c == '-' {
			return c
		}
		return '_'
	}, r.spec.ID)
	if clean != r.spec.ID {
		sum := sha256.Sum256([]byte(r.spec.ID))
		clean += "-" + hex.EncodeToString(sum[:8])
	}
	return "mayfly-" + r.engine.config.Owner + "-" + clean
}

// create makes the container, with the image and the directory that it needs. It reports true where there is one that was begun.
func (r *run) create(ctx, asked context.Context) (begun bool, err error) {
	err = r.engine.pull(ctx, asked, &r.spec)
	if client.IsErrConnectionFailed(err) {
		if err = r.reach(ctx, asked); err == nil {
			err = r.engine.pull(ctx, asked, &r.spec)
		}
	}
	if err != nil {
		return false, err
	}
	place := r.engine.places.Lend()
	r.label = strconv.Itoa(place)
	uid, gid := r.engine.config.User(place)
	if err := r.mount(uid, gid); err != nil {
		return false, err
	}
	if r.parent, err = r.engine.parent(ctx, r.label, r.spec.Limits.Memory); err != nil {
		return false, err
	}
	if r.config, r.host, err = r.settings(uid, gid); err != nil {
		return false, err
	}
	if err := r.askForDevices(ctx); err != nil {
		return false, err
	}
	err = r.make(ctx)
	if errdefs.IsConflict(err) {
		c, look := r.engine.docker.ContainerInspect(ctx, r.name())
		if look == nil && !r.owns(&c) {
			r.taken = true
			return false, fmt.Errorf("cannot use the name %s: another container has it", r.name())
		}
		if look == nil && c.State.Status != container.StateCreated {
			r.engine.places.Return(place)
			return true, r.adopt(ctx, c.ID)
		}
		// One that was created and never begun.
		if err := r.engine.docker.ContainerRemove(ctx, r.name(), container.RemoveOptions{Force: true}); err != nil {
			return false, fmt.Errorf("cannot remove a container of the same name: %w", err)
		}
		err = r.make(ctx)
	}
	if err != nil {
		return false, r.classify("cannot make the container", err)
	}
	return false, nil
}

// make makes the container from its settings.
func (r *run) make(ctx context.Context) error {
	made, err := r.engine.docker.ContainerCreate(ctx, r.config, r.host, nil, nil, r.name())
	if err == nil {
		r.id = made.ID
	}
	return err
}

func (r *run) begin(ctx context.Context) error {
	if err := r.engine.docker.ContainerStart(ctx, r.id, container.StartOptions{}); err != nil {
		if r.ways != nil && refusesDevices(err.Error()) {
			return &refusal{innermost(err.Error())}
		}
		return r.classify("cannot start the container", err)
	}
	return nil
}

// classify tells what the program is to blame for from what the engine or the host is. The engine says so in words only.
func (r *run) classify(what string, err error) error {
	text := err.Error()
	for _, words := range []string{"executable file not found", "no such file or directory: unknown", "permission denied: unknown", "exec format error",
		"no command specified", "not an absolute path", "cwd must be an absolute path", "is a directory: unknown"} {
		if strings.Contains(strings.ToLower(text), words) && !strings.Contains(text, "mount") {
			return &startError{fmt.Sprintf("cannot start it in %s: %s", r.spec.Image, innermost(text))}
		}
	}
	return fmt.Errorf("%s: %w", what, err)
}

// innermost is the last part of the engine's chain of words that says something.
func innermost(text string) string {
	text = strings.TrimSuffix(text, ": unknown")
	if _, after, ok := strings.Cut(text, "starting container process caused: "); ok {
		text = after
	}
	return strings.TrimPrefix(text, "Error response from daemon: ")
}

// exit asks the engine how the container ended.
func (r *run) exit(ctx context.Context, lost bool, kills int64) (*isolation.Exit, error) {
	c, err := r.engine.docker.ContainerInspect(ctx, r.id)
	if err != nil {
		return nil, fmt.Errorf("cannot find out how the container ended: %w", err)
	}
	exit := &isolation.Exit{Stopped: r.stopped, Killed: r.killed, Code: c.State.ExitCode,
		StartedAt: parseTime(c.State.StartedAt), FinishedAt: parseTime(c.State.FinishedAt)}
	if exit.FinishedAt.Before(exit.StartedAt) { // by a hair, of a short one: the engine reads two clocks
		exit.FinishedAt = exit.StartedAt
	}
	exit.OOMKills = kills
	oom := kills > 0 || c.State.OOMKilled || exit.Code == 128+int(syscall.SIGKILL) && !r.killed && !lost && r.parent == nil && r.oomEvent(ctx, parseTime(c.Created))
	if oom {
		exit.OOMKills = max(1, kills)
	}
	// The engine tells a signal as 128 plus its number, as a shell does. What we sent, and what the kernel sends at the memory limit,
	// is known to have been one.
	if n := exit.Code - 128; (n == int(syscall.SIGKILL) && (r.killed || oom)) || (n == int(syscall.SIGTERM) && r.stopped != isolation.NotStopped) {
		exit.Signal, exit.Code = n, 0
	}
	exit.StartError = r.initFault(exit.Code)
	if lost && r.stopped == isolation.NotStopped {
		exit.Lost = true
		killOrphans(r.id)
	}
	return exit, nil
}

// oomPatience is how long word of a kill at the memory limit may be under way.
const oomPatience = time.Second

// oomEvent asks for such word. The engine hears of the kill and of the exit by two ways, and where the exit was quicker, the container
// is not marked, but the event is told all the same. since is when the container was made: of a short one, the kill may be older than
// the start, which the engine writes down when it has heard of it.
func (r *run) oomEvent(ctx context.Context, since time.Time) bool {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	until := time.Now().Add(oomPatience)
	stamp := func(t time.Time) string { return fmt.Sprintf("%d.%09d", t.Unix(), t.Nanosecond()) }
	messages, failed := r.engine.docker.Events(ctx, events.ListOptions{Since: stamp(since), Until: stamp(until),
		Filters: filters.NewArgs(filters.Arg("container", r.id), filters.Arg("event", string(events.ActionOOM)))})
	select {
	case <-messages:
		return true
	case err := <-failed: // where the time is over, as one expects, io.EOF
		if !errors.Is(err, io.EOF) && ctx.Err() == nil {
			r.engine.config.Log.Warn("events not heard", "program", r.spec.ID, logkey.Err, err)
		}
		return false
	}
}

// initFault is what the container's init says when it cannot execute the program, which it does on the standard error.
func (r *run) initFault(code int) string {
	if code != 126 && code != 127 { // as a shell's: not executable, not found
		return ""
	}
	text, err := os.ReadFile(r.spec.Stderr)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(text[:min(len(text), 4096)])) {
		if _, what, ok := strings.Cut(line, "] exec "); ok && strings.HasPrefix(line, "[FATAL tini (") {
			return fmt.Sprintf("cannot start it in %s: exec %s", r.spec.Image, strings.TrimSpace(what))
		}
	}
	return ""
}

// cleanUp removes what was made for a program that did not start.
func (r *run) cleanUp(ctx context.Context) {
	if r.label != "" {
		// By its name, for the answer that had its id may be lost. An engine that is away has it still when it comes back.
		if err := r.engine.comeBack(ctx, r.spec.ID); err != nil {
			r.engine.config.Log.Error("container not removed", "program", r.spec.ID, logkey.Err, err)
		}
		name := r.name()
		if r.taken {
			name = ""
		}
		r.engine.remove(ctx, name, r.label)
		killOrphans(r.id)
		r.engine.mu.Lock()
		delete(r.engine.kept, r.spec.ID)
		r.engine.mu.Unlock()
	}
	r.unmount()
	forgetAside(r.spec.Private)
	r.engine.progress(r.spec.ID, "")
}

func parseTime(s string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return time.Time{}
	}
	return t
}
