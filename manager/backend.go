package manager

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mayfly/mayfly/gpu"
	"github.com/mayfly/mayfly/internal/logkey"
	"github.com/mayfly/mayfly/queue"
)

var _ Backend = (*Manager)(nil)

// Submit implements Backend.
func (m *Manager) Submit(ctx context.Context, body []byte, pool string) (string, error) {
	msg := queue.Message{Body: body, Pool: pool}
	if m.ReplyTo != nil {
		msg.ReplyTo = m.ReplyTo()
	}
	task, err := queue.Decode(msg)
	if err != nil {
		return "", err
	}
	if m.config.Alone {
		if err := m.canRunHere(task); err != nil {
			return "", err
		}
	}
	msg.MessageID, msg.CorrelationID = task.ID, task.ID
	msg.Pool, msg.Band, msg.QueuedAt = task.Pool, bandOf(task.Priority), time.Now()
	if m.config.Signer != nil {
		signature, err := m.config.Signer.Sign(body)
		if err != nil {
			return "", err
		}
		msg.Headers = map[string]any{queue.SignatureHeader: signature}
	}
	if err := m.config.Keys.Verify(msg); err != nil {
		return "", fmt.Errorf("cannot submit here: %w; set MAYFLY_SIGNING_KEY to a key that MAYFLY_TASK_KEYS knows", err)
	}
	done, err := m.arrives()
	if err != nil {
		return "", err
	}
	defer done()
	undo := m.submitted(task.ID, msg.QueuedAt)
	if err := m.Publisher.Publish(ctx, msg); err != nil {
		undo()
		return "", fmt.Errorf("cannot store the task in the queue: %w", err)
	}
	return task.ID, nil
}

// canRunHere refuses a task that the only host there is will never run.
func (m *Manager) canRunHere(task queue.Task) error {
	if !slices.Contains(m.config.Pools, task.Pool) {
		return &queue.Refusal{Field: "pool", Value: fmt.Sprintf("%q", task.Pool),
			Remedy: fmt.Sprintf("this host serves only %q (MAYFLY_POOLS)", m.config.Pools)}
	}
	task, err := m.Resolve(task)
	if err != nil {
		return err
	}
	if _, why := m.ledger.choices(&task); why != nil {
		return why
	}
	return nil
}

// bandOf maps a task's priority to the band that it is queued in.
func bandOf(priority int) queue.Band {
	switch {
	case priority >= 7:
		return queue.High
	case priority <= 3:
		return queue.Low
	}
	return queue.Normal
}

// submitted makes waiters wait for the new task of this id rather than take the result of one before; undo takes that back where the new one did not get into the queue.
func (m *Manager) submitted(taskID string, at time.Time) (undo func()) {
	if r, ok := m.History.Get(taskID); !ok || r.Result.State == "" {
		return func() {}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	before, again := m.again[taskID]
	m.again[taskID] = at
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		switch {
		case m.again[taskID] != at: // submitted once more, or ended
		case again:
			m.again[taskID] = before
		default:
			delete(m.again, taskID)
		}
	}
}

// Learn takes the result of a task that another host ran.
func (m *Manager) Learn(r queue.Result) {
	if !queue.ValidID(r.ID) || r.Attempt < 0 { // it names files, and comes from outside
		m.Log.Warn("result of no task ignored", logkey.Task, r.ID)
		return
	}
	if r.Host == m.config.Host {
		return // recorded when it was settled
	}
	if queue.TooDeep(r.Result) { // no host should have taken it; the task has ended all the same
		ignored := fmt.Sprintf("its result was ignored: its arrays and objects are nested deeper than %d", queue.MaxDepth)
		r.Result, r.Message = nil, strings.TrimPrefix(r.Message+"; "+ignored, "; ")
	}
	rec := Record{ID: queue.AttemptID(r.ID, r.Attempt), Result: r, Remote: true, SettledAt: time.Now(), AckedAt: time.Now()}
	if err := m.History.Put(rec); err != nil {
		m.Log.Error("remote result not recorded", logkey.Task, r.ID, logkey.Err, err)
	}
	m.wake(r.ID, r.State)
}

