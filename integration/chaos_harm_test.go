package integration

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// harm has something happen to a host, mends it after a while, and goes on with the next.
func (c *chaos) harm(h *harmed) {
	from := time.Now()
	over := func(kind string, mend func()) func() {
		return func() {
			mend()
			c.happened(h.name(), kind, from)
			c.in(c.between(1, 5), func() { c.harm(h) })
		}
	}
	switch n := c.rng.IntN(100); {
	case n < 30:
		h.kill()
		c.mend(c.between(0, 2), over(killManager, h.start))
	case n < 45:
		h.signal(syscall.SIGSTOP)
		c.mend(c.between(0.5, 15), over(stopManager, func() { h.signal(syscall.SIGCONT) }))
	case n < 50:
		pid := h.keeperPID()
		if pid > 0 {
			_ = syscall.Kill(pid, syscall.SIGSTOP)
		}
		c.mend(c.between(0.5, 10), over(stopKeeper, func() {
			if pid > 0 {
				_ = syscall.Kill(pid, syscall.SIGCONT)
			}
		}))
	case n < 57:
		if pid := h.keeperPID(); pid > 0 {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		c.mend(0, over(killKeeper, func() {}))
	case n < 75:
		for _, p := range h.proxies {
			p.Stop()
		}
		c.mend(c.between(0, 5), over(cutOff, func() {
			for _, p := range h.proxies {
				if err := p.Start(); err != nil {
					c.fail("%v", err)
				}
			}
		}))
	case n < 85:
		c.mend(c.between(1, c.longest), over(silence, c.toxic(h, `{"type": "timeout", "attributes": {"timeout": 0}}`)))
	case n < 92:
		c.mend(c.between(1, 8), over(fullDisk, c.fill(h)))
	default:
		c.mend(c.between(1, 5), over(slowness, c.toxic(h, `{"type": "latency", "attributes": {"latency": 200, "jitter": 100}}`)))
	}
}

// toxic spoils a host's connections both ways, and returns what mends them. Those that were silent are cut: what was sent is lost.
func (c *chaos) toxic(h *harmed, text string) (mend func()) {
	for _, p := range h.proxies {
		for _, stream := range []string{"upstream", "downstream"} {
			if _, err := p.Toxics.AddToxicJson(strings.NewReader(strings.Replace(text, "{", fmt.Sprintf(`{"stream": %q, "name": %[1]q, `, stream), 1))); err != nil {
				c.fail("%v", err)
			}
		}
	}
	return func() {
		for _, p := range h.proxies {
			p.Toxics.ResetToxics(context.Background())
		}
	}
}

// ownDisk gives the host a small file system of its own for its state.
func (h *harmed) ownDisk() {
	state := filepath.Join(h.dir, "state")
	err := os.Mkdir(state, 0o700)
	if err == nil {
		err = syscall.Mount("tmpfs", state, "tmpfs", 0, "size=128m,mode=0700")
	}
	if err != nil {
		h.tb.Fatalf("cannot give a host its own disk: %v", err)
	}
	h.tb.Cleanup(func() {
		h.stop()
		_ = syscall.Unmount(state, syscall.MNT_DETACH)
	})
}

// fill leaves no room on a host's disk, and returns what makes room again.
func (c *chaos) fill(h *harmed) (mend func()) {
	name := filepath.Join(h.dir, "state", "filler")
	f, err := os.Create(name)
	for chunk := make([]byte, 1<<20); err == nil; {
		_, err = f.Write(chunk)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		c.fail("cannot fill a disk: %v", err)
	}
	return func() {
		if err := errors.Join(f.Close(), os.Remove(name)); err != nil {
			c.fail("%v", err)
		}
	}
}

// harmBroker ends the broker and starts it again.
func (c *chaos) harmBroker() {
	from, kind := time.Now(), killBroker
	if c.rng.IntN(2) == 0 {
		kind = stopBroker
		if err := c.nodes[0].Stop(); err != nil {
			c.fail("%v", err)
		}
	} else {
		c.nodes[0].Kill()
	}
	c.mend(c.between(0, 3), func() {
		if err := c.nodes[0].Start(); err != nil {
			c.fail("%v", err)
		}
		c.happened("", kind, from)
		c.in(c.between(15, 30), c.harmBroker)
	})
}
