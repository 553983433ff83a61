package manager

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	"github.com/mayfly/mayfly/gpu"
	"github.com/mayfly/mayfly/internal/logkey"
	"github.com/mayfly/mayfly/queue"
	"github.com/mayfly/mayfly/worker"
)

// OnStop says what becomes of running workers when the manager is told to stop.
type OnStop string

const (
	// StopWorkers lets them finish within the drain timeout, then stops them and returns their tasks to the queue.
	StopWorkers OnStop = "stop"
	// KeepWorkers leaves them to the keeper for the next manager.
	KeepWorkers OnStop = "keep"
)

// Config is what a manager needs to know of its host.
type Config struct {
	Host     string
	Version  string
	Pools    []string
	Capacity Capacity
	Defaults Defaults
	// Cannot says what no task gets here.
	Cannot Cannot
	// Window is how many tasks the host holds beyond those that run, at least 1.
	Window int
	// Fair says between whom the host is shared equally.
	Fair FairBy
	// DrainTimeout is how long running tasks may go on after the first request to stop.
	DrainTimeout time.Duration
	OnStop       OnStop
	// Keys are those of the producers whose tasks are taken; nil takes everybody's. Signer signs what is submitted on this host; nil signs nothing.
	Keys   queue.Keys
	Signer *queue.Signer
	// KnownHosts are the other hosts that an earlier life knew, and their pools.
	KnownHosts map[string][]string
	// IdleExit is how long the host may have nothing to do before it leaves; 0: it stays.
	IdleExit time.Duration
	// CutOff is how long nothing may be heard of the queue before the host takes itself for cut off.
	CutOff time.Duration
	// Alone says that no other host serves the queue, so that what cannot run here cannot run at all.
	Alone bool
}

// Defaults fill in what a task does not say.
type Defaults struct {
	// MilliCPU is in thousandths of a core.
	MilliCPU    int64
	PIDs        int64         // processes and threads
	Timeout     time.Duration // 0: none
	Grace       time.Duration
	MaxAttempts int
	Backoff     time.Duration
	OnLost      queue.OnLost
}

// Services are what a manager works with.
type Services struct {
	Source    queue.Source
	Publisher queue.Publisher
	Cemetery  queue.Cemetery
	Runner    worker.Runner
	// GPUs is nil on a host that has none to do with.
	GPUs    *gpu.Host
	History History
	// Archive is the history for those who look through it; nil where nobody does.
	Archive Archive
	// Resolve replaces a task's type by what it stands for, and refuses what the host does not allow.
	Resolve func(queue.Task) (queue.Task, error)
	// Announce is told of each change of a task's state, if it is not nil. It must be quick.
	Announce func(queue.Event)
	// Stir is told, if it is not nil, whenever anything changes: often, so it must be quick.
	Stir func()
	// Detach lets go of all workers; their Runs return isolation.ErrDetached.
	Detach func()
	// Sweep removes what is kept of attempts that keep does not know: what a crash left between two steps.
	Sweep func(keep func(attemptID string) bool)
	// Output locates an attempt's output.
	Output func(attemptID string) (stdout, stderr string)
	// Broadcast tells the other hosts of a cancellation, also those that are away; nil where there are none.
	Broadcast func(ctx context.Context, c queue.Cancellation) error
	// Fleet is the other hosts; nil where there are none.
	Fleet queue.Fleet
	// Heard says when the queue was last heard of; nil where it cannot be out of reach.
	Heard func() time.Time
	// Prove returns nil once the queue has given a sign of life: what it has delivered and we do not know to be lost is ours. It is nil where Heard is.
	Prove func(ctx context.Context) error
	// Discard removes what is left of an attempt that nobody asks for (any more).
	Discard func(attemptID string)
	// ReplyTo is where results of tasks that are submitted here now are to be sent, for Learn; nil where all run here.
	ReplyTo func() string
	// Backlog looks into the queue, where that can be done.
	Backlog Backlog
	// KeepHosts keeps the other hosts that are known for the next life; nil keeps none.
	KeepHosts func(map[string][]string)
	// InReach says whether the queue is; nil where it always is.
	InReach func() bool
	// Holds says whether the queue holds tasks that nobody but this host will get, if only when their time has come; nil where it never does.
	Holds func() bool
	// QueueState says in one line how the queue is.
	QueueState func() string
	// Observer is told what happens.
	Observer Observer
	Log      *slog.Logger
}

// Backlog looks into an embedded queue. A queue that cannot be looked into has a nil Backlog but for Depth.
type Backlog struct {
	// Depth counts the waiting messages of each queue "<pool>.<band>".
	Depth func(ctx context.Context) (map[string]int, error)
	// Peek calls visit for the waiting messages from the place from to the place to (from 0, exclusive), until it returns false; visit must not use the queue. Find
	// returns one by its task id.
	Peek func(ctx context.Context, from, to int, visit func(queue.Message) bool) error
	Find func(ctx context.Context, taskID string) (queue.Message, bool)
	// Pick takes a waiting message out of order.
	Pick func(ctx context.Context, taskID string) (queue.Delivery, error)
}

// The states of a manager.
const (
	serving  = "serving"
	draining = "draining"
	stopped  = "stopped"
)

