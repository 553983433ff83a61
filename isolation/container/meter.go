package container

import (
	"time"

	"github.com/mayfly/mayfly/isolation/cgroup"
)

// usage is what a container has used.
type usage struct {
	cpu    time.Duration
	memory int64 // bytes, the most at a time
}

// meter reads a container's account now and then: when the container ends, the engine removes its control group at once, and the
// account with it. So what was used after the last look is missing.
type meter struct {
	quit chan struct{}
	done chan usage
}

// The pauses between two looks, which grow with the container's age.
const (
	firstPause = 10 * time.Millisecond
	lastPause  = time.Second
)

// startMeter reads the account of the control group that a process is in.
func startMeter(pid int) *meter {
	m := &meter{quit: make(chan struct{}), done: make(chan usage, 1)}
	group := cgroup.Of(pid)
	go func() {
		var u usage
		for pause := firstPause; ; pause = min(lastPause, pause*3/2) {
			if a, ok := group.Look(); ok {
				u.cpu, u.memory = max(u.cpu, a.CPU), max(u.memory, a.MemoryPeak)
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
func (m *meter) stop() usage {
	close(m.quit)
	return <-m.done
}
