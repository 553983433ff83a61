package container

import (
	"context"
	"time"

	"github.com/mayfly/mayfly/internal/logkey"
	"github.com/mayfly/mayfly/isolation/cgroup"
)

// meter reads a container's account now and then, where the container's group has no parent of ours: when the container ends, the engine
// removes the group at once, and the account with it. So what was used after the last look is missing.
type meter struct {
	quit chan struct{}
	done chan cgroup.Account
}

// The pauses between two looks, which grow with the container's age.
const (
	firstPause = 10 * time.Millisecond
	lastPause  = time.Second
)

// startMeter reads the account of the control group that a process is in.
func startMeter(pid int) *meter {
	m := &meter{quit: make(chan struct{}), done: make(chan cgroup.Account, 1)}
	group := cgroup.Of(pid)
	go func() {
		var u cgroup.Account
		for pause := firstPause; ; pause = min(lastPause, pause*3/2) {
			if a, ok := group.Look(); ok {
				u = a // counts and peaks never fall
			}
			select {
			case <-m.quit:
				m.done <- u
				return
			case <-time.After(pause):
			}
		}
	}()
	return m
}

// stop ends the reading and returns what was seen.
func (m *meter) stop() cgroup.Account {
	close(m.quit)
	return <-m.done
}

// parentName is that of the control groups of the container at a place.
func (e *Engine) parentName(place string) string { return "mayfly-" + e.config.Owner + "-c" + place }

// parent makes the control groups above those of a container, or returns nil where that cannot be had: systemd keeps its groups itself,
// and we may not see what the engine sees.
func (e *Engine) parent(ctx context.Context, place string, memory int64) (*cgroup.Parent, error) {
	a, err := e.ask(ctx)
	if err != nil {
		return nil, err
	}
	if a.groups != "cgroupfs" {
		return nil, nil
	}
	p, err := cgroup.NewParent(e.parentName(place), memory)
	if err != nil {
		e.config.Log.Debug("usage of a container is sampled", logkey.Err, err)
		return nil, nil
	}
	return p, nil
}
