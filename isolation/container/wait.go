package container

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/docker/docker/api/types/container"

	"github.com/mayfly/mayfly/internal/logkey"
	"github.com/mayfly/mayfly/isolation"
)

// await waits until the container has ended, and stops it when its time is over or somebody asks for that. lost says that the engine
// was away meanwhile.
func (r *run) await(ctx, asked context.Context, begun time.Time) (lost bool, err error) {
	ended := make(chan error, 1)
	wait := func() { ended <- r.ended(ctx) }
	go wait()
	var timeout, grace <-chan time.Time
	if r.spec.Timeout > 0 {
		t := time.NewTimer(time.Until(begun.Add(r.spec.Timeout)))
		defer t.Stop()
		timeout = t.C
	}
	stop := asked.Done()
	for {
		select {
		case err := <-ended:
			if err == nil {
				return false, nil
			}
			if ctx.Err() != nil {
				return false, ctx.Err()
			}
			r.engine.config.Log.Warn("lost sight of a container", "program", r.spec.ID, logkey.Err, err)
			if err := r.engine.comeBack(ctx, r.spec.ID); err != nil {
				return true, err
			}
			// An engine that comes back ends what it finds, unless it was set up to live apart from its containers, and makes up the exit
			// codes of what ended meanwhile. What was not said of the input is lost with it.
			if c, err := r.engine.docker.ContainerInspect(ctx, r.id); err == nil && (!c.State.Running || !r.fed.Load()) {
				if c.State.Running {
					r.kill(ctx)
				}
				return true, nil
			}
			if r.stopped != isolation.NotStopped && grace == nil {
				r.kill(ctx) // what was said before may not have arrived
			}
			go wait()
		case <-timeout:
			timeout = nil
			grace = r.stop(ctx, isolation.TimedOut, false)
		case <-stop:
			stop = nil
			grace = r.stop(ctx, isolation.Asked, errors.Is(context.Cause(asked), isolation.ErrKill))
		case <-grace:
			grace = nil
			r.kill(ctx)
		}
	}
}

// ended returns when the container does not run.
func (r *run) ended(ctx context.Context) error {
	waiting, failed := r.engine.docker.ContainerWait(ctx, r.id, container.WaitConditionNotRunning)
	select {
	case w := <-waiting:
		if w.Error != nil {
			return errors.New(w.Error.Message)
		}
		return nil
	case err := <-failed:
		return err
	}
}

// stop asks the program to end, and returns when its grace is over.
func (r *run) stop(ctx context.Context, why isolation.Stop, kill bool) <-chan time.Time {
	if r.stopped == isolation.NotStopped {
		r.stopped = why
	} else if !kill {
		return nil
	}
	if kill || r.spec.Grace == 0 {
		r.kill(ctx)
		return nil
	}
	if err := r.engine.docker.ContainerKill(ctx, r.id, "SIGTERM"); err != nil {
		r.engine.config.Log.Warn("container not asked to end", "program", r.spec.ID, logkey.Err, err)
	}
	return time.After(r.spec.Grace)
}

func (r *run) kill(ctx context.Context) {
	r.killed = true
	if err := r.engine.docker.ContainerKill(ctx, r.id, "SIGKILL"); err != nil {
		r.engine.config.Log.Warn("container not killed", "program", r.spec.ID, logkey.Err, err)
	}
}

// awayLimit is how long the engine may be away before its containers are taken for lost.
const awayLimit = 10 * time.Minute

// comeBack waits until the engine answers again.
func (e *Engine) comeBack(ctx context.Context, id string) error {
	_, err := e.docker.Ping(ctx)
	if err == nil {
		return nil
	}
	e.progress(id, "waits for Docker to answer")
	defer e.progress(id, "")
	for end := time.Now().Add(awayLimit); time.Now().Before(end); {
		if _, err = e.docker.Ping(ctx); err == nil {
			return nil
		}
		select {
		case <-time.After(500 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return fmt.Errorf("cannot reach Docker for %s: %w", awayLimit, err)
}
