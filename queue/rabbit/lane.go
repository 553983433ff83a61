package rabbit

import (
	"errors"
	"fmt"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/mayfly/mayfly/queue"
)

// lane fetches from the queue of one pool's band. Only the regulator's goroutine opens it and changes its width; the
// fields below are guarded by source.mu.
type lane struct {
	pool  string
	band  queue.Band
	queue string

	line      *line // nil while there is no channel
	unsettled map[*delivery]struct{}
	buffer    []*delivery // fetched and not handed out, oldest first
	width     int         // the prefetch of the running consumer; 0 without one
	held      bool        // narrowed because the demand was exceeded: there is more in the queue
	retryAt   time.Time   // not to be opened before
	wait      backoff
	complaint string // the last error that was logged, so that it is logged once; the regulator's own, as wait is
}

// line is one channel of a lane with at most one consumer.
type line struct {
	ch       *amqp.Channel
	user     string
	consumer string
	drained  chan struct{} // closed when the consumer's deliveries have all been taken
}

// shut gives up a lane's channel: the broker delivers what was unsettled again.
func (s *source) shut(l *lane) {
	s.mu.Lock()
	ln := l.line
	s.mu.Unlock()
	if ln != nil {
		s.lose(l, ln)
		_ = ln.ch.Close()
	}
}

// lose ends the deliveries of a lane's channel.
func (s *source) lose(l *lane, ln *line) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l.line != ln {
		return 0
	}
	for d := range l.unsettled {
		if d.received {
			s.received--
		}
		close(d.lost)
	}
	n = len(l.unsettled)
	s.buffered -= len(l.buffer)
	l.line, l.unsettled, l.buffer, l.width = nil, nil, nil, 0
	signal(s.kick)
	s.stir()
	return n
}

// open gives a lane a channel, without a consumer yet.
func (s *source) open(l *lane, sess *session) error {
	ch, err := sess.conn.Channel()
	if err != nil {
		return err
	}
	ln := &line{ch: ch, user: sess.user}
	closed := ch.NotifyClose(make(chan *amqp.Error, 1))
	cancelled := ch.NotifyCancel(make(chan string, 1))
	s.mu.Lock()
	l.line, l.unsettled = ln, map[*delivery]struct{}{}
	s.mu.Unlock()
	s.wg.Go(func() { s.watch(l, ln, sess, closed, cancelled) })
	return nil
}

// watch waits for the end of a lane's channel and says why it ended where that needs the operator.
func (s *source) watch(l *lane, ln *line, sess *session, closed chan *amqp.Error, cancelled chan string) {
	var fault *amqp.Error
	select {
	case fault = <-closed:
	case _, ok := <-cancelled:
		if !ok {
			fault = <-closed
			break
		}
		// The broker has ended the consumer: the queue was deleted, or (from 4.3) an acknowledgement came too late. With
		// the channel all that it held goes back, so that nothing is settled that the broker has given to another.
		n := s.lose(l, ln)
		_ = ln.ch.Close()
		// Before 4.3 a late acknowledgement closes the channel instead, and without a delivery none can be late.
		if n > 0 && atLeast(s.client.version(), 4, 3) && s.exists(sess, l.queue) {
			s.client.log.Error("lost deliveries: RabbitMQ ended the consumer, most likely because a task ran for longer than its "+
				"acknowledgement timeout", keyQueue, l.queue, "deliveries", n, "remedy", s.remedy())
		} else {
			s.client.log.Error("lost a consumer: RabbitMQ ended it because its queue was deleted", keyQueue, l.queue, "deliveries", n)
		}
		return
	}
	n := s.lose(l, ln)
	switch {
	case fault == nil || sess.conn.IsClosed():
		// Closed by us, or lost with the connection, which its link reports.
	case fault.Code == amqp.NotFound:
		// The queue is missing, which failed reports where it cannot be made.
	case timedOut(fault):
		s.client.log.Error("lost deliveries: a task ran for longer than RabbitMQ's acknowledgement timeout",
			keyQueue, l.queue, "deliveries", n, "remedy", s.remedy(), keyErr, fault)
	default:
		s.client.log.Error("lost deliveries: RabbitMQ closed the channel", keyQueue, l.queue, "deliveries", n, keyErr, fault)
	}
}

// exists reports whether the queue still exists.
func (s *source) exists(sess *session, name string) bool {
	return attempt(sess, func(ch *amqp.Channel) error {
		_, err := ch.QueueDeclarePassive(name, true, false, false, false, nil)
		return err
	}) == nil
}

// consume replaces the consumer of a lane by one with the given prefetch; 0 leaves the lane without one. Surplus
// deliveries are given back in between, when they cannot come straight back.
func (s *source) consume(l *lane, ln *line, width int, surplus []*delivery) error {
	if ln.consumer != "" {
		err := ln.ch.Cancel(ln.consumer, false)
		if err != nil {
			return err
		}
		<-ln.drained
		ln.consumer = ""
	}
	for _, d := range surplus {
		if err := ln.ch.Nack(d.raw.DeliveryTag, false, true); err != nil {
			return err
		}
	}
	if width == 0 {
		return nil
	}
	if err := ln.ch.Qos(width, 0, false); err != nil {
		return err
	}
	tag := fmt.Sprintf("mayfly-%s-%s-%d", l.pool, l.band, time.Now().UnixNano())
	deliveries, err := ln.ch.Consume(l.queue, tag, false, false, false, false, nil)
	if err != nil {
		return err
	}
	ln.consumer, ln.drained = tag, make(chan struct{})
	drained := ln.drained
	s.wg.Go(func() {
		defer close(drained)
		for raw := range deliveries {
			s.arrived(l, ln, raw)
		}
	})
	return nil
}

// failed handles a lane that could not be opened or could not consume.
func (s *source) failed(l *lane, sess *session, err error) {
	s.shut(l)
	s.mu.Lock()
	l.retryAt = time.Now().Add(l.wait.next())
	s.mu.Unlock()
	if sess.conn.IsClosed() {
		return
	}
	if isCode(err, amqp.NotFound) {
		err = s.client.topology.pool(sess, l.pool)
		if err == nil {
			return
		}
	}
	var lacking missing
	if (errors.As(err, &lacking) || !errors.Is(err, amqp.ErrClosed)) && err.Error() != l.complaint {
		l.complaint = err.Error()
		s.client.log.Error("could not consume, trying again", keyQueue, l.queue, keyPool, l.pool, keyErr, err)
	}
}
