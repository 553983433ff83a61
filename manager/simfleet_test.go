package manager

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/mayfly/mayfly/queue"
)

// simFleet is the other hosts as a life sees them.
type simFleet struct{ *simLife }

// say publishes something that hosts say to each other, until that is confirmed.
func (f simFleet) say(ctx context.Context, what string, to func(h *simHost) bool, hear func(l *simLife)) error {
	b := f.host.broker
	for ctx.Err() == nil {
		b.Lock()
		l := f.own
		b.Unlock()
		if l == nil || closed(l.left) {
			wait(ctx, b.between(0, 50*time.Millisecond))
			continue
		}
		if b.pass(l, l.left, l.gone) {
			b.Lock()
			b.tell("%s %s", f.host.name, what)
			for _, h := range b.hosts {
				if other := h.link; h != f.host && other != nil && to(h) {
					go func() {
						if b.pass(other, other.gone, other.left) && !other.life.isDead() {
							hear(other.life)
						}
					}()
				}
			}
			b.Unlock()
			if b.pass(l, l.gone, l.left) {
				return nil
			}
		}
		wait(ctx, b.between(0, 50*time.Millisecond))
	}
	return ctx.Err()
}

func (f simFleet) Ask(ctx context.Context, q queue.Question, host string) error {
	q.From = f.host.name
	return f.say(ctx, fmt.Sprintf("asks %s: %s %s (%s, rank %d) %s", host, q.Purpose, q.AttemptID, q.ID, q.Rank, over(q)),
		func(h *simHost) bool { return host == "" || host == h.name }, func(l *simLife) {
			b := l.host.broker
			b.Lock()
			gave := slices.Clone(l.given[[16]byte(append(q.Fingerprint, make([]byte, 16)...))])
			b.Unlock()
			if q.Purpose == queue.ToAdopt && len(gave) > 0 {
				_ = simFleet{l}.Answer(l.settling, q, queue.Offer{Gave: gave})
			}
			l.Asked(q)
		})
}

func over(q queue.Question) string {
	if q.Over {
		return "over"
	}
	return ""
}

func (simFleet) Own([16]byte, bool) {}

func (f simFleet) Answer(ctx context.Context, q queue.Question, o queue.Offer) error {
	o.Question, o.Host = q.ID, f.host.name
	return f.say(ctx, fmt.Sprintf("answers %s about %s: has %v, lacks %v, room %v, gave %v", q.ID, q.AttemptID, o.Has, o.Lacks, o.Room, o.Gave),
		func(h *simHost) bool { return h.name == q.From }, func(l *simLife) { l.Offered(o) })
}

func (f simFleet) Hello(ctx context.Context, hello queue.Hello, host string) error {
	hello.Host, hello.Pools = f.host.name, []string{"default"}
	return f.say(ctx, "says hello to "+host, func(h *simHost) bool { return host == "" || host == h.name }, func(l *simLife) { l.Greeted(hello) })
}

// simLog puts what a manager logs into the tale.
type simLog struct{ life *simLife }

func (simLog) Enabled(context.Context, slog.Level) bool { return true }
func (s simLog) WithAttrs([]slog.Attr) slog.Handler     { return s }
func (s simLog) WithGroup(string) slog.Handler          { return s }

func (s simLog) Handle(_ context.Context, r slog.Record) error {
	line := s.life.host.name + " logs: " + r.Message
	r.Attrs(func(a slog.Attr) bool {
		line += " " + a.String()
		return true
	})
	b := s.life.host.broker
	at := time.Since(b.begin).Seconds()
	go func() { // it may have the lock of its manager
		b.Lock()
		defer b.Unlock()
		b.tale = append(b.tale, fmt.Sprintf("%10.4f %s", at, line))
	}()
	return nil
}