// entriesOf returns the entries of a task, the active one first. The lock is held.
func (m *Manager) entriesOf(taskID string) []*entry {
	var list []*entry
	if e := m.active[taskID]; e != nil {
		list = append(list, e)
	}
	for _, e := range m.waiting {
		if e.attempt.Task.ID == taskID {
			list = append(list, e)
		}
	}
	for e := range m.closing {
		if e.attempt.Task.ID == taskID {
			list = append(list, e)
		}
	}
	return list
}

// List implements Backend.
func (m *Manager) List(ctx context.Context, ended int) ([]View, error) {
	m.mu.Lock()
	entries := make([]*entry, 0, len(m.active)+len(m.waiting))
	for _, e := range m.active {
		entries = append(entries, e)
	}
	entries = append(entries, m.waiting...)
	for e := range m.closing {
		entries = append(entries, e)
	}
	views := make([]View, 0, len(entries))
	for _, e := range entries {
		views = append(views, e.view())
	}
	views = append(views, m.parkedViews()...)
	m.mu.Unlock()
	slices.SortFunc(views, func(a, b View) int { return a.QueuedAt.Compare(b.QueuedAt) })
	if m.Backlog.Peek != nil {
		read := 0
		err := m.Backlog.Peek(ctx, 0, listQueued, func(msg queue.Message) bool {
			views = append(views, queuedView(msg))
			read += len(msg.Body)
			return read < listBytes
		})
		if err != nil {
			return nil, err
		}
	}
	if ended > 0 {
		for _, r := range m.History.Recent(ended) {
			views = append(views, recordView(&r))
		}
	}
	return views, nil
}

const (
	// listQueued bounds how many tasks of the backlog a listing shows.
	listQueued = 1000
	// listBytes bounds how many bytes of their documents one look reads: some tenths of a second. The one that goes beyond is read, too.
	listBytes = 16 << 20
)

func queuedView(msg queue.Message) View {
	v := View{ID: msg.MessageID, Pool: msg.Pool, Band: msg.Band, Status: Queued, Attempt: len(msg.History),
		QueuedAt: msg.QueuedAt, Attempts: msg.History}
	if len(msg.History) > 0 {
		v.Status = BackingOff
		v.Reason = msg.History[len(msg.History)-1].Message
	}
	if t, err := queue.Decode(msg); err == nil {
		v.ID, v.Name, v.Labels, v.Command = t.ID, t.Name, t.Labels, commandLine(&t)
		v.CPU, v.Memory = t.Resources.CPU, t.Resources.Memory
	}
	return v
}

func recordView(r *Record) View {
	res := r.Result
	v := View{ID: res.ID, Name: res.Name, Pool: res.Pool, Band: r.Band, Status: Ended, Attempt: res.Attempt, Command: r.Command,
		Labels: r.Labels, CPU: float64(r.Lease.MilliCPU) / 1000, Memory: r.Lease.Memory, GPUs: r.Lease.GPUNames(), StartedAt: res.StartedAt, FinishedAt: res.FinishedAt, Attempts: res.Attempts}
	if res.QueuedAt != nil {
		v.QueuedAt = *res.QueuedAt
	}
	if res.State == "" {
		v.Status, v.Reason = BackingOff, res.Message
		return v
	}
	v.Result = &res
	return v
}

// Show implements Backend.
func (m *Manager) Show(ctx context.Context, id string) (View, error) {
	m.mu.Lock()
	// What is recorded has ended for all who ask: only its message is still to be given up.
	entries := slices.DeleteFunc(m.entriesOf(id), func(e *entry) bool { return e.recorded })
	_, again := m.again[id]
	if len(entries) > 0 {
		defer m.mu.Unlock()
		return entries[0].view(), nil
	}
	if p, ok := m.others.parked[id]; ok && time.Since(p.until) < parkedGone {
		defer m.mu.Unlock()
		return p.view, nil
	}
	m.mu.Unlock()
	r, known := m.History.Get(id)
	if known && r.Result.State != "" && !again {
		return recordView(&r), nil
	}
	if m.Backlog.Find != nil {
		if msg, ok := m.Backlog.Find(ctx, id); ok {
			return queuedView(msg), nil
		}
	}
	if !known {
		return View{}, ErrUnknownTask
	}
	return recordView(&r), nil
}

