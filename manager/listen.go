package manager

import (
	"context"
	"sync"

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

// learnMost is how many results and cancellations of other hosts are kept at once. What is kept at once shares a commit, which is paced: kept one after the other, some hundred a second
// would have this host hear what others ask minutes later, when they take it for dead. Cancellations are acted upon as they come; none is owed an answer, and the queue tells those of
// a day again to the next manager.
const learnMost = 64

// Listen takes in what is said until ctx ends.
func (m *Manager) Listen(ctx context.Context, n News) {
	var learning sync.WaitGroup
	defer learning.Wait()
	free := make(chan struct{}, learnMost)
	learn := func(keep func()) {
		free <- struct{}{}
		learning.Go(func() {
			keep()
			<-free
		})
	}
	for {
		select {
		case c := <-n.Cancels():
			learn(m.Cancelled(c))
		case r := <-n.Replies():
			learn(func() { m.Learn(r) })
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
