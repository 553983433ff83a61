package rabbit

import (
	"context"
	"log/slog"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/mayfly/mayfly/queue"
)

// What became of a publication.
type fate int

const (
	unknown fate = iota // the channel closed before the confirm came
	arrived
	unroutable
	refusedByBroker
	unanswered // within its time
)

// outlet is one publishing channel.
type outlet struct {
	sess    *session
	ch      *amqp.Channel
	log     *slog.Logger
	closed  chan *amqp.Error
	returns chan amqp.Return

	mu       sync.Mutex
	returned map[int64]struct{} // publications that no queue took
	exists   map[string]struct{}
}

// alarm follows whether the broker blocks a connection's publishing.
type alarm struct {
	changes chan amqp.Blocking
	active  bool
}

func newAlarm(s *session) alarm {
	return alarm{changes: s.conn.NotifyBlocked(make(chan amqp.Blocking, 8))}
}

// open opens a publishing channel.
func open(s *session, log *slog.Logger) (*outlet, error) {
	ch, err := s.conn.Channel()
	if err != nil {
		return nil, err
	}
	o := &outlet{sess: s, ch: ch, log: log, returned: map[int64]struct{}{}, exists: map[string]struct{}{}}
	o.closed = ch.NotifyClose(make(chan *amqp.Error, 1))
	// Nobody reads this while nothing is awaited: it must hold what can be in flight, or the connection's reader stalls.
	o.returns = ch.NotifyReturn(make(chan amqp.Return, 4096))
	if err := ch.Confirm(false); err != nil {
		_ = ch.Close()
		return nil, err
	}
	return o, nil
}

// await waits for a publication's confirm. late is called again and again while none comes within the limit, and says whether to wait on.
func (o *outlet) await(ctx context.Context, lost <-chan struct{}, pub *publication, limit time.Duration, late func() (on bool)) (fate, error) {
	if pub.confirm == nil {
		return unknown, nil
	}
	timer := time.NewTicker(limit)
	defer timer.Stop()
	for confirmed := false; !confirmed; {
		select {
		case <-pub.confirm.Done():
			confirmed = true
		case <-timer.C:
			if !late() {
				return unanswered, nil
			}
		case <-ctx.Done():
			return unknown, ctx.Err()
		case <-lost:
			return unknown, queue.ErrLost
		}
	}
	if !pub.confirm.Acked() {
		// The library calls an open confirm refused when the channel closes.
		if o.ch.IsClosed() {
			return unknown, nil
		}
		return refusedByBroker, nil
	}
	if (pub.make != nil || len(o.returns) > 0) && o.wasReturned(pub.id) {
		return unroutable, nil
	}
	return arrived, nil
}

// wasReturned reports whether the broker returned the publication. It returns a message before it confirms it, and the
// library hands over both in that order: whoever sees the confirm finds the return in the channel or in the map.
func (o *outlet) wasReturned(id int64) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	for len(o.returns) > 0 {
		r, ok := <-o.returns
		if !ok {
			break
		}
		if n := number(r.Headers, headerPublish); n != 0 {
			o.returned[n] = struct{}{}
		} else {
			o.log.Debug("the queue of reply_to is gone: the reply was dropped", keyQueue, r.RoutingKey, keyTask, r.MessageId)
		}
	}
	_, found := o.returned[id]
	delete(o.returned, id)
	return found
}

// ahead makes what must exist before publishing, unless that was done.
func (o *outlet) ahead(what string, make func(*session) error) error {
	o.mu.Lock()
	_, exists := o.exists[what]
	o.mu.Unlock()
	if exists {
		return nil
	}
	if err := make(o.sess); err != nil {
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.exists[what] = struct{}{}
	return nil
}

// sleepOr is sleep that ends early with ErrLost.
func sleepOr(ctx context.Context, lost <-chan struct{}, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-lost:
		return queue.ErrLost
	case <-t.C:
		return nil
	}
}
