package rabbit

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// line is one channel of a lane. It is born with a consumer of a fixed prefetch; without one it is retired and lives on for
// as long as deliveries that came by it are unsettled.
type line struct {
	ch *amqp.Channel
	// calls is held while an answer of the broker is awaited on the channel: two who wait for one each may get each other's, and when the second one does not come, because the channel
	// is closed by then, one waits as long as the connection lives, with what it holds.
	calls    sync.Mutex
	user     string
	consumer string
	drained  chan struct{} // closed when the consumer's deliveries have all been taken

	// Guarded by source.mu:
	prefetch  int // 0 once it is retired
	unsettled map[*delivery]struct{}
	since     time.Time // it has held something without a break
	gone      bool      // what it held is lost, or it is about to be closed
}

// open gives a lane one more line.
func (s *source) open(l *lane, sess *session, prefetch int) error {
	ch, err := sess.conn.Channel()
	if err != nil {
		return err
	}
	ln := &line{
		ch: ch, user: sess.user, prefetch: prefetch, unsettled: map[*delivery]struct{}{}, drained: make(chan struct{}),
		consumer: fmt.Sprintf("mayfly-%s-%s-%d", l.pool, l.band, time.Now().UnixNano()),
	}
	closed := ch.NotifyClose(make(chan *amqp.Error, 1))
	cancelled := ch.NotifyCancel(make(chan string, 1))
	s.mu.Lock()
	l.lines = append(l.lines, ln)
	s.mu.Unlock()
	s.wg.Go(func() { s.watch(l, ln, sess, closed, cancelled) })
	var deliveries <-chan amqp.Delivery
	err = ln.call(func() (err error) {
		if err = ch.Qos(prefetch, 0, false); err == nil {
			mute := time.AfterFunc(answerLimit, func() {
				s.client.log.Error("RabbitMQ does not let this host have a queue's messages, which keeps it from the other queues', too", keyQueue, l.queue, "remedy", leaderless(l.queue))
			})
			defer mute.Stop()
			deliveries, err = ch.Consume(l.queue, ln.consumer, false, false, false, false, nil)
		}
		return err
	})
	if err != nil {
		s.drop(l, ln)
		return err
	}
	s.wg.Go(func() {
		defer close(ln.drained)
		for raw := range deliveries {
			s.arrived(l, ln, raw)
		}
	})
	return nil
}

// call asks the broker something on the line's channel. One at a time does.
func (ln *line) call(ask func() error) error {
	ln.calls.Lock()
	defer ln.calls.Unlock()
	return ask()
}

// close closes the line's channel: the broker delivers what it holds again.
func (ln *line) close() { _ = ln.call(ln.ch.Close) }

// retire ends a line's consumer. What it holds stays; a line that cannot even be told to stop is dropped.
func (s *source) retire(l *lane, ln *line) {
	if err := ln.call(func() error { return ln.ch.Cancel(ln.consumer, false) }); err != nil {
		s.drop(l, ln)
		return
	}
	<-ln.drained
	s.mu.Lock()
	defer s.mu.Unlock()
	ln.prefetch = 0
}

// drop gives up a line: the broker delivers what was unsettled again.
func (s *source) drop(l *lane, ln *line) {
	s.lose(l, ln)
	ln.close()
}

// shut gives up all lines of a lane.
func (s *source) shut(l *lane) {
	s.mu.Lock()
	lines := slices.Clone(l.lines)
	s.mu.Unlock()
	for _, ln := range lines {
		s.drop(l, ln)
	}
}

// lose ends the deliveries of a line, and returns how many there were.
func (s *source) lose(l *lane, ln *line) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ln.gone {
		return 0
	}
	for d := range ln.unsettled {
		if d.received {
			s.received--
			l.received--
		}
		if !d.handed { // else it may have been begun
			s.client.given.add(&d.msg)
		}
		close(d.lost)
	}
	before := len(l.buffer)
	l.buffer = slices.DeleteFunc(l.buffer, func(d *delivery) bool { return d.line == ln })
	s.buffered -= before - len(l.buffer)
	n := len(ln.unsettled)
	s.held -= n
	ln.gone, ln.prefetch, ln.unsettled = true, 0, nil
	l.lines = slices.DeleteFunc(l.lines, func(other *line) bool { return other == ln })
	signal(s.kick)
	s.stir()
	return n
}

// watch waits for the end of a line's channel and says why it ended where that needs the operator.
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
		ln.close()
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

// failed handles a lane that could not be given a line.
func (s *source) failed(l *lane, sess *session, err error) {
	s.mu.Lock()
	l.retryAt = time.Now().Add(l.wait.next())
	s.mu.Unlock()
	if sess.conn.IsClosed() {
		return
	}
	if isCode(err, amqp.NotFound) {
		err = l.make(sess)
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