// Changed implements Backend.
func (m *Manager) Changed() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.changed
}

// Output implements Backend.
func (m *Manager) Output(ctx context.Context, id string, attempt int) (Output, error) {
	m.mu.Lock()
	for _, e := range m.entriesOf(id) {
		if at := e == m.active[id]; (at || e.begun) && (attempt == 0 || attempt == e.attempt.Number) {
			defer m.mu.Unlock()
			return m.output(id, e.attempt.Number, at && e.status != Settling, e.begun), nil
		}
	}
	m.mu.Unlock()
	r, ok := m.History.Get(id)
	if !ok || attempt > r.Result.Attempt {
		return Output{}, m.noOutput(ctx, id, attempt)
	}
	if r.Remote {
		return Output{}, fmt.Errorf("cannot show the output of %s, which ran on %s: %w", id, r.Result.Host, ErrElsewhere)
	}
	if attempt == 0 {
		attempt = r.Result.Attempt
	}
	if attempt == 0 {
		return Output{}, &NoOutput{Why: "it never began"}
	}
	if err := m.elsewhere(id, r.Result.Attempts, attempt); err != nil {
		return Output{}, err
	}
	_, kept := m.History.Settled(queue.AttemptID(id, attempt))
	return m.output(id, attempt, false, kept), nil
}

func (m *Manager) output(id string, attempt int, live, kept bool) Output {
	stdout, stderr := m.Services.Output(queue.AttemptID(id, attempt))
	return Output{Stdout: stdout, Stderr: stderr, Kept: kept, Attempt: attempt, Live: live}
}

// Cemetery implements Backend.
func (m *Manager) Cemetery() queue.Cemetery { return m.Services.Cemetery }

// Info implements Backend.
func (m *Manager) Info(ctx context.Context) (Info, error) {
	depth, err := m.Backlog.Depth(ctx)
	if err != nil {
		depth = nil // the queue's own line says that it is out of reach
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	info := m.infoHere()
	info.Depth = depth
	return info, nil
}

// infoHere is the host at a glance, without what only the queue can tell. The lock is held.
func (m *Manager) infoHere() Info {
	info := Info{Host: m.config.Host, Version: m.config.Version, State: m.state, Queue: m.QueueState(), StartedAt: m.startedAt,
		Pools: m.config.Pools, CPU: float64(m.ledger.total.MilliCPU) / 1000, CPUUsed: float64(m.ledger.lent.MilliCPU) / 1000,
		Memory: m.ledger.total.Memory, MemoryUsed: m.ledger.lent.Memory, Disk: m.ledger.total.Disk, DiskUsed: m.ledger.lent.Disk,
		Waiting: len(m.waiting), Quarantined: m.quarantineList(), Unfit: m.sick}
	for _, e := range m.active {
		if e.status == Settling {
			info.Settling++
		} else {
			info.Running++
		}
	}
	info.Settling += len(m.closing)
	if m.Services.GPUs != nil {
		var sick int
		info.GPUs, info.GPUsFree, sick = m.Services.GPUs.Counts()
		if sick > 0 {
			info.Quarantined = append(info.Quarantined, fmt.Sprintf("%d of %d GPUs (mayfly gpus says why)", sick, info.GPUs))
		}
	}
	return info
}

// GPUs implements Backend.
func (m *Manager) GPUs(ctx context.Context) (gpu.Overview, error) {
	if m.Services.GPUs == nil {
		return gpu.Overview{Note: "this host lends no GPU", GPUs: []gpu.Status{}}, nil
	}
	return m.Services.GPUs.Overview(ctx), nil
}

// GPUsChanged has the manager look for tasks that can run now that a GPU is free.
func (m *Manager) GPUsChanged() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.schedule()
	m.notify()
}
