package nvidia

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"github.com/mayfly/mayfly/gpu"
	"github.com/mayfly/mayfly/internal/logkey"
)

// Config is what a Client needs to know.
type Config struct {
	// Argv starts the helper.
	Argv []string
	// Library is the path of libnvidia-ml.so.1, or empty for where the system has it. Root is "/", or for tests where dev and proc are.
	Library, Root string
	// CallLimit bounds each call in time, InventoryLimit the first: a driver that nobody uses loads its firmware then, GPU by GPU.
	CallLimit, InventoryLimit time.Duration
	// Idle is how long a helper is kept that has nothing to do.
	Idle time.Duration
	Log  *slog.Logger
}

// DefaultConfig has limits for real drivers.
var DefaultConfig = Config{Root: "/", CallLimit: 5 * time.Second, InventoryLimit: time.Minute, Idle: 5 * time.Second}

// Client is a gpu.Driver.
type Client struct {
	config Config

	mu     sync.Mutex
	helper *helper
	report func(gpu.Fault)
	idle   *time.Timer
	next   int
	// stuck are helpers that do not die; until is when the next one may be started for all that.
	stuck  int
	until  time.Time
	closed bool
}

var _ gpu.Driver = (*Client)(nil)

// helper is a process that speaks to the driver.
type helper struct {
	cmd  *exec.Cmd
	in   io.WriteCloser
	gone chan struct{} // closed when it was reaped

	mu      sync.Mutex // guards writing, and all below
	waiting map[int]chan answer
	err     error // why it is gone
	busy    int
	watches bool
}

const (
	// stuckMax is how many helpers may be stuck in the kernel before no more are started for stuckPause.
	stuckMax   = 3
	stuckPause = time.Minute
	// dieLimit is how long a killed helper may take to die.
	dieLimit = 2 * time.Second
)

// New returns a client. It starts nothing.
func New(c Config) *Client { return &Client{config: c} }

// Inventory implements gpu.Driver.
func (c *Client) Inventory(ctx context.Context) (*gpu.Inventory, error) {
	a, err := c.ask(ctx, request{Call: callInventory}, c.config.InventoryLimit)
	if err != nil {
		return nil, err
	}
	return a.Inventory, nil
}

// States implements gpu.Driver.
func (c *Client) States(ctx context.Context, gpus []string, settled bool) ([]gpu.State, error) {
	a, err := c.ask(ctx, request{Call: callStates, GPUs: gpus, Settled: settled}, c.config.CallLimit)
	return a.States, err
}

// Watch implements gpu.Driver.
func (c *Client) Watch(report func(gpu.Fault)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.report = report
	if report == nil {
		c.rest()
		return
	}
	if h := c.helper; h != nil {
		c.watch(h)
	}
}

// watch has a helper report. The lock is held.
func (c *Client) watch(h *helper) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.watches && h.err == nil {
		h.watches = true
		_ = h.write(request{Call: callWatch}) // where it is gone, the next call says so
	}
}

// ask has one question answered in time.
func (c *Client) ask(ctx context.Context, r request, limit time.Duration) (answer, error) {
	h, err := c.hire()
	if err != nil {
		return answer{}, err
	}
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		h.busy--
		c.rest()
	}()
	c.mu.Lock()
	c.next++
	r.ID = c.next
	c.mu.Unlock()
	reply := make(chan answer, 1)
	h.mu.Lock()
	if err = h.err; err == nil {
		h.waiting[r.ID] = reply
		err = h.write(r)
	}
	h.mu.Unlock()
	if err != nil {
		c.dismiss(h, fmt.Errorf("cannot speak to the GPU helper: %w", err))
		return answer{}, err
	}
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case a := <-reply:
		switch {
		case a.None:
			return a, fmt.Errorf("%w: %s", gpu.ErrNone, strings.TrimPrefix(a.Error, gpu.ErrNone.Error()+": "))
		case a.Error != "":
			return a, errors.New(a.Error)
		}
		return a, nil
	case <-t.C:
		err := fmt.Errorf("the call %q took longer than %s", r.Call, limit)
		c.dismiss(h, err)
		return answer{}, err
	case <-ctx.Done():
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.waiting, r.ID)
		return answer{}, ctx.Err()
	}
}

// hire returns a helper that is counted as busy.
func (c *Client) hire() (*helper, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, errors.New("cannot ask the GPU driver: the client is closed")
	}
	if c.idle != nil {
		c.idle.Stop()
	}
	if c.helper == nil {
		if c.stuck >= stuckMax && time.Now().Before(c.until) {
			return nil, fmt.Errorf("cannot ask the GPU driver: %d helpers are stuck in it; the host needs a restart", c.stuck)
		}
		h, err := c.start()
		if err != nil {
			return nil, err
		}
		c.helper = h
	}
	if c.report != nil {
		c.watch(c.helper)
	}
	c.helper.busy++
	return c.helper, nil
}

