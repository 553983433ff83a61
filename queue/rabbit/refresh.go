package rabbit

import (
	"context"

	"github.com/mayfly/mayfly/queue"
)

// refreshAt is the delivery count from which a message is replaced by a fresh copy. RabbitMQ 4.x drops a message that it
// has delivered more than 20 times where no policy says otherwise; half of that leaves room for losses meanwhile.
const refreshAt = 10

// refresh replaces a message that was delivered often by a fresh copy of it, before anybody sees it. It ends at the latest
// when the delivery is lost, as all are when the source closes.
func (s *source) refresh(d *delivery) {
	fresh := s.client.toPool(d.msg.Pool, d.msg.Band, again(d.raw, d.msg, d.line.user))
	fresh.copied = true
	switch { // else nobody but us had it, and it may start anew
	case d.msg.Redelivered && len(d.msg.Turns) > 0: // somebody may be running it; who gave it back can still say so
		fresh.msg.Headers[headerTurns] = carried(d.msg.Turns)
		s.client.given.add(&d.msg)
	case d.msg.Redelivered:
		fresh.doubt()
	}
	err := d.publish(context.Background(), queue.Verdict{}, []*publication{fresh})
	if err == nil {
		err = d.line.ch.Ack(d.raw.DeliveryTag, false)
	}
	if err != nil {
		return // the channel is gone or about to go: the message comes again
	}
	s.settled(d)
	s.client.log.Debug("refreshed a message that was delivered often", keyPool, d.msg.Pool, keyQueue, d.lane.queue)
}
