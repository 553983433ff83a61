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
	// Message is the message that is held; nil where its names are enough.
	Message *Message `json:"message,omitempty"`
	// Share of the hosts that are to answer, chosen by their names; the others pass the question over.
	Share float64 `json:"share"`
	// Open is how long whoever cannot take the task now may still answer, when there is room; 0 asks for answers at once.
	Open time.Duration `json:"open,omitempty"`
	// Surely asks for an answer in any case.
	Surely bool `json:"surely,omitempty"`
	// Over says that the question needs no answer any more.
	Over bool `json:"over,omitempty"`
}

// Offer answers a question.
type Offer struct {
	Question string `json:"question"`
	Host     string `json:"host"`
	// Has says that the host runs the task, or has just ended it: it must have it. Gave lists the deliveries of the message, by how many had been
	// before each, which ended on the host without the task's having been begun.
	Has  bool  `json:"has,omitempty"`
	Gave []int `json:"gave,omitempty"`
	// Lacks says that the host has not begun the task, nor can it any more.
	Lacks bool `json:"lacks,omitempty"`
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
	// Back says that it answers another host's hello. Leaves says that the host is about to go, and has begun nothing that it has not ended.
	Back   bool `json:"back,omitempty"`
	Leaves bool `json:"leaves,omitempty"`
}

// Cancellation is somebody's wish that a task, or all tasks with a label, be cancelled that were queued before At; zero where nobody
// knows when that was.
type Cancellation struct {
	ID    string    `json:"cancel,omitempty"`
	Label string    `json:"label,omitempty"`
	Value string    `json:"value,omitempty"`
	At    time.Time `json:"at"`
}

// ErrNoHost says that a message cannot be forwarded: the host has no queue (any more).
var ErrNoHost = errors.New("cannot forward a message: the host has no queue")

// Fleet is the other hosts that serve the same queue.
type Fleet interface {
	// Ask puts a question to one host, or to all others of its pool where none is named.
	Ask(ctx context.Context, q Question, host string) error
	// Answer sends an offer to the host that asked.
	Answer(ctx context.Context, q Question, o Offer) error
	// Hello greets one host, or all others where none is named.
	Hello(ctx context.Context, h Hello, host string) error
}

// Unbegun reports whether all earlier deliveries of the message are among those that have ended without its having been begun.
func (m *Message) Unbegun(gave []int) bool {
	for i := range m.Deliveries {
		if !slices.Contains(gave, i) {
			return false
		}
	}
	return m.Deliveries > 0
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