// rest has a helper without work end after a while. The lock is held.
func (c *Client) rest() {
	h := c.helper
	if h == nil || h.busy > 0 || c.report != nil {
		return
	}
	if c.idle != nil {
		c.idle.Stop()
	}
	c.idle = time.AfterFunc(c.config.Idle, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.helper == h && h.busy == 0 && c.report == nil {
			c.helper = nil
			h.in.Close() // which ends it
		}
	})
}

// start starts a helper. The lock is held.
func (c *Client) start() (*helper, error) {
	text, err := json.Marshal(settings{c.config.Library, c.config.Root})
	if err != nil {
		return nil, fmt.Errorf("cannot tell the GPU helper its settings: %w", err)
	}
	cmd := exec.CommandContext(context.Background(), c.config.Argv[0], append(c.config.Argv[1:len(c.config.Argv):len(c.config.Argv)], string(text))...)
	cmd.Args[0] = "mayfly"
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	if path := os.Getenv("LD_LIBRARY_PATH"); path != "" { // where NVIDIA's container images have the library
		cmd.Env = append(cmd.Env, "LD_LIBRARY_PATH="+path)
	}
	cmd.Dir = "/"
	cmd.Stderr = &lines{log: c.config.Log}
	h := &helper{cmd: cmd, gone: make(chan struct{}), waiting: map[int]chan answer{}}
	if h.in, err = cmd.StdinPipe(); err != nil {
		return nil, fmt.Errorf("cannot start the GPU helper: %w", err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("cannot start the GPU helper: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("cannot start the GPU helper: %w", err)
	}
	go c.listen(h, out)
	return h, nil
}

// listen takes what a helper says until it is gone.
func (c *Client) listen(h *helper, out io.Reader) {
	r := bufio.NewReader(out)
	for {
		line, err := r.ReadBytes('\n')
		if err != nil {
			break
		}
		var a answer
		if err := json.Unmarshal(line, &a); err != nil {
			c.config.Log.Error("GPU helper not understood", logkey.Err, err)
			break
		}
		if a.Fault != nil {
			c.mu.Lock()
			report := c.report
			c.mu.Unlock()
			if report != nil {
				report(*a.Fault)
			}
			continue
		}
		h.mu.Lock()
		reply := h.waiting[a.ID]
		delete(h.waiting, a.ID)
		h.mu.Unlock()
		if reply != nil {
			reply <- a
		}
	}
	err := h.cmd.Wait()
	close(h.gone)
	if err == nil {
		err = errors.New("it ended")
	}
	c.dismiss(h, fmt.Errorf("the GPU helper is gone: %w", err))
}

// dismiss gives a helper up.
func (c *Client) dismiss(h *helper, why error) {
	_ = h.cmd.Process.Kill() // gone already: then it was that
	c.mu.Lock()
	mine := c.helper == h
	if mine {
		c.helper = nil
	}
	c.mu.Unlock()
	h.mu.Lock()
	first := h.err == nil
	if first {
		h.err = why
	}
	waiting := h.waiting
	h.waiting = map[int]chan answer{}
	h.mu.Unlock()
	for _, reply := range waiting {
		reply <- answer{Error: why.Error()}
	}
	if !first {
		return
	}
	if mine {
		c.config.Log.Warn("GPU helper given up", logkey.Err, why)
	}
	go c.bury(h)
}

// bury counts a helper that does not die for as long as it does not.
func (c *Client) bury(h *helper) {
	select {
	case <-h.gone:
		return
	case <-time.After(dieLimit):
	}
	c.mu.Lock()
	c.stuck++
	c.until = time.Now().Add(stuckPause)
	c.mu.Unlock()
	c.config.Log.Error("GPU helper stuck in the kernel", logkey.PID, h.cmd.Process.Pid)
	<-h.gone
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stuck--
}

// write sends a line. The helper's lock is held.
func (h *helper) write(r request) error {
	text, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("cannot encode a question: %w", err)
	}
	_, err = h.in.Write(append(text, '\n'))
	return err
}

// Close ends the helper.
func (c *Client) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed, c.report = true, nil
	if c.helper != nil {
		c.helper.in.Close()
		c.helper = nil
	}
}

// lines logs what a helper writes to its standard error.
type lines struct{ log *slog.Logger }

func (l *lines) Write(b []byte) (int, error) {
	l.log.Warn("GPU helper", logkey.Err, string(b[:min(len(b), 1000)]))
	return len(b), nil
}
