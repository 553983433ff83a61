package metrics

import (
	"context"
	"sync"
	"time"
)

const (
	// depthAge is how old the depth of a broker's queues may be before a scrape asks again: several scrapers, or an eager one, do not
	// wear it out.
	depthAge = 10 * time.Second
	// depthWait is how long a scrape waits for the answer.
	depthWait = time.Second
)

// depths remembers the depth of the queues.
type depths struct {
	ask func(ctx context.Context) (map[string]int, error)
	// age is how old an answer may be.
	age time.Duration

	mu    sync.Mutex
	last  map[string]int
	at    time.Time
	asked chan struct{} // closed when the question that is under way has ended; nil where none is
}

// get returns what is known; nil where that is nothing, or too old.
func (d *depths) get() map[string]int {
	d.mu.Lock()
	if time.Since(d.at) < d.age {
		defer d.mu.Unlock()
		return d.last
	}
	if d.asked == nil { // one at a time: a broker that hangs is not asked by every scrape
		d.asked = make(chan struct{})
		go d.refresh()
	}
	asked := d.asked
	d.mu.Unlock()
	t := time.NewTimer(depthWait)
	defer t.Stop()
	select {
	case <-asked:
	case <-t.C:
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if time.Since(d.at) < d.age+depthWait {
		return d.last
	}
	return nil
}

func (d *depths) refresh() {
	ctx, cancel := context.WithTimeout(context.Background(), depthWait)
	defer cancel()
	depth, err := d.ask(ctx)
	d.mu.Lock()
	defer d.mu.Unlock()
	if err == nil {
		d.last, d.at = depth, time.Now()
	}
	close(d.asked)
	d.asked = nil
}
