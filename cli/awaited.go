package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/mayfly/mayfly/api"
	"github.com/mayfly/mayfly/internal/pause"
	"github.com/mayfly/mayfly/queue"
)

const (
	// waitWidth is how many tasks of a batch are waited for at once: each takes a connection, of which an address has 64 by TCP.
	waitWidth = 32
	// waitTurn is how long one is waited for while nobody waits for others, and how long we keep away once we have asked too often.
	waitTurn = time.Second
	// lookPause is how often it is looked which have ended, while there are more than can be waited for at once.
	lookPause = time.Second
)

// awaited are the tasks of a batch that are waited for, each from when it is submitted on, and in turns: the history forgets what ended
// long ago, however long the tasks before it go on. Of a large batch the turns come too seldom for that, so those come first that the list of ended
// tasks has just got; whether it is they that have ended, or others of their ids before them, the wait tells.
type awaited struct {
	client *api.Client
	// ended is told each result.
	ended func(*queue.Result)

	mu sync.Mutex
	// changed is told of every change of ids and whole.
	changed *sync.Cond
	// ids are those that nobody waits for at the moment, the next one first, and some for which somebody does: idle counts how often nobody does.
	ids  []string
	idle map[string]int
	// ahead are those of them that have ended, it seems; justEnded are others of which the last look told: ours are among them that are added, or come
	// back, a moment after it.
	ahead     []string
	justEnded map[string]bool
	// whole says that no more come.
	whole bool
	// counts are those that have ended, forgotten is how many are not known any more.
	counts    map[queue.State]int
	forgotten int
	first     error
	workers   sync.WaitGroup
	looking   sync.WaitGroup
	endLook   context.CancelFunc
}

// await waits until ctx ends for all tasks that are added.
func (s *submission) await(ctx context.Context, cmd *cobra.Command, client *api.Client, bars *bars, bar bar) *awaited {
	a := &awaited{client: client, counts: map[queue.State]int{}, idle: map[string]int{}, ended: func(r *queue.Result) {
		bar.one()
		if s.command.json {
			_ = printJSONLine(cmd.OutOrStdout(), r)
		} else if r.State != queue.Succeeded {
			bars.say("%s: %s (%s): %s", r.ID, r.State, r.Cause, clean(r.Message))
		}
	}}
	a.changed = sync.NewCond(&a.mu)
	context.AfterFunc(ctx, func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.changed.Broadcast()
	})
	for range waitWidth {
		a.workers.Go(func() {
			for a.one(ctx) {
			}
		})
	}
	looks, endLook := context.WithCancel(ctx)
	a.endLook = endLook
	a.looking.Go(func() { a.look(looks) })
	return a
}

// add has a task be waited for.
func (a *awaited) add(id string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.put(id)
}

// put has a task be waited for when its turn comes. The lock is held.
func (a *awaited) put(id string) {
	a.ids = append(a.ids, id)
	a.idle[id]++
	if a.justEnded[id] {
		a.ahead = append(a.ahead, id)
		delete(a.justEnded, id)
	}
	a.changed.Signal()
}

// take returns the next task that nobody waits for. The lock is held.
func (a *awaited) take() (id string, ok bool) {
	for _, list := range []*[]string{&a.ahead, &a.ids} {
		for len(*list) > 0 {
			id, *list = (*list)[0], (*list)[1:]
			if a.idle[id] == 0 {
				continue // it had its turn when it was ahead
			}
			if a.idle[id]--; a.idle[id] == 0 {
				delete(a.idle, id)
			}
			return id, true
		}
	}
	return "", false
}

// look puts those ahead that have just ended, until ctx ends.
func (a *awaited) look(ctx context.Context) {
	for mark := ""; ctx.Err() == nil; _ = pause.For(ctx, lookPause) {
		a.mu.Lock()
		n := len(a.idle)
		a.mu.Unlock()
		if n == 0 {
			continue // all are waited for
		}
		ids, next, err := a.client.JustEnded(ctx, mark)
		if err != nil {
			continue // they have their turns all the same
		}
		mark = next
		a.mu.Lock()
		a.justEnded = map[string]bool{}
		for _, id := range slices.Backward(ids) { // the oldest is forgotten first
			if a.idle[id] > 0 {
				a.ahead = append(a.ahead, id)
			} else {
				a.justEnded[id] = true
			}
		}
		a.mu.Unlock()
	}
}

// all returns when all that were added have ended, with the first error.
func (a *awaited) all() error {
	a.mu.Lock()
	a.whole = true
	a.changed.Broadcast()
	a.mu.Unlock()
	a.workers.Wait()
	a.endLook()
	a.looking.Wait()
	return a.first
}

// summary says how they ended, with those that were refused before they were tasks.
func (a *awaited) summary(refused int) string {
	text := fmt.Sprintf("%d succeeded, %d failed, %d cancelled, %d rejected",
		a.counts[queue.Succeeded], a.counts[queue.Failed], a.counts[queue.Cancelled], a.counts[queue.Rejected]+refused)
	if a.forgotten > 0 {
		text += fmt.Sprintf(", %d not known any more: they have left the history", a.forgotten)
	}
	return text
}

// one waits for a task, for a turn unless it is among the last, and reports whether there may be others.
func (a *awaited) one(ctx context.Context) bool {
	id, turn, ok := a.next(ctx)
	if !ok {
		return false
	}
	wait, cancel := ctx, func() {}
	if turn {
		wait, cancel = context.WithTimeout(ctx, waitTurn)
	}
	v, err := a.client.Wait(wait, id)
	cancel()
	var refused *api.Error
	tooOften := errors.As(err, &refused) && refused.Status == http.StatusTooManyRequests
	if tooOften {
		_ = pause.For(ctx, waitTurn)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case err == nil:
		a.counts[v.Result.State]++
		a.ended(v.Result)
	case ctx.Err() != nil:
		a.fail(ctx.Err())
	case tooOften, errors.Is(err, context.DeadlineExceeded):
		a.put(id)
	case refused != nil && refused.Status == http.StatusNotFound:
		a.forgotten++
	default:
		a.fail(err)
	}
	return true
}

// next takes the task whose turn it is. turn says that others are to have theirs; those that come back find their worker still there.
func (a *awaited) next(ctx context.Context) (id string, turn, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for len(a.idle) == 0 && !a.whole && ctx.Err() == nil {
		a.changed.Wait()
	}
	if ctx.Err() != nil {
		a.fail(ctx.Err())
		return "", false, false
	}
	id, ok = a.take()
	return id, !a.whole || len(a.idle) > 0, ok
}

// fail keeps the first error; later ones are noise. The lock is held.
func (a *awaited) fail(err error) {
	if a.first == nil {
		a.first = err
	}
}
