package queue

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Band is one of the three queues of a pool.
type Band string

// The bands, first served first.
const (
	High   Band = "high"
	Normal Band = "normal"
	Low    Band = "low"
)

// Bands lists the bands in the order in which they are served.
var Bands = []Band{High, Normal, Low}

// PassMax is how many messages, or tasks, may be served in a row for their band or priority before ones that came earlier.
// Then one of those has its turn: else a stream of urgent ones would starve all others.
const PassMax = 16

// Message is what a producer sent, as the queue handed it over. Like a task it is never written to.
type Message struct {
	Body []byte
	// MessageID, CorrelationID and ReplyTo are the producer's AMQP properties; empty where absent.
	MessageID     string
	CorrelationID string
	ReplyTo       string
	// UserID is the producer's identity where the queue has checked it, else empty.
	UserID string
	Pool   string
	Band   Band
	// QueuedAt is the producer's timestamp, or else when the message was first seen by a host; never zero on a delivery.
	QueuedAt time.Time
	// Undated says that the producer gave no timestamp that can be, and no host has made a copy of the message.
	Undated bool
	// Guessed says that the producer gave no timestamp, or one that cannot be: QueuedAt is when a host saw the message, and another one may say another time.
	Guessed bool
	// History holds the ended attempts, oldest first.
	History []Past
	// Headers are the producer's other headers (a trace context, say). They travel with every copy of the message.
	Headers map[string]any
	// Redelivered reports that the message may have been delivered before, and begun.
	Redelivered bool
	// Turns are the numbers of the deliveries that there were of the message, and last that of this one. No other delivery of a message with that fingerprint has the same
	// number, also none of a copy that a host has made of it. It is empty where the queue does not know, and of a redelivered one that has no id and may not be the only one.
	Turns []int
	// Copied says that a host has made the message of another one, to give it back or for its next try.
	Copied bool
	// HandedBy is the host that has forwarded the message to this one, or empty.
	HandedBy string
}

// ErrLost says that a delivery is no longer ours: the queue will deliver its message again, here or elsewhere.
var ErrLost = errors.New("the delivery was lost: its connection ended and the queue will deliver it again")

// ErrClosed says that a source was closed.
var ErrClosed = errors.New("the queue is closed")

// Action is what becomes of a delivery.
type Action string

// The actions of a verdict.
const (
	// Done publishes the result and gives up the message.
	Done Action = "done"
	// Retry puts a copy with the verdict's history back after the verdict's delay and gives up the message.
	Retry Action = "retry"
	// Return gives the message back to its queue unchanged, at once, for any host. Who returns a message has not begun it, also
	// where it is lost already: whoever gets it next need not ask for it.
	Return Action = "return"
	// Forward hands the message as it is to the verdict's host, confirmed, and gives it up. Where that host has no queue, Settle returns
	// ErrNoHost, and the delivery is ours still.
	Forward Action = "forward"
	// Bury puts the message whole into the dead letters with the reason, publishes the result then, and gives it up.
	Bury Action = "bury"
)

// Verdict is what to do with a delivery.
type Verdict struct {
	Action Action
	// Result is required for Bury. With Done, nil publishes nothing: what was due was confirmed before, and the message
	// came back only because giving it up did not reach the queue.
	Result *Result
	// Reason is one sentence, required for Bury.
	Reason string
	// Doubtful has the copies that Retry and Forward make say that the attempt may have been begun or ended already ([Message].Redelivered): by the host that it
	// is forwarded to, or by whoever got an earlier copy, of whose confirm nobody heard.
	Doubtful bool
	// Delay is the wait before a retry, at least 0. A queue may round it (RabbitMQ: to its ladder of wait queues), and Settle may take a part of it.
	Delay time.Duration
	// Host is required for Forward. Keep is for how long the queue keeps its message after Forward's copy is stored: that host's own queue may be too young to be relied upon ([Offer]).
	Host string
	Keep time.Duration
	// History replaces the message's history in the copies that Retry and Bury make.
	History []Past
	// TaskID becomes the message id of the copies where the message has none: a task that was given its id by a host keeps
	// it from then on.
	TaskID string
}