// Manager is the host's one ledger and the one place that knows what runs here.
type Manager struct {
	config Config
	Services
	startedAt time.Time
	// life tells this manager from those of the host before and after it.
	life string

	// drain ends the intake from within.
	drain      context.CancelFunc
	drainAsked context.Context
	// work is the context of all workers, settling that of all settlements; each ends after the one before.
	work, settling context.Context
	// serves ends with the intake: from then on nobody needs to know whether the host is fit.
	serves context.Context
	group  sync.WaitGroup

	mu      sync.Mutex // guards all below, and the fields of entries
	state   string
	ledger  ledger
	shares  *shares
	waiting []*entry          // first to start first, but for what has come since schedule
	passed  int               // how many started in a row before ones that came earlier
	active  map[string]*entry // by task id: has a worker, or has an outcome that is not settled
	closing map[*entry]bool   // never begun, being settled
	seq     uint64
	demand  int
	changed chan struct{}
	waiters map[string][]chan struct{} // by task id: closed at the task's end
	again   map[string]time.Time       // by task id: submitted anew although history has a result
	idle    *time.Timer                // runs while the host has nothing to do, where it is to leave then
	tooLate struct {                   // the next deadline of what waits
		at    time.Time
		timer *time.Timer
	}
	left bool // it has left because of that
	// arriving counts the tasks that are being submitted here.
	arriving int
	others   others
	drained  bool // workers are stopped for the host's own sake
	// waits says that the end of all that is done here is waited for: nothing is begun any more but for what is in hand, see mayDo.
	waits bool
	// unfitAt is when the host stopped taking tasks, because it drains or is sick.
	unfitAt time.Time
	// detached says that workers were left to the next manager.
	detached bool
	// provedAt is when the queue last gave a sign of life that it was asked for; proving says that it is being asked.
	provedAt time.Time
	proving  bool
	// faults counts the workers that were lost through the host's fault, one after the other; sick says why it takes no tasks, if it does not.
	faults int
	sick   string
	// quarantine holds the leases of ended attempts that left something, by attempt id; freed the ids of those that are free
	// again before they were known to be in it.
	quarantine map[string]quarantined
	freed      map[string]bool
}

// New returns a manager that does nothing yet.
func New(c Config, s Services) *Manager {
	m := &Manager{config: c, Services: s, startedAt: time.Now(), state: serving,
		ledger: ledger{total: c.Capacity, cannot: c.Cannot, gpus: s.GPUs, cores: newCorePool(c.Capacity.Cores),
			defaultMilliCPU: c.Defaults.MilliCPU, defaultPIDs: c.Defaults.PIDs},
		life: strconv.FormatUint(rand.Uint64(), 36), others: others{known: map[string][]string{}, lives: map[string]string{}, inquiries: map[string]*inquiry{}, polls: map[string]*poll{}, parked: map[string]parked{},
			crowds: map[string]*crowd{}},
		quarantine: map[string]quarantined{}, freed: map[string]bool{},
		active: map[string]*entry{}, closing: map[*entry]bool{},
		changed: make(chan struct{}), waiters: map[string][]chan struct{}{}, again: map[string]time.Time{}}
	gpus := 0
	if s.GPUs != nil {
		gpus, _, _ = s.GPUs.Counts()
	}
	m.shares = newShares(c.Fair, c.Capacity, gpus)
	maps.Copy(m.others.known, c.KnownHosts)
	for _, pools := range c.KnownHosts {
		m.count(pools, 1)
	}
	m.drainAsked, m.drain = context.WithCancel(context.Background())
	return m
}

// Run serves until intake ends, then drains, and returns when nothing runs any more (or, with KeepWorkers, when the
// workers are let go of). When hurry ends, draining ends at once: workers are killed and their tasks returned.
func (m *Manager) Run(intake, hurry context.Context) error {
	work, stopWork := context.WithCancelCause(context.Background())
	settling, stopSettling := context.WithCancel(context.Background())
	defer stopSettling()
	serves, stopServing := context.WithCancel(intake)
	defer stopServing()
	receiving, stopReceiving := context.WithCancel(context.Background())
	defer stopReceiving()
	m.work, m.settling, m.serves = work, settling, serves

	if err := m.adopt(hurry); err != nil {
		stopWork(nil)
		return err
	}
	var receiver sync.WaitGroup
	var receiveErr error
	receiver.Go(func() {
		receiveErr = m.receive(receiving)
		stopServing()
	})
	m.mu.Lock()
	m.greet()
	m.schedule()
	m.mu.Unlock()
	m.Log.Info("manager started", logkey.Host, m.config.Host, "cpus", float64(m.config.Capacity.MilliCPU)/1000,
		"memory", queue.FormatSize(m.config.Capacity.Memory), "pools", m.config.Pools, logkey.Queue, m.QueueState())

	select {
	case <-serves.Done():
	case <-m.drainAsked.Done():
	}
	stopServing()
	if m.Fleet == nil { // else messages of what runs here may be lost meanwhile, and come back
		stopReceiving()
		receiver.Wait()
	}
	m.stop(hurry, stopWork, stopSettling)
	stopReceiving()
	receiver.Wait()
	if receiveErr != nil && !errors.Is(receiveErr, context.Canceled) {
		return fmt.Errorf("cannot receive tasks: %w", receiveErr)
	}
	return nil
}

// receive takes what the queue hands over until the intake ends.
func (m *Manager) receive(ctx context.Context) error {
	for {
		d, err := m.Source.Receive(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		m.accept(d)
	}
}

// Drain implements Backend.
func (m *Manager) Drain(timeout time.Duration) {
	m.mu.Lock()
	if m.state == serving {
		m.config.OnStop = StopWorkers
		if timeout > 0 {
			m.config.DrainTimeout = timeout
		}
	}
	m.mu.Unlock()
	m.drain()
}

// Leave ends the intake, as the first SIGTERM does.
func (m *Manager) Leave() { m.drain() }

// notify wakes whoever follows the host's tasks. The lock is held.
func (m *Manager) notify() {
	close(m.changed)
	m.changed = make(chan struct{})
	if m.Stir != nil {
		m.Stir()
	}
}
