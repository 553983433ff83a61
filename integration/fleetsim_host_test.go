package integration

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/mayfly/mayfly/manager"
	"github.com/mayfly/mayfly/manager/history"
	"github.com/mayfly/mayfly/queue"
	"github.com/mayfly/mayfly/queue/rabbit"
	"github.com/mayfly/mayfly/worker"
)

// simHost is a manager as the program wires it, but for its workers: they last as long as their tasks say, and are nothing else.
type simHost struct {
	shape   simShape
	manager *manager.Manager
	client  *rabbit.Client
	past    *history.Store
	// joined is closed when other hosts can reach it.
	joined chan struct{}
	stop   context.CancelFunc
	ended  chan error
	deafen context.CancelFunc
	group  sync.WaitGroup
}

// startSimHost makes a host and has it serve. Its window is what it would be by default where it is 0.
func startSimHost(ctx context.Context, dir, url, name string, shape simShape, window int, runner worker.Runner, log *slog.Logger) (*simHost, error) {
	if window == 0 {
		window = max(8, 2*int(shape.milliCPU/1000))
	}
	past, err := history.Open(filepath.Join(dir, name+".db"), history.Options{MaxTasks: 10000, Log: log})
	if err != nil {
		return nil, err
	}
	client, err := rabbit.Dial(ctx, rabbit.Config{URLs: []string{url}, Host: name, Pools: []string{queue.DefaultPool}, Log: log})
	if err != nil {
		return nil, errors.Join(err, past.Close())
	}
	h := &simHost{shape: shape, client: client, past: past, joined: make(chan struct{}), ended: make(chan error, 1)}
	h.manager = manager.New(manager.Config{
		Host: name, Version: "simulated", Pools: []string{queue.DefaultPool}, Window: window, CutOff: rabbit.CutOff,
		Capacity: manager.Capacity{MilliCPU: shape.milliCPU, Memory: shape.memory}, DrainTimeout: time.Minute, OnStop: manager.StopWorkers,
		Defaults: manager.Defaults{MilliCPU: 1000, PIDs: 4096, Grace: 10 * time.Second, MaxAttempts: 1, Backoff: 10 * time.Second, OnLost: queue.KeepOnLost},
	}, manager.Services{
		Source: client.Source(), Publisher: client, Cemetery: client, Runner: runner, History: past, Archive: past, Fleet: client,
		Resolve:  func(t queue.Task) (queue.Task, error) { return t, nil },
		Announce: client.Announce, Broadcast: client.Cancel, Heard: client.Heard, ReplyTo: client.ReplyTo, QueueState: client.State,
		Backlog: manager.Backlog{Depth: client.Depth}, InReach: func() bool { up, _ := client.Connection(); return up },
		Detach: func() {}, Discard: func(string) {}, Sweep: func(func(string) bool) {}, Output: func(string) (string, string) { return "", "" }, Log: log,
	})
	hears, deafen := context.WithCancel(context.Background())
	h.deafen = deafen
	h.group.Go(func() { h.listen(hears) })
	serves, stop := context.WithCancel(context.Background())
	h.stop = stop
	go func() { h.ended <- h.manager.Run(serves, context.Background()) }()
	return h, nil
}

// listen hands on what other hosts say, from when they can reach it.
func (h *simHost) listen(ctx context.Context) {
	select {
	case <-h.client.Joined():
		h.manager.Joined()
		close(h.joined)
		h.manager.Listen(ctx, h.client)
	case <-ctx.Done():
	}
}

// close has the host leave in good order.
func (h *simHost) close() error {
	h.stop()
	err := <-h.ended
	h.deafen()
	h.group.Wait()
	return errors.Join(err, h.client.Close(), h.past.Close())
}

// simRunner is the workers of one host.
type simRunner struct {
	host  int
	story *simStory
}

// Run implements [worker.Runner].
func (r *simRunner) Run(ctx context.Context, a *worker.Attempt, started func(int, time.Time)) (*worker.Outcome, error) {
	n, err := simNumber(a.Task.ID)
	if err != nil {
		return nil, err
	}
	seconds, err := strconv.ParseFloat(a.Task.Command[1], 64)
	if err != nil {
		return nil, fmt.Errorf("cannot read how long %s lasts: %w", a.Task.ID, err)
	}
	begun := time.Now()
	started(1, begun)
	r.story.begin(n, r.host, begun)
	o := &worker.Outcome{Cause: queue.CauseNone, ExitCode: new(int), StartedAt: begun}
	timer := time.NewTimer(time.Duration(seconds * float64(time.Second)))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		o.Cause, o.ExitCode = queue.CauseCancelled, nil
	}
	o.FinishedAt = time.Now()
	o.Usage.WallSeconds = o.FinishedAt.Sub(begun).Seconds()
	r.story.end(n, o.FinishedAt)
	return o, nil
}

// Held implements [worker.Runner].
func (r *simRunner) Held(context.Context) ([]worker.Held, error) { return nil, nil }

// Release implements [worker.Runner].
func (r *simRunner) Release(string) {}

// complaints is a handler of logs that counts what is wrong.
type complaints struct {
	mu     sync.Mutex
	counts map[string]int
}

// Enabled implements [slog.Handler].
func (c *complaints) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelWarn }

// Handle implements [slog.Handler].
func (c *complaints) Handle(_ context.Context, r slog.Record) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counts[r.Message]++
	return nil
}

// WithAttrs implements [slog.Handler].
func (c *complaints) WithAttrs([]slog.Attr) slog.Handler { return c }

// WithGroup implements [slog.Handler].
func (c *complaints) WithGroup(string) slog.Handler { return c }
