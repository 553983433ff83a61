package rabbit

import (
	"log/slog"
	"slices"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/mayfly/mayfly/queue"
)

// lowLane is a source with a demand, and its lane of the low band with one line.
func lowLane(demand int) (*source, *lane, *line) {
	s := newSource(&Client{pools: []string{"p"}, given: given{when: map[[16]byte]gift{}}})
	s.demand = demand
	low, ln := s.lanes[2], &line{prefetch: 1, unsettled: map[*delivery]struct{}{}}
	low.lines = []*line{ln}
	return s, low, ln
}

// TestLoseBeyondDemand has a message of the low band handed out beyond the demand, and its channel lost: nobody may say that it was not begun. One that was not handed out
// was not.
func TestLoseBeyondDemand(t *testing.T) {
	t.Parallel()
	for name, handedOut := range map[string]bool{"handed out": true, "fetched": false} {
		s, low, ln := lowLane(1)
		s.received = 1 // of a higher band
		low.passed = queue.PassMax
		d := &delivery{source: s, lane: low, line: ln, lost: make(chan struct{}), msg: queue.Message{MessageID: "t", Pool: "p", Turns: []int{0}}}
		ln.unsettled[d] = struct{}{}
		low.buffer = []*delivery{d}
		s.buffered, s.held = 1, 2
		if handedOut && s.take() != d {
			t.Fatal("it was not handed out")
		}
		s.lose(low, ln)
		if given := len(s.client.given.turns(d.msg.Fingerprint())) > 0; given == handedOut {
			t.Errorf("%s: said to be unbegun: %t", name, given)
		}
	}
}

// TestFailedLaneWaits has it be the turn of a lane that could not be opened a moment ago.
func TestFailedLaneWaits(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for _, pause := range []time.Duration{10 * time.Second, -time.Second} {
		s, low, _ := lowLane(4)
		low.lines = nil
		low.passed, low.narrowed, low.retryAt = queue.PassMax, true, now.Add(pause)
		changes, next := s.plan(now)
		opens := false
		for _, c := range changes {
			opens = opens || c.lane == low && c.target > 0
		}
		if opens != (pause < 0) || pause > 0 && (next <= 0 || next > pause) {
			t.Errorf("to be opened again in %s: opened %t, and looked at again in %s", pause, opens, next)
		}
	}
}

// TestLoseWhileRefreshed has the connection be lost while a message that was delivered often is replaced by a copy: that may have been published, and be begun, when the message
// itself comes again.
func TestLoseWhileRefreshed(t *testing.T) {
	t.Parallel()
	s, low, ln := lowLane(1)
	s.client.publish = newPublisher(nil, nil, slog.New(slog.DiscardHandler)) // out of reach
	raw := amqp.Delivery{MessageId: "t", Redelivered: true, Headers: amqp.Table{deliveryCount: int64(refreshAt)}}
	s.arrived(low, ln, raw)
	m := decode(raw, "p", queue.Low, "")
	if fresh := decode(amqp.Delivery{Headers: s.fresh(&delivery{source: s, lane: low, line: ln, raw: raw, msg: m}).msg.Headers}, "p", queue.Low, ""); !slices.Equal(fresh.Turns[:len(fresh.Turns)-1], m.Turns[:refreshAt]) {
		t.Errorf("the copy has %v before its own, of %v", fresh.Turns, m.Turns)
	}
	s.lose(low, ln)
	s.wg.Wait()
	if gave := s.client.given.turns(m.Fingerprint()); len(gave) > 0 {
		t.Errorf("others are told that nobody has begun what was delivered as %v", gave)
	}
}
