package mayfly

import (
	"context"
	"fmt"
)

// Handle is a submitted task. All methods may be called from many goroutines at once.
type Handle struct {
	// ID is the task's.
	ID string

	client *Client
	done   chan struct{} // closed once result and err are set
	result Result
	err    error

	stored bool // the broker has confirmed the task; guarded by client.mu
}

// Wait returns the task's result as soon as it is known. The error is ctx's, [ErrClosed] or [ErrResultLost]; that the task
// failed is none. After ctx's error it may be called again.
func (h *Handle) Wait(ctx context.Context) (Result, error) {
	select {
	case <-h.done:
	default:
		select {
		case <-h.done:
		case <-ctx.Done():
			return Result{}, fmt.Errorf("cannot wait for task %s: %w", h.ID, h.client.explain(ctx, nil))
		}
	}
	if h.err != nil {
		return Result{}, fmt.Errorf("cannot wait for task %s: %w", h.ID, h.err)
	}
	return h.result, nil
}

// Done is closed when Wait will return at once.
func (h *Handle) Done() <-chan struct{} { return h.done }

// Cancel is [Client.Cancel] for this task.
func (h *Handle) Cancel(ctx context.Context) error { return h.client.Cancel(ctx, h.ID) }

// end sets what Wait returns. It is called once, by whoever took the handle out of client.pending.
func (h *Handle) end(r Result, err error) {
	h.result, h.err = r, err
	close(h.done)
}