// Delivery is one message and the duty to settle it.
type Delivery interface {
	Message() Message
	// Lost is closed when the delivery is no longer ours (see ErrLost). It is never closed after a successful Settle.
	Lost() <-chan struct{}
	// Settle carries out the verdict: publishes what it demands and waits until that is confirmed, calls confirmed (when
	// not nil), and then gives up the queue's copy. It tries for as long as ctx lives and the delivery is ours, and
	// returns nil once, ErrLost when the delivery was lost (before or after the confirm: then confirmed tells), ctx's
	// error, or that of confirmed: then the delivery is ours still. After any error it may be called again; after nil it must not.
	Settle(ctx context.Context, v Verdict, confirmed func() error) error
}

// Source hands out deliveries.
type Source interface {
	// Receive waits for the next delivery: higher bands first, within a band in the queue's order. While the queue is
	// out of reach it keeps waiting. It returns ctx's error, or ErrClosed.
	Receive(ctx context.Context) (Delivery, error)
	// Demand says how many unsettled deliveries the caller is prepared to hold in all. A source never has more than
	// that outstanding for long; 0 stops new deliveries. Before the first call the demand is 0.
	Demand(n int)
	// Close ends all deliveries: those not settled are delivered again later. It returns when nothing runs any more.
	Close() error
}

// Publisher puts messages into the queue.
type Publisher interface {
	// Publish stores m in the queue of its pool and band; nil means that the queue has confirmed it.
	Publish(ctx context.Context, m Message) error
}

// DeadLetter is one buried message.
type DeadLetter struct {
	// Key names the dead letter within the queue for show, requeue and drop.
	Key      string    `json:"key"`
	TaskID   string    `json:"id"`
	Pool     string    `json:"pool"`
	Band     Band      `json:"band"`
	Host     string    `json:"host"`
	Cause    Cause     `json:"cause"`
	Reason   string    `json:"reason"`
	BuriedAt time.Time `json:"buried_at"`
	Attempts []Past    `json:"attempts"`
	Body     []byte    `json:"body,omitempty"`
}

// Cemetery reads and empties the dead letters. A key is the task id where that is unique among them; else all but Dead refuse it with an *AmbiguousError. None of
// them loses a letter, or has in memory more than one body or two, and what a list says.
type Cemetery interface {
	// Dead returns the oldest dead letters, oldest first, without their bodies: limit at most, and no more than fit into about DeadListMost bytes, but one.
	Dead(ctx context.Context, limit int) ([]DeadLetter, error)
	// DeadLetter returns one with its body.
	DeadLetter(ctx context.Context, key string) (DeadLetter, error)
	// Requeue puts the dead letter back into its pool, queued now and with an empty history: confirmed, then removed from the dead.
	Requeue(ctx context.Context, key string) error
	// Drop removes the dead letter for good.
	Drop(ctx context.Context, key string) error
}

// DeadListMost bounds a list of dead letters, in bytes: enough for a hundred thousand that say little.
const DeadListMost = 64 << 20

// Size is about how many bytes a dead letter takes in a list.
func (d *DeadLetter) Size() int {
	const each = 256 // the structures themselves
	size := each + len(d.Key) + len(d.TaskID) + len(d.Pool) + len(d.Band) + len(d.Host) + len(d.Cause) + len(d.Reason)
	for i := range d.Attempts {
		a := &d.Attempts[i]
		size += each + len(a.Host) + len(a.Cause) + len(a.Signal) + len(a.Message)
	}
	return size
}

// ErrNoDeadLetter says that no dead letter has the key.
var ErrNoDeadLetter = errors.New("no dead letter has this key")

// AmbiguousError says that several dead letters have the task id by which one was to be named, and which.
type AmbiguousError struct {
	TaskID string
	Keys   []string
}

func (a *AmbiguousError) Error() string {
	const most = 100 // a sentence of thousands would be read by nobody
	shown, more := a.Keys, ""
	if len(shown) > most {
		shown, more = shown[:most], ", …"
	}
	return fmt.Sprintf("cannot tell which dead letter is meant: %d are of the task %s; name one by its key: %s%s", len(a.Keys), a.TaskID, strings.Join(shown, ", "), more)
}
