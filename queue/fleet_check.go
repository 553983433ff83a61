package queue

import (
	"errors"
	"fmt"
	"math"
	"time"
)

// What hosts say to each other comes by an exchange to which others may be let, too. It is believed, but it must be possible: it is logged,
// remembered and compared.
const (
	// maxHost is the longest name of a host in bytes; maxQuestion that of a question, which is a host's name and a number.
	maxHost     = 63
	maxQuestion = 96
	// maxOpen is longer than any question stays open, maxSays and maxInfo longer than what is said for people, maxHostPools more than any host has.
	maxOpen      = time.Hour
	maxSays      = 16 << 10
	maxInfo      = 1 << 20
	maxHostPools = 1000
	maxTurns     = 1000
	// MaxRank is the highest rank of a question: what is above is told apart by its name alone.
	MaxRank = 1 << 20
	// maxPast and maxPastAttempt bound a history.
	maxPast        = 1000
	maxPastAttempt = 1 << 20
)

var errImpossible = errors.New("cannot be said by a host")

func impossible(what string) error { return fmt.Errorf("%w: %s", errImpossible, what) }

// ValidHost reports whether s can be the name of a host: 1 to 63 bytes of A-Z a-z 0-9 . _ -, beginning with a letter or a digit.
func ValidHost(s string) bool {
	return len(s) <= maxHost && begins(s, lower+upper+digits) && consists(s, lower+upper+digits+"._-")
}

// Check reports what is impossible about a question that came from outside.
func (q *Question) Check() error {
	switch {
	case q.ID == "" || len(q.ID) > maxQuestion || !printable(q.ID):
		return impossible("id")
	case !ValidHost(q.From):
		return impossible("from")
	case !ValidPool(q.Pool):
		return impossible("pool")
	case q.TaskID != "" && !ValidID(q.TaskID):
		return impossible("task_id")
	case len(q.AttemptID) > MaxID+len(".")+len("1048576") || q.AttemptID != "" && !consists(q.AttemptID, lower+upper+digits+"._:@+=-"):
		return impossible("attempt_id")
	case len(q.Fingerprint) != 0 && len(q.Fingerprint) != 16:
		return impossible("fingerprint")
	case q.Rank < 0 || q.Rank > MaxRank:
		return impossible("rank")
	case q.Open < 0 || q.Open > maxOpen:
		return impossible("open")
	}
	return q.Message.check()
}

// Check reports what is impossible about an offer that came from outside.
func (o *Offer) Check() error {
	switch {
	case o.Question == "" || len(o.Question) > maxQuestion:
		return impossible("question")
	case !ValidHost(o.Host):
		return impossible("host")
	case math.IsNaN(o.Room) || math.IsInf(o.Room, 0):
		return impossible("room")
	case len(o.Gave) > maxTurns:
		return impossible("gave")
	case len(o.Says) > maxSays || len(o.Info) > maxInfo:
		return impossible("says")
	}
	return o.Message.check()
}

// Check reports what is impossible about a greeting that came from outside.
func (h *Hello) Check() error {
	if !ValidHost(h.Host) {
		return impossible("host")
	}
	if len(h.Life) > maxHost || !printable(h.Life) {
		return impossible("life")
	}
	if len(h.Pools) > maxHostPools {
		return impossible("pools")
	}
	if len(h.Hosts) > maxHostPools {
		return impossible("hosts")
	}
	for _, pool := range h.Pools {
		if !ValidPool(pool) {
			return impossible("pools")
		}
	}
	for _, n := range h.Hosts {
		if n < 0 {
			return impossible("hosts")
		}
	}
	return nil
}

// check reports what is impossible about a message that another host has shown.
func (m *Message) check() error {
	if m == nil {
		return nil
	}
	switch {
	case len(m.Body) > MaxBody:
		return impossible("message.body")
	case m.Pool != "" && !ValidPool(m.Pool):
		return impossible("message.pool")
	case len(m.History) > maxPast:
		return impossible("message.history")
	}
	for i := range m.History {
		if n := m.History[i].Attempt; n < 1 || n > maxPastAttempt {
			return impossible("message.history")
		}
	}
	return nil
}
