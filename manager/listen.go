package manager

import (
	"context"

	"github.com/mayfly/mayfly/queue"
)

// News is what other hosts and people say by the queue.
type News interface {
	Cancels() <-chan queue.Cancellation
	Replies() <-chan queue.Result
	Questions() <-chan queue.Question
	Offers() <-chan queue.Offer
	Hellos() <-chan queue.Hello
	// Joined holds a token each time that this host can be reached (again).
	Joined() <-chan struct{}
}

// Listen takes in what is said until ctx ends.
func (m *Manager) Listen(ctx context.Context, n News) {
	for {
		select {
		case c := <-n.Cancels():
			m.Cancelled(c)
		case r := <-n.Replies():
			m.Learn(r)
		case q := <-n.Questions():
			m.Asked(q)
		case o := <-n.Offers():
			m.Offered(o)
		case h := <-n.Hellos():
			m.Greeted(h)
		case <-n.Joined():
			m.Joined()
		case <-ctx.Done():
			return
		}
	}
}
