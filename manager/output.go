package manager

import (
	"context"
	"fmt"
	"strings"

	"github.com/mayfly/mayfly/queue"
)

// NoOutput says why there is no output of an attempt, though the task is known.
type NoOutput struct {
	Why string
	// Waits says that the attempt may yet begin.
	Waits bool
}

func (n *NoOutput) Error() string { return n.Why }

// noOutput says why there is no output of an attempt that is neither at work here nor in the history.
func (m *Manager) noOutput(ctx context.Context, id string, attempt int) error {
	v, err := m.Show(ctx, id)
	if err != nil {
		return err
	}
	latest := v.Attempt
	if v.Status == Queued || v.Status == BackingOff {
		latest++ // it is the last one's number that is shown
	}
	switch {
	case attempt > latest:
		return &NoOutput{Why: fmt.Sprintf("there was no attempt %d", attempt)}
	case attempt > 0 && attempt < latest:
		if err := m.elsewhere(id, v.Attempts, attempt); err != nil {
			return err
		}
		return &NoOutput{Why: fmt.Sprintf("the output of attempt %d is not kept any more", attempt)}
	case v.Status == Queued || v.Status == Waiting || v.Status == Parked || v.Status == BackingOff:
		return &NoOutput{Why: "it has not begun: it waits", Waits: true}
	}
	return &NoOutput{Why: "it is about to begin", Waits: true}
}

// Forgot removes what is kept of an attempt of which the history has dropped the record, unless a task with its id is here again: its files may have the same names.
func (m *Manager) Forgot(attemptID string) {
	m.mu.Lock()
	taskID := attemptID[:max(0, strings.LastIndexByte(attemptID, '.'))]
	again := !m.others.here || len(m.entriesOf(taskID)) > 0 // what is left before that is swept
	m.mu.Unlock()
	if !again {
		m.Discard(attemptID)
	}
}

// elsewhere refuses to show the output of an attempt that was another host's.
func (m *Manager) elsewhere(id string, past []queue.Past, attempt int) error {
	for _, p := range past {
		if p.Attempt == attempt && p.Host != m.config.Host {
			return fmt.Errorf("cannot show the output of %s, which ran on %s: %w", id, p.Host, ErrElsewhere)
		}
	}
	return nil
}
