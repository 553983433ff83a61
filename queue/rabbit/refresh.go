package rabbit

import (
	"context"

	"github.com/mayfly/mayfly/queue"
)

// refreshAt is the delivery count from which a message is replaced by a fresh copy. RabbitMQ 4.x drops a message that it
// has delivered more than 20 times where no policy says otherwise; half of that leaves room for losses meanwhile.
const refreshAt = 10

// refresh replaces a message that was delivered often by a fresh copy of it, before anybody sees it. It ends at the latest
// when the delivery is lost, as all are when the source closes. The copy may be there then, and may be begun, though the message comes again: so nobody says of that delivery that
// it was for nothing.
func (s *source) refresh(d *delivery) {
	err := d.publish(context.Background(), queue.Verdict{}, []*publication{s.fresh(d)})
	if err == nil {
		err = d.line.ch.Ack(d.raw.DeliveryTag, false)
	}
	if err != nil {
		return // the channel is gone or about to go: the message comes again
	}
	s.settled(d)
	s.client.log.Debug("refreshed a message that was delivered often", keyPool, d.msg.Pool, keyQueue, d.lane.queue)
}

// fresh is the copy by which a delivery is replaced: it carries on who had the message before this delivery, whose place it takes.
func (s *source) fresh(d *delivery) *publication {
	fresh := s.client.toPool(d.msg.Pool, d.msg.Band, again(d.raw, d.msg, d.line.user))
	fresh.copied = true
	switch n := len(d.msg.Turns); { // else nobody but us had it, and it may start anew
	case d.msg.Redelivered && n > 0: // somebody may be running it; who gave it back can still say so
		fresh.msg.Headers[headerTurns] = carried(d.msg.Turns[:n-1])
	case d.msg.Redelivered:
		fresh.doubt()
	}
	return fresh
}
