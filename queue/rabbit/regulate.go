package rabbit

import (
	"cmp"
	"context"
	"slices"
	"time"
)

// How the lanes are fitted to the demand. A prefetch belongs to a consumer, so several lanes may together fetch more than
// the demand. What stays in surplus is given back, and the lanes of that band are narrowed: they stop fetching, and share
// the room that comes. While a higher band is narrowed, the lower ones fetch nothing, for the higher band has more. A
// narrowed lane goes on when there has been room for a moment: room that a fetching lane fills at once is none. When higher bands
// have gone first for long enough, a narrowed lane may fetch one message beyond the demand, so that no band starves.
//
// A lane is made wider by one more line, and narrower by retiring its lines: what they hold does not count against
// the prefetch of another, so a new line may only fetch what is missing. A line that holds long tasks is retired after a while, so
// that an acknowledgement that comes too late costs the deliveries of that while only.
const (
	// surplusLimit is how long deliveries beyond the demand may wait to be handed out.
	surplusLimit = time.Second
	// roomDelay is how long there must be room before a lane is made wider; longer than a broker takes to send the next.
	roomDelay = 50 * time.Millisecond
	// littleDelay is the same where little is missing: fewer than much messages, and less than a quarter of the demand. The demand of a busy host sways by a
	// few as results come and go, and a line costs the broker as much as several messages.
	littleDelay = 300 * time.Millisecond
	much        = 8
	// narrowDelay bounds how often a lane is made narrower because the demand shrank.
	narrowDelay = time.Second
	// lineAge is how long a line fetches while it holds something.
	lineAge = time.Minute
	// fetchingLimit bounds the lines of a lane that fetch.
	fetchingLimit = 8
	// linesLimit bounds the lines that a lane has because of their age: a connection has at most 2047 channels by default.
	linesLimit = 64
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

// change is what is to be done with a lane: first retire lines, then give back, then open a line that brings the lane's
// limit to the target.
type change struct {
	lane    *lane
	retire  []*line
	surplus []*delivery
	target  int
}

// regulate fits all lanes to the demand. It returns when to look again at the latest; 0 means that the next event will do.
func (s *source) regulate(ctx context.Context, sess *session, now time.Time) time.Duration {
	s.mu.Lock()
	for _, l := range s.lanes {
		for _, ln := range l.finished() {
			s.wg.Go(ln.close)
		}
	}
	changes, next := s.plan(now)
	s.mu.Unlock()
	for _, c := range changes {
		if ctx.Err() != nil {
			break
		}
		if err := s.apply(c, sess); err != nil {
			s.failed(c.lane, sess, err)
			signal(s.kick)
			continue
		}
		c.lane.wait, c.lane.complaint = 0, ""
	}
	return next
}

// apply changes a lane.
func (s *source) apply(c change, sess *session) error {
	for _, ln := range c.retire {
		s.retire(c.lane, ln)
	}
	for _, d := range c.surplus { // now that it cannot come straight back
		s.client.given.add(&d.msg)
		_ = d.line.ch.Nack(d.raw.DeliveryTag, false, true) // it fails only where the channel is gone, and all it held given back
	}
	s.mu.Lock()
	prefetch := c.target - c.lane.limit()
	s.mu.Unlock()
	if prefetch <= 0 {
		return nil
	}
	return s.open(c.lane, sess, prefetch)
}

// plan decides what is to be done, and when to look again at the latest. It is called with mu held.
func (s *source) plan(now time.Time) (changes []change, next time.Duration) {
	turns := 0
	for _, l := range s.lanes {
		if l.due() && len(l.buffer) > 0 {
			turns++ // the first of these is handed out whatever the demand
		}
	}
	f := fitting{source: s, now: now, room: s.demand - s.held}
	over := s.received + s.buffered - turns - s.demand
	f.sooner(s.reg.observe(now, f.room > 0, over > 0 && s.buffered > 0))
	f.widen = f.room > 0 && (s.grown || now.Sub(s.reg.roomSince) >= roomDelay)
	var surplus map[*lane][]*delivery
	if over > 0 && s.buffered > 0 && (s.demand == 0 || now.Sub(s.reg.overSince) >= surplusLimit) {
		surplus = s.giveBack(over)
		s.reg.over = false
	}
	s.narrow, s.grown = false, false
	blocked := false // by a narrowed lane of a higher band
	for _, lanes := range s.bands {
		// The lane that holds the least comes first, so that it gets the room there is.
		lanes = slices.Clone(lanes)
		slices.SortStableFunc(lanes, func(a, b *lane) int { return cmp.Compare(a.held(), b.held()) })
		stop := blocked || slices.ContainsFunc(lanes, func(l *lane) bool { return surplus[l] != nil })
		for _, l := range lanes {
			c := f.fit(l, stop)
			c.surplus = surplus[l]
			if len(c.retire) > 0 || len(c.surplus) > 0 || c.target > l.limit() {
				changes = append(changes, c)
			}
			blocked = blocked || l.narrowed
			s.narrow = s.narrow || c.target < s.demand || len(l.fetching()) == len(c.retire)
		}
	}
	return changes, f.next
}

// fitting is one look at all lanes.
type fitting struct {
	*source
	now   time.Time
	room  int  // how much more may be fetched
	widen bool // the room has been there for long enough
	next  time.Duration
}

// sooner has the regulator look again after d at the latest; 0 asks for nothing.
func (f *fitting) sooner(d time.Duration) {
	if d > 0 && (f.next == 0 || d < f.next) {
		f.next = d
	}
}

// little reports whether so few messages are missing that it may pass.
func (f *fitting) little(missing int) bool {
	return missing > 0 && missing < much && missing*4 < f.demand && f.room > 0 && f.now.Sub(f.reg.roomSince) < littleDelay
}

// fit decides on a lane; stop says that it is to fetch nothing for now.
func (f *fitting) fit(l *lane, stop bool) change {
	held, limit, fetching := l.held(), l.limit(), l.fetching()
	c := change{lane: l, target: limit}
	tooWide := len(fetching) > 0 && f.demand < limit/2 || len(fetching) > 1 && held == 0
	narrowing := narrowDelay - f.now.Sub(f.reg.narrowed)
	switch {
	case f.demand == 0:
		l.narrowed = false
		c.retire, c.target = fetching, 0
	case l.due() && (stop || l.narrowed):
		l.narrowed = true
		switch pause := l.retryAt.Sub(f.now); {
		case len(fetching) > 0:
		case pause > 0:
			f.sooner(pause)
		default:
			c.target = limit + 1
		}
	case stop || l.narrowed && len(fetching) > 0:
		l.narrowed = true
		c.retire, c.target = fetching, 0
	case tooWide && narrowing > 0:
		f.sooner(narrowing)
	case tooWide:
		c.retire, c.target = fetching, max(f.demand, held)
		f.reg.narrowed = f.now
	case f.now.Before(l.retryAt):
		f.sooner(l.retryAt.Sub(f.now))
	case len(fetching) == 0 && held == 0 && !l.narrowed:
		c.target = f.demand
	case held >= limit && !l.narrowed && f.little(f.demand-limit):
		f.sooner(littleDelay - f.now.Sub(f.reg.roomSince))
	case (l.narrowed || held >= limit) && limit < f.demand && f.room > 0 && f.widen:
		c.target = min(held+f.room, f.demand)
		f.room, l.narrowed = 0, false
		if len(fetching) >= fetchingLimit {
			c.retire = fetching
		}
	}
	if l.narrowed && f.room > 0 {
		f.sooner(roomDelay) // see whether another has filled the room by then
	}
	if len(c.retire) == 0 && len(l.lines) < linesLimit {
		for _, ln := range fetching {
			if len(ln.unsettled) == 0 {
				continue
			}
			if age := f.now.Sub(ln.since); age >= lineAge {
				c.retire = append(c.retire, ln)
			} else {
				f.sooner(lineAge - age)
			}
		}
	}
	return c
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

// giveBack takes up to n buffered deliveries away from those to be handed out: of the lowest band first, the youngest
// first. It is called with mu held.
func (s *source) giveBack(n int) map[*lane][]*delivery {
	taken := map[*lane][]*delivery{}
	for i := len(s.lanes) - 1; i >= 0 && n > 0; i-- {
		l := s.lanes[i]
		least := 0
		if l.due() && s.demand > 0 {
			least = 1 // it is its turn
		}
		for ; n > 0 && len(l.buffer) > least; n-- {
			last := len(l.buffer) - 1
			d := l.buffer[last]
			l.buffer[last] = nil
			l.buffer = l.buffer[:last]
			delete(d.line.unsettled, d)
			s.held--
			s.buffered--
			taken[l] = append(taken[l], d)
		}
		slices.Reverse(taken[l]) // to be given back in the queue's order
	}
	return taken
}
