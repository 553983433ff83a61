package queue

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"slices"
	"time"
)

// Purpose says what a host asks the others for.
type Purpose string

// The purposes of a question.
const (
	// ToAdopt asks who has the message already: it was delivered before.
	ToAdopt Purpose = "adopt"
	// ToSettle asks who has settled the task for good: an attempt has ended where its message does not come back to.
	ToSettle Purpose = "settle"
	// ToRun asks who can run what can never run where it is.
	ToRun Purpose = "run"
	// ToSpare asks who takes what has failed where it is.
	ToSpare Purpose = "spare"
	// ToShare asks who can start at once what waits where it is.
	ToShare Purpose = "share"
	// ToExplain asks every host what it has of a task, or lacks for it.
	ToExplain Purpose = "explain"
	// ToCount asks every host how it is.
	ToCount Purpose = "count"
)

// Question is what a host asks the other hosts of a pool.
type Question struct {
	// ID names the question, From is the host that asks.
	ID   string `json:"id"`
	From string `json:"from"`
	Pool string `json:"pool"`
	// Purpose says what for.
	Purpose Purpose `json:"purpose"`
	// TaskID, AttemptID and Fingerprint name the task, the attempt that would be next, and the very message.
	TaskID      string `json:"task_id,omitempty"`
	AttemptID   string `json:"attempt_id,omitempty"`
	Fingerprint []byte `json:"fingerprint,omitempty"`
	// QueuedAt is when the message was queued; zero where nobody knows.
	QueuedAt time.Time `json:"queued_at,omitzero"`
	// Rank orders the questions ToAdopt about a message: it is above those of all that the asking host had heard before, up to MaxRank.
	Rank int `json:"rank,omitempty"`
	// Message is the message that is held; nil where its names are enough.
	Message *Message `json:"message,omitempty"`
	// Owner has the question go to the host that owns the message, see [Fleet.Own]. It is not sent along.
	Owner bool `json:"-"`
	// Part is the part of the pool that is asked, see [PartOf]; all of it where it is empty. It is not sent along.
	Part string `json:"-"`
	// Open is how long whoever cannot take the task now may still answer, when there is room; 0 asks for answers at once.
	Open time.Duration `json:"open,omitempty"`
	// Surely asks for an answer in any case; Refused, for one of whoever could take the task at some time, for it is refused where it is.
	Surely  bool `json:"surely,omitempty"`
	Refused bool `json:"refused,omitempty"`
	// Avoided asks those, too, where the task has failed before.
	Avoided bool `json:"avoided,omitempty"`
	// Over says that the question needs no answer any more.
	Over bool `json:"over,omitempty"`
}

// Offer answers a question.
type Offer struct {
	Question string `json:"question"`
	Host     string `json:"host"`
	// Has says that the host runs the task, or has just ended it: it must have it. Gave lists the deliveries of the message, by their numbers
	// (Message.Turns), which ended on the host without the task's having been begun.
	Has  bool  `json:"has,omitempty"`
	Gave []int `json:"gave,omitempty"`
	// Lacks says that the host has not begun the task, nor can it any more; or that it cannot take it now, nor, where Never is set, later.
	Lacks bool `json:"lacks,omitempty"`
	Never bool `json:"never,omitempty"`
	// Avoided says that the task has failed on the host before: any other is better.
	Avoided bool `json:"avoided,omitempty"`
	// Young is for how long the queue by which the host is handed tasks may still lose them with the broker's node: who hands it one keeps it until then.
	Young time.Duration `json:"young,omitempty"`
	// Room is how much room the host has left beside the task, in cores: the host with most is the best. Below zero, the task has to wait there.
	Room float64 `json:"room"`
	// Says explains what the host has of the task, or lacks for it. Message is the message, where the host has it and it was not part of the
	// question. Info is the host at a glance.
	Says    string          `json:"says,omitempty"`
	Message *Message        `json:"message,omitempty"`
	Info    json.RawMessage `json:"info,omitempty"`
}

// Hello says that a host can be asked from now on, also what was asked before.
type Hello struct {
	Host  string   `json:"host"`
	Pools []string `json:"pools"`
	// Life is another one each time that the host's manager starts; empty where that does not say.
	Life string `json:"life,omitempty"`
	// Back says that it answers another host's hello; Hosts is how many there are in each pool, then, besides the one that it answers. Leaves says that
	// the host is about to go, and has begun nothing that it has not ended.
	Back   bool           `json:"back,omitempty"`
	Hosts  map[string]int `json:"hosts,omitempty"`
	Leaves bool           `json:"leaves,omitempty"`
}

// PartDigits is how many digits divide a pool: its smallest parts have one of 512 hosts.
const PartDigits = 3

// PartOf returns where a host is in its pools: digits from 0 to 7. The hosts that have the first n digits in common are a part of a pool that can be
// asked as one; there are 8 to the power of n, of about the same size.
func PartOf(host string) string {
	h := sha256.Sum256([]byte(host)) // names are alike: a lesser hash has them in groups
	var part [PartDigits]byte
	for i := range part {
		part[i] = '0' + h[i]%8
	}
	return string(part[:])
}

// Cancellation is somebody's wish that a task, or all tasks with a label, be cancelled that were queued before At; zero where nobody
// knows when that was.
type Cancellation struct {
	ID    string    `json:"cancel,omitempty"`
	Label string    `json:"label,omitempty"`
	Value string    `json:"value,omitempty"`
	At    time.Time `json:"at"`
}

// ErrNoHost says that a message cannot be forwarded, or a question not be asked: the host has no queue (any more), or the message no owner.
var ErrNoHost = errors.New("cannot reach a host: it has no queue")

// Fleet is the other hosts that serve the same queue.
type Fleet interface {
	// Ask puts a question to one host; where none is named, to the owner of the message, or to the part of the pool, that the question asks for.
	// ErrNoHost says that nobody owns the message.
	Ask(ctx context.Context, q Question, host string) error
	// Own has questions to the owner of a message come to this host from now on, or no more. It returns at once.
	Own(fingerprint [16]byte, owns bool)
	// Answer sends an offer to the host that asked.
	Answer(ctx context.Context, q Question, o Offer) error
	// Hello greets one host, or all others where none is named.
	Hello(ctx context.Context, h Hello, host string) error
}

// Unbegun reports whether all earlier deliveries of the message are among those that have ended without its having been begun.
func (m *Message) Unbegun(gave []int) bool {
	if len(m.Turns) < 2 {
		return false
	}
	for _, turn := range m.Turns[:len(m.Turns)-1] {
		if !slices.Contains(gave, turn) {
			return false
		}
	}
	return true
}

// Fingerprint tells two messages with the same task id apart, and knows a message again when it comes back.
func (m *Message) Fingerprint() [16]byte {
	h := sha256.New()
	for _, part := range []string{m.MessageID, m.CorrelationID, m.ReplyTo, m.Pool} {
		h.Write([]byte(part))
		h.Write([]byte{0})
	}
	h.Write(m.Body)
	return [16]byte(h.Sum(nil))
}
