package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/mayfly/mayfly/isolation"
	"github.com/mayfly/mayfly/queue"
)

// base runs attempts in a sandbox; it takes the attempt's files as given.
type base struct {
	sandbox isolation.Sandbox
	place   func(attemptID string) files
	config  *Config
}

// Run implements Runner. A goroutine waits in it for as long as the worker runs, so the stack is kept small, here and in what is above and below it: what
// is needed before and after is done by others. Of a stack of 8 KiB the collector takes half where less than 1.2 KiB is used.
func (b *base) Run(ctx context.Context, a *Attempt, started func(int, time.Time)) (*Outcome, error) {
	s, err := b.spec(a)
	if err != nil {
		return nil, err
	}
	begun := time.Now()
	exit, err := b.sandbox.Run(ctx, s, func(st isolation.Started) {
		if started != nil {
			started(st.PID, st.At)
		}
	})
	return b.outcome(ctx, a, exit, err, begun)
}

// spec says what to run for the attempt, which goes along as the note.
func (b *base) spec(a *Attempt) (*isolation.Spec, error) {
	s := spec(a, b.place(a.ID()), b.config)
	note, err := json.Marshal(noted(a))
	if err != nil {
		return nil, fmt.Errorf("cannot encode the attempt: %w", err)
	}
	s.Note, s.Joins = note, a.joined
	return &s, nil
}

// outcome is what came of it.
func (b *base) outcome(ctx context.Context, a *Attempt, exit *isolation.Exit, err error, begun time.Time) (*Outcome, error) {
	switch {
	case errors.Is(err, isolation.ErrDetached):
		return nil, err
	case err != nil && ctx.Err() != nil:
		return &Outcome{Cause: queue.CauseCancelled, Message: "the worker was stopped before it began",
			StartedAt: begun, FinishedAt: time.Now()}, nil
	case err != nil:
		// The sandbox failed, not the program: the host's fault, whatever the task was.
		return hostLost(err, begun), nil
	}
	o := classify(a, exit)
	return &o, nil
}

// hostLost is the outcome of an attempt that the host could not make.
func hostLost(err error, begun time.Time) *Outcome {
	return &Outcome{Cause: queue.CauseHostLost, Message: err.Error(), StartedAt: begun, FinishedAt: time.Now()}
}

func (b *base) Held(ctx context.Context) ([]Held, error) {
	list, err := b.sandbox.Held(ctx)
	if err != nil {
		return nil, err
	}
	held := make([]Held, 0, len(list))
	for _, h := range list {
		var a Attempt
		if err := json.Unmarshal(h.Note, &a); err != nil || a.ID() != h.ID {
			return nil, fmt.Errorf("cannot read the note of %s, which an earlier version may have written: %w", h.ID, err)
		}
		held = append(held, Held{Attempt: a, PID: h.Started.PID, StartedAt: h.Started.At, Ended: h.Exit != nil,
			Left: h.Exit != nil && h.Exit.Left != "", Settled: h.Released})
	}
	return held, nil
}

func (b *base) Release(attemptID string) { b.sandbox.Release(attemptID) }

// noted returns the attempt without what lies in the attempt's files and may be large.
func noted(a *Attempt) *Attempt {
	n := *a
	n.Task.Params, n.Task.Stdin = nil, ""
	return &n
}
