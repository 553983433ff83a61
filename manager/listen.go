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

// learnMost is how many results of other hosts are taken in at once. What is kept at once shares a commit, which is paced: taken in one after the other, some hundred a second would
// have this host hear what others ask minutes later, when they take it for dead.
const learnMost = 64

// Listen takes in what is said until ctx ends.
func (m *Manager) Listen(ctx context.Context, n News) {
	var learning sync.WaitGroup
	defer learning.Wait()
	free := make(chan struct{}, learnMost)
	for {
		select {
		case c := <-n.Cancels():
			m.Cancelled(c)
		case r := <-n.Replies():
			free <- struct{}{}
			learning.Go(func() {
				m.Learn(r)
				<-free
			})
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
