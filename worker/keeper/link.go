package keeper

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/mayfly/mayfly/internal/logkey"
	"github.com/mayfly/mayfly/internal/pause"
	"github.com/mayfly/mayfly/isolation"
)

// link is the connection to one keeper.
type link struct {
	peer *peer
	gone chan struct{} // closed when the keeper has ended or let go of us, and what that means has been dealt with
	bye  bool          // the keeper quit in good order
	quit bool          // it was asked to
}

// byeLimit is how long a keeper that is about to end may still answer. It takes milliseconds unless the host is very busy.
const byeLimit = 15 * time.Second

// leaveLimit is how long one that does not answer is waited for by who is to stop; and one that cannot be reached, but runs.
const leaveLimit = 5 * time.Second

// tryPause is between two tries to reach it.
const tryPause = 20 * time.Millisecond

// connect returns the link to the keeper; where none lives it starts one, or returns nil.
func (c *Client) connect(ctx context.Context, start bool) (*link, error) {
	c.connecting.Lock()
	defer c.connecting.Unlock()
	c.mu.Lock()
	l, detached := c.link, c.detached
	c.mu.Unlock()
	if detached {
		return nil, isolation.ErrDetached
	}
	if l != nil {
		return l, nil
	}
	var failure error
	began := time.Now()
	for time.Since(began) < byeLimit { // a keeper that answers may be about to end
		conn, err := c.dial()
		if err != nil { // nobody answers: then nobody lives, for a keeper answers from before it says that it is ready
			if c.alive() { // unless it is about to end, its socket was removed, or we cannot open one
				if time.Since(began) > leaveLimit {
					return nil, fmt.Errorf("cannot reach the keeper of %s, which runs: %w; its workers are let run, and end when it is killed", c.config.Dir, err)
				}
				if err := pause.For(ctx, tryPause); err != nil {
					return nil, err
				}
				continue
			}
			if err := c.sweep(); err != nil {
				c.config.Log.Error("leftovers of a keeper that died", logkey.Err, err)
			}
			if !start {
				return nil, nil
			}
			if err := c.start(ctx); err != nil {
				return nil, err
			}
			if conn, err = c.dial(); err != nil {
				return nil, fmt.Errorf("cannot reach the keeper that was just started: %w", err)
			}
		}
		if l, failure = c.welcome(ctx, conn); failure == nil {
			return l, nil
		}
		if err := pause.For(ctx, tryPause); err != nil {
			return nil, err
		}
	}
	return nil, failure
}

func (c *Client) dial() (conn net.Conn, err error) {
	err = throughDir(c.config.Dir, socketName, func(path string) error {
		conn, err = net.Dial("unix", path)
		return err
	})
	return conn, err
}

// welcome reads what the keeper holds and begins to listen.
func (c *Client) welcome(ctx context.Context, conn net.Conn) (*link, error) {
	silent := time.AfterFunc(byeLimit, func() {
		c.config.Log.Error("keeper does not answer: it is waited for, as its workers may run on", logkey.Path, c.config.Dir)
	})
	done := make(chan struct{})
	defer close(done)
	defer context.AfterFunc(ctx, func() { // what is to be stopped is joined first; but one that stands still is left
		select {
		case <-done:
		case <-time.After(leaveLimit):
			conn.Close()
		}
	})()
	r := bufio.NewReader(conn)
	var list []held
	var err error
	for more := true; more && err == nil; {
		var hello *frame
		if hello, err = readFrame(r); err == nil && hello.Op != opHello {
			err = fmt.Errorf("it said %q first", hello.Op)
		}
		if err == nil {
			list, more = append(list, hello.Held...), hello.More
		}
	}
	silent.Stop()
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("cannot talk to the keeper: %w", err)
	}
	l := &link{peer: newPeer(conn), gone: make(chan struct{})}
	c.mu.Lock()
	c.link = l
	for _, h := range list {
		c.held[h.ID] = h
	}
	c.mu.Unlock()
	go c.listen(l, r)
	return l, nil
}

// listen takes in what the keeper says until it is gone.
func (c *Client) listen(l *link, r *bufio.Reader) {
	for {
		f, err := readFrame(r)
		if err != nil {
			break
		}
		c.handle(l, f)
	}
	l.peer.close()
	c.lost(l)
}

func (c *Client) handle(l *link, f *frame) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch f.Op {
	case opStarted:
		if r := c.runs[f.ID]; r != nil {
			r.startedAt = f.Started.At
			select {
			case r.started <- *f.Started:
			default: // it was told before
			}
		} else if h, ok := c.held[f.ID]; ok {
			h.Started = *f.Started
			c.held[f.ID] = h
		}
	case opEnded:
		if c.runs[f.ID] != nil {
			c.end(f.ID, f.Exit, nil)
		} else if h, ok := c.held[f.ID]; ok {
			h.Exit = f.Exit
			c.held[f.ID] = h
		}
	case opFailed:
		if h, ok := c.held[f.ID]; ok && c.runs[f.ID] == nil { // for whoever joins it
			h.fault = errors.New(f.Error)
			c.held[f.ID] = h
		}
		c.end(f.ID, nil, errors.New(f.Error))
	case opFreed:
		if h, ok := c.held[f.ID]; ok && h.Exit != nil {
			// It may be released already or not: an exit with nothing left is what its release waits for.
			exit := *h.Exit
			exit.Left = ""
			h.Exit = &exit
			c.held[f.ID] = h
			if h.Released {
				delete(c.held, f.ID)
			}
		}
		c.free(f.ID)
		c.lookIdle()
	case opBusy:
		l.quit = false
		c.lookIdle()
	case opBye:
		l.bye = true
	}
}

// lost deals with the end of a connection: in good order, by our own leave, or because the keeper died.
func (c *Client) lost(l *link) {
	c.mu.Lock()
	detached := c.detached
	c.mu.Unlock()
	var verdict error // nil: lost with the keeper
	died := false
	switch {
	case detached:
		verdict = isolation.ErrDetached
	case l.bye:
	case c.alive():
		c.config.Log.Error("another manager has taken the keeper over")
		verdict = isolation.ErrDetached
	default:
		died = true
		c.config.Log.Error("keeper lost: its workers are killed and their tasks run again")
		if err := c.sweep(); err != nil {
			c.config.Log.Error("workers left by the keeper that died", logkey.Err, err)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.link = nil
	if died {
		c.deaths++
	}
	now := time.Now()
	for id, r := range c.runs {
		c.end(id, &isolation.Exit{Lost: true, StartedAt: r.startedAt, FinishedAt: now}, verdict)
	}
	for id, h := range c.held {
		if verdict == nil && h.Exit != nil && h.Exit.Left != "" {
			c.free(id) // nobody is there who could tell
		}
	}
	clear(c.held)
	c.lookIdle()
	close(l.gone)
}
