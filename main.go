// Mayfly is a per-host pool manager: it takes tasks from RabbitMQ or from its own embedded queue, gives each one a
// short-lived worker, reaps it, and reports one honest outcome.
//
// This file wires the rooms together, top to bottom; docs/design.md says what each is for.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/mayfly/mayfly/api/metrics"
	"github.com/mayfly/mayfly/api/spans"
	"github.com/mayfly/mayfly/cli"
	"github.com/mayfly/mayfly/gpu/nvidia"
	"github.com/mayfly/mayfly/internal/logkey"
	"github.com/mayfly/mayfly/internal/rest"
	"github.com/mayfly/mayfly/isolation"
	"github.com/mayfly/mayfly/manager"
	"github.com/mayfly/mayfly/manager/history"
	"github.com/mayfly/mayfly/queue"
	"github.com/mayfly/mayfly/queue/tasktype"
	"github.com/mayfly/mayfly/worker"
	"github.com/mayfly/mayfly/worker/keeper"
)

// version is stamped by the linker (-X main.version=...).
var version = "dev"

func main() {
	os.Exit(cli.Execute(cli.Program{
		Version:   version,
		Run:       func(ctx context.Context, _ cli.RunArgs) error { return run(ctx) },
		Keeper:    keeper.Main,
		GPUHelper: nvidia.Main,
		RunHelp:   printVariables,
		Check:     check,
		Depth:     brokerDepth,
		Socket:    defaultSocket,
	}))
}

const (
	// restAfter is how long nothing must have happened for memory to be given back.
	restAfter = 5 * time.Second
	// spareHeap is how much garbage a busy manager may have, in bytes.
	spareHeap = 16 << 20
)

// run is the manager's life.
func run(ctx context.Context) error {
	c, err := readConfig()
	if err != nil {
		return err
	}
	log := newLogger(os.Stderr, c)
	slog.SetDefault(log)

	// The first SIGTERM or SIGINT ends the intake, a second one hurries the end.
	intake, hurry, release := stopSignals(ctx)
	defer release()

	// When there was nothing to do for long: the last thing of all, once nothing is held any more.
	var m *manager.Manager
	defer func() {
		if m != nil && m.LeftIdle() {
			runIdleCommand(c.IdleCommand, log)
		}
	}()

	rest.Leeway(spareHeap)
	quiet := rest.New(restAfter, func() {
		rest.Slacken()
		rest.Trim() // last, for all else touches memory
	}, rest.Tighten)

	// Modes are meant as they are written, whatever we were started with: sockets are nobody else's, workers pass through to what is theirs.
	syscall.Umask(0o022)

	// One manager a state directory: all that follows relies on it.
	if err := os.MkdirAll(filepath.Join(c.StateDir, "attempts"), 0o711); err != nil {
		return fmt.Errorf("cannot make the state directory MAYFLY_STATE_DIR=%s: %w", c.StateDir, err)
	}
	if err := ownDirectory(c.StateDir); err != nil {
		return err
	}
	unlock, err := lockState(c.StateDir)
	if err != nil {
		return err
	}
	defer unlock()
	capacity, err := detectCapacity(c)
	if err != nil {
		return err
	}
	if err := overlent(c); err != nil {
		log.Warn("more is lent than there is", logkey.Reason, err.Error())
	}

	// What messages may ask for.
	types, err := tasktype.Load(c.TypesDir)
	if err != nil {
		return err
	}
	types.Reloaded = func(err error) {
		if err != nil {
			log.Error("task types not read again, the last good ones hold", logkey.Err, err)
			return
		}
		log.Info("task types read again", logkey.Path, c.TypesDir)
	}
	allow, err := tasktype.ParseAllow(c.Allow)
	if err != nil {
		return err
	}

	keys, signer, err := c.signing()
	if err != nil {
		return err
	}

	// Workers are children of the keeper, which outlives us; each has a directory of its own.
	policy, err := c.policy()
	if err != nil {
		return err
	}
	if err := passable(c.StateDir, policy); err != nil {
		return err
	}
	cannot, err := confinement(policy, log)
	if err != nil {
		return err
	}
	sandbox := keeper.New(keeper.Config{Dir: c.StateDir, Argv: []string{"/proc/self/exe", "keeper"}, Policy: policy, Log: log,
		Freed: func(attemptID string) { m.Freed(attemptID) }})
	defer sandbox.Close()
	engine, why, err := openContainers(intake, c, policy, cannot, log, func(id, words string) { m.Progress(id, words) })
	if err != nil {
		return err
	}
	cannot.Containers = why
	router := &isolation.Router{Processes: sandbox}
	detach := sandbox.Detach
	if engine != nil {
		defer func() { _ = engine.Close() }()
		router.Images = engine
		detach = func() { sandbox.Detach(); engine.Detach() }
	}
	// GPUs are spoken to by a helper process, and only while there is something to ask.
	gpus, closeGPUs, err := openGPUs(intake, c, log, func() { m.GPUsChanged() })
	if err != nil {
		return err
	}
	defer closeGPUs()
	if gpus != nil {
		log.Info("GPUs looked for", "found", gpus.Summary())
	}
	// Attempts become spans where somebody collects them.
	collector, err := spans.FromEnvironment(os.Getenv)
	if err != nil {
		return err
	}
	collector.Host, collector.Version = c.Host, version
	exporter := spans.New(collector, log)
	settings := worker.Config{Spans: exporter != nil, Dir: filepath.Join(c.StateDir, "attempts"),
		OutputMax: int64(c.OutputMax), Tail: int64(c.OutputTail), User: policy.UserName(), Devices: gpuFiles(gpus), Log: log}
	files := worker.New(router, settings)
	var runner worker.Runner = files
	if gpus != nil {
		runner = &worker.GPUs{Runner: files, Host: gpus}
	}

	var ready atomic.Pointer[manager.Manager] // m, for those who may ask before it is there

	// What this host has settled, so that nothing that comes back runs twice, and people can look it up.
	past, err := history.Open(filepath.Join(c.StateDir, "history.db"), history.Options{
		MaxTasks: c.History, MaxAge: time.Duration(c.HistoryAge), MaxBytes: int64(c.HistorySize), Kept: kept(files), Sync: c.AMQPURL == "", Log: log,
		OnDrop: func(r manager.Record) {
			if m := ready.Load(); m != nil { // else what nobody knows is swept when it begins
				m.Forgot(r.ID)
			}
		},
	})
	if err != nil {
		return err
	}
	defer past.Close()

	// The queue: RabbitMQ, or our own.
	q, err := openQueue(intake, c, log)
	if err != nil {
		return err
	}
	defer func() {
		if err := q.close(); err != nil {
			log.Error("queue not closed in good order", logkey.Err, err)
		}
	}()

	// What happens is counted; Prometheus may ask.
	counts := metrics.New(metrics.Config{Version: version, Pools: c.Pools, Numbers: func() manager.Numbers { return m.Numbers() },
		Depth: q.backlog.Depth, Broker: q.broker, Keeper: sandbox.Health, GPUs: seenGPUs(gpus), Disk: func() (free, size uint64, err error) { return space(c.StateDir) }})

	observer := counts.Observer()
	if exporter != nil {
		defer exporter.Close()
		count := observer.Ended
		observer.Ended = func(e manager.End) { count(e); exporter.Ended(e) }
	}

	decides := c.manager(capacity, cannot, keys, signer)
	var keepHosts func(map[string][]string)
	decides.KnownHosts, keepHosts = hostsFile(c.StateDir, log)
	m = manager.New(decides, manager.Services{
		Source: q.source, Publisher: q.publisher, Cemetery: q.cemetery, Backlog: q.backlog, QueueState: q.state,
		Broadcast: q.broadcast, Fleet: q.fleet, Heard: q.heard, Prove: q.prove, Announce: q.announce, ReplyTo: q.replyTo,
		Discard: func(attemptID string) {
			if err := files.Remove(attemptID); err != nil {
				log.Error("output of an attempt not removed", logkey.Attempt, attemptID, logkey.Err, err)
			}
		},
		Runner: runner, GPUs: gpus, History: past, Archive: past, Output: files.Output, Stir: quiet.Stir, Detach: detach, Sweep: files.Sweep,
		Resolve:  func(t queue.Task) (queue.Task, error) { return types.Resolve(t, allow) },
		Observer: observer, InReach: q.inReach, Holds: q.holds, KeepHosts: keepHosts, Log: log,
	})
	ready.Store(m)
	// What other hosts tell us.
	listening := q.listen(m)
	defer listening()

	// The API serves until the manager has drained: people want to look on.
	stopServing, err := serve(c, m, counts, quiet.Stir, log)
	if err != nil {
		return err
	}
	tellSystemd(log, daemon.SdNotifyReady)
	defer context.AfterFunc(intake, func() { tellSystemd(log, stopping(c)) })()
	quiet.Stir() // most of what a start has touched is not needed again
	err = m.Run(intake, hurry)
	err = errors.Join(err, stopServing())
	return errors.Join(err, m.Missed()) // nothing more can come
}

