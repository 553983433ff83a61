package rabbit

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"
)

// youth is for how long a queue of type quorum is not relied upon. On a broker of one node that is killed within a second of the making of a queue (0.8 s, as measured
// on 3.10, 4.0 and 4.3), the queue is empty afterwards, and what it had confirmed is gone: which log is the queue's is kept in a dets table (ra_directory.erl), which is written to the disk once it
// has been left alone for half a second, or 3 s later at the latest (dets.erl). "Configured member ... was not found on this node. Starting member as a new one", says the broker's log then.
const youth = 3 * time.Second

// errMute says that a wait queue did not confirm a message within [answerLimit]. A queue that was young when its broker was killed may stay without a leader for good
// (RabbitMQ 3.10 and 4.0; https://github.com/rabbitmq/rabbitmq-server/issues/15725).
var errMute = errors.New("the wait queue does not answer")

// leaderless says what is to be done about a queue that does not answer.
func leaderless(queue string) string {
	return "bring the nodes of its cluster back; of a broker that has but one node and was killed, the queue is empty and stays without a leader: remove it, and it is made anew: rabbitmqctl delete_queue " + queue
}

// muteTime is how long a wait queue that did not answer is left alone: messages wait in the next one.
const muteTime = 10 * time.Minute

// known is what a client knows of the broker's queues, by their names.
type known struct {
	mu   sync.Mutex
	seen map[string]time.Time // when this client made it, or first saw it; see [youth]
	mute map[string]time.Time // when it did not answer
}

func newKnown() known { return known{seen: map[string]time.Time{}, mute: map[string]time.Time{}} }

// saw notes that a queue is there. Its age counts from when this client made it or first saw it: another host may have made it just then.
func (k *known) saw(queue string, made bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, seen := k.seen[queue]; !seen || made {
		k.seen[queue] = time.Now()
	}
}

// young returns for how long a queue is not to be relied upon yet.
func (k *known) young(queue string) time.Duration {
	k.mu.Lock()
	defer k.mu.Unlock()
	return max(0, youth-time.Since(k.seen[queue]))
}

// silent notes that a wait queue did not answer.
func (k *known) silent(queue string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.mute[queue] = time.Now()
}

// rung is the rung of a delay whose queue answers, as far as is known: the next one up, or the longest below.
func (k *known) rung(delay time.Duration) time.Duration {
	k.mu.Lock()
	defer k.mu.Unlock()
	answers := func(r time.Duration) bool {
		at, ok := k.mute[waitName(r)]
		return !ok || time.Since(at) >= muteTime
	}
	at := slices.Index(ladder, rung(delay))
	if i := slices.IndexFunc(ladder[at:], answers); i >= 0 {
		return ladder[at+i]
	}
	for _, r := range slices.Backward(ladder[:at]) {
		if answers(r) {
			return r
		}
	}
	return ladder[at]
}

// backOff makes the wait queue of a delay, and waits here for as long as that is young, though not longer than the delay: the message stays in its queue meanwhile. It returns what the copy
// is to wait for in the queue then, by its rung; 0 where the delay is over. So the first task that waits for long does that for up to 3 s longer.
func (d *delivery) backOff(ctx context.Context, delay time.Duration) (time.Duration, error) {
	cl := d.source.client
	r := cl.topology.known.rung(delay)
	for delay > 0 {
		o, err := cl.publish.outlet(ctx, d.lost)
		if err != nil {
			return 0, err
		}
		if err := o.ahead(waitName(r), func(s *session) error { return cl.topology.wait(s, r) }); err != nil && !o.sess.conn.IsClosed() {
			return r, nil // who publishes the copy finds the same, and says so
		} else if err != nil {
			if err := sleepOr(ctx, d.lost, backoffMin); err != nil {
				return 0, err
			}
			continue
		}
		wait := min(delay, cl.topology.known.young(waitName(r)))
		if wait == 0 {
			return r, nil
		}
		if err := sleepOr(ctx, d.lost, wait); err != nil {
			return 0, err
		}
		delay -= wait
	}
	return 0, nil
}
