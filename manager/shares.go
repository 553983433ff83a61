package manager

import (
	"cmp"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/mayfly/mayfly/queue"
	"github.com/mayfly/mayfly/worker"
)

// fairHalfLife is the time after which what a submitter had counts half.
const fairHalfLife = 10 * time.Minute

// FairBy says who is to get equal shares of the host: those whose tasks have different values of a label, or different users of the
// queue. The zero value makes no difference between submitters.
type FairBy struct {
	User  bool
	Label string
}

// ParseFairBy reads "off", "user" or "label:NAME".
func ParseFairBy(text string) (f FairBy, err error) {
	name, labelled := strings.CutPrefix(text, "label:")
	switch {
	case text == "" || text == "off":
	case text == "user":
		f.User = true
	case labelled && name != "":
		f.Label = name
	default:
		return f, fmt.Errorf(`%q: it is "off", "user" or "label:NAME"`, text)
	}
	return f, nil
}

// submitterOf names whose share a task counts against.
func (f FairBy) submitterOf(t *queue.Task, msg queue.Message) string {
	switch {
	case f.User:
		return msg.UserID
	case f.Label != "":
		return t.Labels[f.Label]
	}
	return ""
}

// shares accounts for what submitters have had of the host: the share of what they hold most of (cores, memory, GPUs), times the
// seconds that they hold it, decaying. Its caller holds the manager's lock.
type shares struct {
	by    FairBy
	total Capacity
	gpus  int
	has   map[string]*share
}

type share struct {
	had   float64 // until at
	holds float64
	tasks int
	at    time.Time
}

func newShares(by FairBy, total Capacity, gpus int) *shares {
	return &shares{by: by, total: total, gpus: gpus, has: map[string]*share{}}
}

func (s *shares) on() bool { return s.by != FairBy{} }

// dominant is the largest part of the host that a lease takes.
func (s *shares) dominant(l *worker.Lease) float64 {
	part := func(n, of int64) float64 {
		if of <= 0 {
			return 0
		}
		return float64(n) / float64(of)
	}
	return max(part(l.MilliCPU, s.total.MilliCPU), part(l.Memory, s.total.Memory), part(int64(len(l.GPUs)), int64(s.gpus)))
}

// took notes that a submitter holds a lease from now on, gave that it does not any more.
func (s *shares) took(submitter string, l *worker.Lease, now time.Time) {
	s.change(submitter, l, 1, now)
}
func (s *shares) gave(submitter string, l *worker.Lease, now time.Time) {
	s.change(submitter, l, -1, now)
}

func (s *shares) change(submitter string, l *worker.Lease, n int, now time.Time) {
	if !s.on() {
		return
	}
	x := s.has[submitter]
	if x == nil {
		x = &share{at: now}
		s.has[submitter] = x
	}
	x.reckon(now)
	x.tasks += n
	x.holds += float64(n) * s.dominant(l)
	if x.tasks == 0 {
		x.holds = 0 // without what rounding leaves
	}
	s.forget(now)
}

// reckon brings the account up to now.
func (x *share) reckon(now time.Time) {
	past := now.Sub(x.at).Seconds()
	if past <= 0 {
		return
	}
	half := fairHalfLife.Seconds()
	left := math.Exp2(-past / half)
	// What is held all the time adds up to holds * half / ln 2 in the end.
	x.had = x.had*left + x.holds*half/math.Ln2*(1-left)
	x.at = now
}

// sharesMost is how many submitters are remembered before those that have nothing any more are forgotten: labels are the producers' to make up.
const sharesMost = 1000

func (s *shares) forget(now time.Time) {
	if len(s.has) <= sharesMost {
		return
	}
	for name, x := range s.has {
		if x.reckon(now); x.tasks == 0 && x.had < 1e-3 {
			delete(s.has, name)
		}
	}
	if len(s.has) <= 2*sharesMost {
		return
	}
	for name, x := range s.has {
		if x.tasks == 0 {
			delete(s.has, name)
		}
	}
}

// look brings all accounts up to now, so that they can be compared.
func (s *shares) look(now time.Time) {
	for _, x := range s.has {
		x.reckon(now)
	}
}

// compare orders submitters: first who has had less, counting what is held now for a half-life more.
func (s *shares) compare(a, b string) int {
	if a == b || !s.on() {
		return 0
	}
	return cmp.Compare(s.claim(a), s.claim(b))
}

func (s *shares) claim(submitter string) float64 {
	x := s.has[submitter]
	if x == nil {
		return 0
	}
	return x.had + x.holds*fairHalfLife.Seconds()
}
