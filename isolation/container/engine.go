package container

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/client"

	"github.com/mayfly/mayfly/internal/logkey"
	"github.com/mayfly/mayfly/internal/slots"
	"github.com/mayfly/mayfly/isolation"
	"github.com/mayfly/mayfly/isolation/cgroup"
)

// Pull says when images are pulled.
type Pull string

// The times to pull.
const (
	PullMissing Pull = "missing" // when the host has none of that name
	PullAlways  Pull = "always"  // before each attempt
	PullNever   Pull = "never"
)

// Config is what an engine needs to know.
type Config struct {
	// Host is Docker's address, as unix:///run/docker.sock.
	Host string
	// Owner tells the containers of one state directory from those of others.
	Owner string
	// Dir is the directory below which all Private directories lie.
	Dir string
	// Pull says when images are pulled. Auth is a file in the format of Docker's config.json, with the credentials; it may be empty.
	Pull Pull
	Auth string
	// Network is Docker's network for containers that have one.
	Network string
	// User returns the user and group of the n-th container that runs beside others.
	User func(n int) (uid, gid uint32)
	// NewDisk makes a file system of that many bytes that is mounted nowhere. It is nil where that cannot be had.
	NewDisk func(size int64) (*os.File, error)
	// NewMemory makes one in memory.
	NewMemory func(size int64) (*os.File, error)
	// Progress, if not nil, is called while something is waited for, with a few words, and with none when that is over.
	Progress func(id, words string)
	Log      *slog.Logger
}

// Engine is a sandbox that runs images.
type Engine struct {
	config Config
	docker *client.Client
	places slots.Slots

	mu       sync.Mutex
	detached bool
	detach   chan struct{} // closed when detached
	running  map[string]bool
	about    *about          // what the engine says of itself; nil before it is asked
	way      way             // in which devices were given the last time; empty before that
	kept     map[string]kept // by program id: of an earlier life, or has an exit that is not released
}

// kept is a container that is there.
type kept struct{ container, place, private string }

var _ isolation.Sandbox = (*Engine)(nil)

// The labels of a container.
const (
	labelOwner = "mayfly.owner"
	labelSpec  = "mayfly.spec"
	labelPlace = "mayfly.place"
	labelFeed  = "mayfly.feed" // there is a note once it has all of its standard input
)

// New returns an engine. It does not speak to Docker yet.
func New(c Config) (*Engine, error) {
	docker, err := client.NewClientWithOpts(client.WithHost(c.Host), client.WithAPIVersionNegotiation())
	if err != nil {
		return nil, fmt.Errorf("cannot use Docker at %s: %w", c.Host, err)
	}
	return &Engine{config: c, docker: docker, detach: make(chan struct{}), running: map[string]bool{}, kept: map[string]kept{}}, nil
}

// Ping asks the engine for its version.
func (e *Engine) Ping(ctx context.Context) (version string, err error) {
	v, err := e.docker.ServerVersion(ctx)
	if err != nil {
		return "", fmt.Errorf("cannot reach Docker at %s: %w", e.config.Host, err)
	}
	return v.Version, nil
}

// about is what an engine says of itself.
type about struct {
	groups  string // the driver of control groups
	cdi     bool   // it knows the Container Device Interface
	runtime string // that containers have where none is named
}

// ask asks the engine, once.
func (e *Engine) ask(ctx context.Context) (about, error) {
	e.mu.Lock()
	known := e.about
	e.mu.Unlock()
	if known != nil {
		return *known, nil
	}
	info, err := e.docker.Info(ctx)
	if err != nil {
		return about{}, fmt.Errorf("cannot ask Docker how it is set up: %w", err)
	}
	// An engine that has the interface switched off names no directories, and an old one does not know them.
	a := about{groups: info.CgroupDriver, cdi: len(info.CDISpecDirs) > 0, runtime: info.DefaultRuntime}
	e.mu.Lock()
	e.about = &a
	e.mu.Unlock()
	return a, nil
}

// Run implements isolation.Sandbox.
func (e *Engine) Run(ctx context.Context, spec *isolation.Spec, started func(isolation.Started)) (*isolation.Exit, error) {
	e.mu.Lock()
	switch {
	case e.detached:
		e.mu.Unlock()
		return nil, isolation.ErrDetached
	case e.running[spec.ID]:
		e.mu.Unlock()
		return nil, fmt.Errorf("cannot run %s: it is being run", spec.ID)
	}
	e.running[spec.ID] = true
	e.mu.Unlock()
	defer func() {
		e.mu.Lock()
		delete(e.running, spec.ID)
		e.mu.Unlock()
	}()
	// What we ask the engine must not end with the program's context, which ends to have it stopped.
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	go func() {
		select {
		case <-e.detach:
			cancel()
		case <-work.Done():
		}
	}()
	r := &run{engine: e, spec: *spec, begun: time.Now()}
	exit, err := r.all(work, ctx, started)
	var fault *startError
	switch {
	case e.isDetached():
		return nil, isolation.ErrDetached
	case errors.As(err, &fault):
		r.cleanUp(work)
		return &isolation.Exit{StartError: fault.sentence, StartedAt: r.begun, FinishedAt: time.Now()}, nil
	case err != nil:
		r.cleanUp(work)
		return nil, err
	}
	e.mu.Lock()
	e.kept[spec.ID] = kept{r.id, r.label, r.spec.Private}
	e.mu.Unlock()
	return exit, nil
}