// tellSystemd says how far we are, where systemd wants to know (Type=notify).
func tellSystemd(log *slog.Logger, state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		log.Warn("systemd not told", logkey.State, state, logkey.Err, err)
	}
}

// stopSpare is for what comes after the drain timeout: tasks with a longer grace than the usual one, and their settling.
const stopSpare = 2 * time.Minute

// stopping says that we stop, and how long that may take where it is longer than TimeoutStopSec of the service: killed meanwhile, the manager
// would leave its workers running, with nobody there who tells how they end.
func stopping(c *config) string {
	if manager.OnStop(c.OnStop) != manager.StopWorkers {
		return daemon.SdNotifyStopping
	}
	most := time.Duration(c.Drain) + time.Duration(c.Grace) + stopSpare
	return fmt.Sprintf("%s\nEXTEND_TIMEOUT_USEC=%d", daemon.SdNotifyStopping, most.Microseconds())
}

// stopSignals turns SIGTERM and SIGINT into two contexts: the first signal ends intake, the second hurry.
func stopSignals(ctx context.Context) (intake, hurry context.Context, release func()) {
	intake, endIntake := context.WithCancel(ctx)
	hurry, endHurry := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	done := make(chan struct{})
	go func() {
		defer endHurry()
		for _, end := range []context.CancelFunc{endIntake, endHurry} {
			select {
			case <-signals:
				end()
			case <-done:
				return
			}
		}
	}()
	return intake, hurry, func() { signal.Stop(signals); close(done); endIntake() }
}

// lockState takes the lock of the state directory for as long as this process lives.
func lockState(dir string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("cannot open the lock of the state directory: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("cannot start: another manager uses the state directory %s; stop it, or set MAYFLY_STATE_DIR", dir)
		}
		return nil, fmt.Errorf("cannot lock the state directory %s: %w", dir, err)
	}
	return func() { f.Close() }, nil
}
