package keeper

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/mayfly/mayfly/isolation"
	"github.com/mayfly/mayfly/isolation/process"
)

// Config says where a host's keeper lives and how to start it.
type Config struct {
	// Dir is the state directory; there is one keeper per directory.
	Dir string
	// Argv starts a keeper; Dir is appended.
	Argv []string
	// Env is the keeper's environment. It needs none, and must hold no secret.
	Env []string
	// Policy confines the programs. A keeper that lives has that of the client that started it.
	Policy process.Policy
	// Idle is how long the keeper stays when it holds nothing: 2 s when 0.
	Idle time.Duration
	// Freed, if not nil, is called when nothing is left any more of a program whose exit said that something was (Exit.Left),
	// released or not.
	Freed func(id string)
	Log   *slog.Logger
}

// Client runs programs through the host's keeper, which it starts when there is one to run and sends away when there has been
// none for a while.
type Client struct {
	config Config

	connecting sync.Mutex // one attempt at a time to find or start the keeper; taken before mu

	mu       sync.Mutex
	link     *link // nil while there is no keeper
	runs     map[string]*run
	held     map[string]held // by id: what the keeper holds and no run waits for
	detached bool
	idle     *time.Timer
	deaths   uint64 // of keepers that did not leave in good order
}

var _ isolation.Sandbox = (*Client)(nil)

// run is one call of Run.
type run struct {
	started   chan isolation.Started // holds one
	ended     chan struct{}          // closed when exit or err is set
	exit      *isolation.Exit
	err       error
	startedAt time.Time
}

// New returns a client. It does nothing until it is used.
func New(c Config) *Client {
	if c.Idle == 0 {
		c.Idle = 2 * time.Second
	}
	return &Client{config: c, runs: map[string]*run{}, held: map[string]held{}}
}

// Run implements isolation.Sandbox.
func (c *Client) Run(ctx context.Context, spec *isolation.Spec, started func(isolation.Started)) (*isolation.Exit, error) {
	r, err := c.begin(ctx, spec)
	if err != nil {
		return nil, err
	}
	id := spec.ID // all that is kept of it while the program runs
	done := ctx.Done()
	for {
		select {
		case st := <-r.started:
			if started != nil {
				started(st)
			}
		case <-r.ended:
			select {
			case st := <-r.started:
				if started != nil {
					started(st)
				}
			default:
			}
			return r.exit, r.err
		case <-done:
			done = nil
			c.tell(&frame{Op: opStop, ID: id, Kill: errors.Is(context.Cause(ctx), isolation.ErrKill)})
		}
	}
}

// begin has the keeper run the spec, or joins the program that it holds.
func (c *Client) begin(ctx context.Context, spec *isolation.Spec) (*run, error) {
	for {
		l, err := c.connect(ctx, !spec.Joins)
		if err != nil {
			return nil, err
		}
		c.mu.Lock()
		switch {
		case c.detached:
			c.mu.Unlock()
			return nil, isolation.ErrDetached
		case l != nil && (c.link != l || l.quit):
			c.mu.Unlock()
			select { // it is about to end; another one will be started
			case <-l.gone:
			case <-ctx.Done():
				return nil, ctx.Err()
			}
			continue
		case c.runs[spec.ID] != nil:
			c.mu.Unlock()
			return nil, fmt.Errorf("cannot run %s: it is being run", spec.ID)
		}
		r := &run{started: make(chan isolation.Started, 1), ended: make(chan struct{}), startedAt: time.Now()}
		if h, ok := c.held[spec.ID]; ok {
			delete(c.held, spec.ID)
			c.runs[spec.ID] = r
			if h.Started.PID != 0 {
				r.startedAt = h.Started.At
				r.started <- h.Started
			}
			if h.Exit != nil || h.fault != nil {
				c.end(spec.ID, h.Exit, h.fault)
			}
		} else if spec.Joins { // its keeper has died since
			c.runs[spec.ID] = r
			c.end(spec.ID, &isolation.Exit{Lost: true, StartedAt: r.startedAt, FinishedAt: r.startedAt}, nil)
		} else if err := ctx.Err(); err != nil {
			c.mu.Unlock()
			return nil, err
		} else {
			c.runs[spec.ID] = r
			l.peer.send(&frame{Op: opRun, Spec: spec})
		}
		c.mu.Unlock()
		return r, nil
	}
}

// end completes a run: the exit is then held until it is released. The lock is held.
func (c *Client) end(id string, exit *isolation.Exit, err error) {
	r := c.runs[id]
	if r == nil {
		return
	}
	delete(c.runs, id)
	if err == nil && !exit.Lost {
		c.held[id] = held{ID: id, Exit: exit}
	}
	r.exit, r.err = exit, err
	close(r.ended)
	c.lookIdle()
}

// free passes on that nothing is left of a program. The lock is held.
func (c *Client) free(id string) {
	if c.config.Freed != nil {
		go c.config.Freed(id)
	}
}

// tell sends a frame to the keeper, if there is one.
func (c *Client) tell(f *frame) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.link != nil {
		c.link.peer.send(f)
	}
}

// Held implements isolation.Sandbox. Where no keeper lives, it sweeps what one that died has left.
func (c *Client) Held(ctx context.Context) ([]isolation.Held, error) {
	if _, err := c.connect(ctx, false); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	list := make([]isolation.Held, 0, len(c.held))
	for _, h := range c.held {
		list = append(list, isolation.Held{ID: h.ID, Note: h.Note, Started: h.Started, Exit: h.Exit, Released: h.Released})
	}
	c.lookIdle()
	return list, nil
}

// Health says whether there is a keeper now (an idle host has none), and how many have died, with their workers.
func (c *Client) Health() (up bool, deaths uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.link != nil, c.deaths
}

// Release implements isolation.Sandbox.
func (c *Client) Release(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if h, ok := c.held[id]; ok && h.Exit != nil {
		if h.Released = true; h.Exit.Left == "" {
			delete(c.held, id)
		} else {
			c.held[id] = h // the keeper says when it is free
		}
		if c.link != nil {
			c.link.peer.send(&frame{Op: opRelease, ID: id})
		}
		c.lookIdle()
	}
}

// Detach lets go of all programs: all Runs return isolation.ErrDetached, and no new one begins. What has ended can still be
// released until Close.
func (c *Client) Detach() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.detached = true
	if c.idle != nil {
		c.idle.Stop()
	}
	for id := range c.runs {
		c.end(id, nil, isolation.ErrDetached)
	}
}

// Close lets go of the keeper, which lives on while it holds anything. It may be called more than once.
func (c *Client) Close() error {
	c.Detach()
	c.mu.Lock()
	l := c.link
	c.mu.Unlock()
	if l != nil {
		l.peer.drain() // releases that are under way are not lost
		l.peer.close()
		<-l.gone
	}
	return nil
}

// lookIdle sends a keeper that holds nothing away after a while. The lock is held.
func (c *Client) lookIdle() {
	busy := len(c.runs) > 0 || len(c.held) > 0 || c.link == nil || c.detached
	switch {
	case busy && c.idle != nil:
		c.idle.Stop()
		c.idle = nil
	case !busy && c.idle == nil:
		c.idle = time.AfterFunc(c.config.Idle, c.quit)
	}
}

func (c *Client) quit() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.idle = nil
	if c.link != nil && len(c.runs) == 0 && len(c.held) == 0 && !c.detached {
		c.link.quit = true
		c.link.peer.send(&frame{Op: opQuit})
	}
}