// startError is why a program cannot be started: the task's fault.
type startError struct{ sentence string }

func (e *startError) Error() string { return e.sentence }

// Held implements isolation.Sandbox. What is found that never began is removed.
func (e *Engine) Held(ctx context.Context) ([]isolation.Held, error) {
	list, err := e.docker.ContainerList(ctx, container.ListOptions{All: true, Filters: filters.NewArgs(filters.Arg("label", labelOwner+"="+e.config.Owner))})
	if err != nil {
		return nil, fmt.Errorf("cannot list the containers of an earlier life: %w", err)
	}
	var held []isolation.Held
	mounted, parents := map[string]bool{}, map[string]bool{}
	for _, c := range list {
		spec, err := specOf(c.Labels)
		if err == nil && c.State != container.StateCreated {
			var h isolation.Held
			if h, err = e.heldOf(ctx, c.ID, &spec); err == nil {
				e.mu.Lock()
				e.kept[spec.ID] = kept{c.ID, c.Labels[labelPlace], spec.Private}
				e.mu.Unlock()
				held = append(held, h)
				mounted[spec.Private] = true
				parents[e.parentName(c.Labels[labelPlace])] = true
				e.places.Take(placeOf(c.Labels[labelPlace]))
				continue
			}
		}
		if err := e.docker.ContainerRemove(ctx, c.ID, container.RemoveOptions{Force: true, RemoveVolumes: true}); err != nil {
			e.config.Log.Error("container not removed", "container", c.ID, logkey.Err, err)
		}
		killOrphans(c.ID)
	}
	sweepMounts(e.config.Dir, mounted, e.config.Log)
	if err := cgroup.RemoveParents(e.parentName("*"), parents); err != nil {
		e.config.Log.Error("control groups of an earlier life not removed", logkey.Err, err)
	}
	return held, nil
}

// heldOf says how a container of an earlier life is.
func (e *Engine) heldOf(ctx context.Context, id string, spec *isolation.Spec) (isolation.Held, error) {
	c, err := e.docker.ContainerInspect(ctx, id)
	if err != nil {
		return isolation.Held{}, err
	}
	h := isolation.Held{ID: spec.ID, Note: spec.Note, Started: isolation.Started{PID: c.State.Pid, At: parseTime(c.State.StartedAt)}}
	if !c.State.Running {
		h.Exit = &isolation.Exit{Code: c.State.ExitCode}
	}
	return h, nil
}

func specOf(labels map[string]string) (isolation.Spec, error) {
	var spec isolation.Spec
	err := json.Unmarshal([]byte(labels[labelSpec]), &spec)
	return spec, err
}

// Release implements isolation.Sandbox.
func (e *Engine) Release(id string) {
	e.mu.Lock()
	c, ok := e.kept[id]
	if e.running[id] {
		ok = false
	} else {
		delete(e.kept, id)
	}
	e.mu.Unlock()
	if !ok {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), removeLimit)
	defer cancel()
	e.remove(ctx, c.container, c.place)
	forgetAside(c.private)
}

// removeLimit is how long the removal of a container may take; what is left then is found at the next start.
const removeLimit = 30 * time.Second

// remove removes a container and its control groups, and gives its place back; not before that is done, for the next one of the place has
// the same user and the same groups. Where it cannot be done now, it is tried again.
func (e *Engine) remove(ctx context.Context, id, place string) {
	err := e.tryRemove(ctx, id, place)
	if err == nil {
		return
	}
	e.config.Log.Warn("container not removed yet", "container", id, logkey.Err, err)
	go func() {
		for pause := removePause; err != nil; pause = min(2*pause, removeLimit) {
			select {
			case <-time.After(pause):
			case <-e.detach: // the next life finds it
				return
			}
			ctx, cancel := context.WithTimeout(context.Background(), removeLimit)
			err = e.tryRemove(ctx, id, place)
			cancel()
		}
	}()
}

// removePause is the wait before the second try, doubled for each further one up to removeLimit.
const removePause = 100 * time.Millisecond

func (e *Engine) tryRemove(ctx context.Context, id, place string) error {
	if id != "" { // else its name is another's
		err := e.docker.ContainerRemove(ctx, id, container.RemoveOptions{Force: true, RemoveVolumes: true})
		if err != nil && !errdefs.IsNotFound(err) {
			return err
		}
	}
	if err := cgroup.RemoveParents(e.parentName(place), nil); err != nil {
		killOrphans(id) // of an engine that does not know them any more
		return err
	}
	e.places.Return(placeOf(place))
	return nil
}

// placeOf reads a label; -1 where it is none.
func placeOf(label string) int {
	n, err := strconv.Atoi(label)
	if err != nil {
		return -1
	}
	return n
}

// Detach lets go of all programs: all Runs return isolation.ErrDetached, and no new one begins. The containers run on.
func (e *Engine) Detach() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.detached {
		e.detached = true
		close(e.detach)
	}
}

func (e *Engine) isDetached() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.detached
}

// Close lets go of the engine.
func (e *Engine) Close() error {
	e.Detach()
	return e.docker.Close()
}
