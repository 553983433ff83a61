package rabbit

import (
	"context"
	"slices"
	"time"
)

// The lanes' widths. A prefetch belongs to a consumer, so several lanes may together fetch more than the demand. What
// stays in surplus is given back and its lane held; while a higher band is held, the lower ones fetch nothing, for the
// higher band has more. A held lane goes on when there has been room for a moment: room that a running lane fills at
// once is none.
const (
	// surplusLimit is how long deliveries beyond the demand may wait to be handed out.
	surplusLimit = time.Second
	// roomDelay is how long there must be room before a held lane goes on; longer than a broker takes to send the next.
	roomDelay = 50 * time.Millisecond
	// narrowDelay bounds how often a lane is made narrower because the demand shrank.
	narrowDelay = time.Second
	// maxDemand is the largest prefetch of AMQP.
	maxDemand = 65535
)

// regulator is what the regulation remembers. Guarded by source.mu.
type regulator struct {
	over      bool // the demand is exceeded, since:
	overSince time.Time
	room      bool // there is room, since:
	roomSince time.Time
	narrowed  time.Time
}

// change is what is to be done with a lane.
type change struct {
	lane    *lane
	line    *line
	width   int
	surplus []*delivery
}

// regulate opens the lanes that have no channel and fits all widths to the demand. It returns when to look again at the
// latest; 0 means that the next event will do.
func (s *source) regulate(ctx context.Context, sess *session, now time.Time) time.Duration {
	for _, l := range s.lanes {
		s.mu.Lock()
		closed, due := l.line == nil, !now.Before(l.retryAt)
		s.mu.Unlock()
		if closed && due && ctx.Err() == nil {
			if err := s.open(l, sess); err != nil {
				s.failed(l, sess, err)
			}
		}
	}
	changes, next := s.plan(now)
	for _, c := range changes {
		if err := s.consume(c.lane, c.line, c.width, c.surplus); err != nil {
			s.failed(c.lane, sess, err)
			signal(s.kick)
			continue
		}
		c.lane.wait, c.lane.complaint = 0, ""
	}
	return next
}

// plan decides on the widths.
func (s *source) plan(now time.Time) (changes []change, next time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	total := 0
	for _, l := range s.lanes {
		total += len(l.unsettled)
	}
	room := s.demand - total
	over := s.received + s.buffered - s.demand
	next = s.reg.observe(now, room > 0, over > 0 && s.buffered > 0)
	widen := room > 0 && (s.grown || now.Sub(s.reg.roomSince) >= roomDelay)
	var surplus map[*lane][]*delivery
	if over > 0 && s.buffered > 0 && (s.demand == 0 || now.Sub(s.reg.overSince) >= surplusLimit) {
		surplus = s.giveBack(over)
		s.reg.over = false
	}
	narrow := now.Sub(s.reg.narrowed) >= narrowDelay
	s.narrow, s.grown = false, false
	blocked := false // by a held lane of a higher band
	for i, l := range s.lanes {
		if i > 0 && s.lanes[i-1].band != l.band {
			blocked = s.anyHeld(l)
		}
		if l.line == nil {
			if wait := max(l.retryAt.Sub(now), time.Millisecond); next == 0 || wait < next {
				next = wait
			}
			continue
		}
		held := len(l.unsettled)
		width := l.width
		switch {
		case s.demand == 0:
			width, l.held = 0, false
		case surplus[l] != nil:
			width, l.held = held, true
		case blocked:
			width, l.held = 0, true
		case l.width == 0 && !l.held:
			width = s.demand
		case l.held && widen && held < l.width:
			l.held = false // the queue has no more
		case l.held && (!widen || room <= 0):
		case l.held:
			width, l.held = min(held+room, s.demand), false
			room = 0
		case held >= l.width && l.width < s.demand && widen && room > 0:
			width = min(held+room, s.demand)
			room = 0
		case s.demand < l.width/2 && narrow:
			width = s.demand
			s.reg.narrowed = now
		case s.demand < l.width/2:
			if wait := narrowDelay - now.Sub(s.reg.narrowed); next == 0 || wait < next {
				next = wait
			}
		}
		if width < s.demand {
			s.narrow = true
		}
		if l.held && widen && (next == 0 || roomDelay < next) {
			next = roomDelay // see whether those before it have filled the room
		}
		if width != l.width || surplus[l] != nil {
			l.width = width
			changes = append(changes, change{l, l.line, width, surplus[l]})
		}
	}
	return changes, next
}

// observe notes since when there is room or surplus, and returns when either may become due.
func (r *regulator) observe(now time.Time, room, over bool) (next time.Duration) {
	if room && !r.room {
		r.roomSince = now
	}
	if over && !r.over {
		r.overSince = now
	}
	r.room, r.over = room, over
	if over {
		next = max(surplusLimit-now.Sub(r.overSince), time.Millisecond)
	}
	if wait := roomDelay - now.Sub(r.roomSince); room && wait > 0 && (next == 0 || wait < next) {
		next = wait
	}
	return next
}

// anyHeld reports whether a lane of a higher band than l's is held.
func (s *source) anyHeld(l *lane) bool {
	for _, higher := range s.lanes {
		if higher.band == l.band {
			return false
		}
		if higher.held {
			return true
		}
	}
	return false
}

// giveBack takes up to n buffered deliveries away from those to be handed out: of the lowest band first, the youngest
// first. It is called with mu held.
func (s *source) giveBack(n int) map[*lane][]*delivery {
	taken := map[*lane][]*delivery{}
	for i := len(s.lanes) - 1; i >= 0 && n > 0; i-- {
		l := s.lanes[i]
		for ; n > 0 && len(l.buffer) > 0; n-- {
			last := len(l.buffer) - 1
			d := l.buffer[last]
			l.buffer[last] = nil
			l.buffer = l.buffer[:last]
			delete(l.unsettled, d)
			s.buffered--
			taken[l] = append(taken[l], d)
		}
		slices.Reverse(taken[l]) // to be given back in the queue's order
	}
	return taken
}
