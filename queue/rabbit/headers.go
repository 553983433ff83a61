package rabbit

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/mayfly/mayfly/queue"
)

// Headers that Mayfly sets. Producers' own headers do not begin like that.
const (
	headerPrefix   = "mayfly-"
	headerAttempts = "mayfly-attempts"          // the history as JSON, or packed
	headerQueuedAt = "mayfly-queued-at"         // RFC 3339 with nanoseconds
	headerGuessed  = "mayfly-queued-at-guessed" // of a copy: that is when a host saw the message
	headerUserID   = "mayfly-user-id"           // the producer's identity, which the broker had checked
	headerAttempt  = "mayfly-attempt"           // of a result: the number of the last attempt
	headerPublish  = "mayfly-publish"           // tells one publishing from another when the broker returns it
	headerDeadKey  = "mayfly-dead-key"
	headerReason   = "mayfly-reason"
	headerCause    = "mayfly-cause"
	headerPool     = "mayfly-pool"
	headerBand     = "mayfly-band"
	headerTaskID   = "mayfly-task-id"
	headerHost     = "mayfly-host"
	headerBuriedAt = "mayfly-buried-at"
	headerHandedBy = "mayfly-handed-by" // of a forwarded message: the host that had it before
	headerDoubtful = "mayfly-doubtful"  // of a copy: there may be another one
	headerTurn     = "mayfly-turn"      // of a copy: the number of its first delivery, see turns
	headerTurns    = "mayfly-turns"     // of a copy: the numbers of the deliveries that there were before
)

// ours are the headers with our prefix. Others have none: what a producer makes up is not carried on.
var ours = map[string]bool{headerAttempts: true, headerQueuedAt: true, headerGuessed: true, headerUserID: true, headerAttempt: true, headerPublish: true, headerDeadKey: true,
	headerReason: true, headerCause: true, headerPool: true, headerBand: true, headerTaskID: true, headerHost: true, headerBuriedAt: true, headerHandedBy: true,
	headerDoubtful: true, headerTurn: true, headerTurns: true}

// deliveryCount is the header by which a quorum queue tells how often it has delivered a message before.
const deliveryCount = "x-delivery-count"

// acquiredCount tells the same from RabbitMQ 4.3 on, where the other one leaves out what was merely given back.
const acquiredCount = "x-acquired-count"

const (
	// historyPlain is the longest history in bytes that travels as plain JSON; a longer one is packed.
	historyPlain = 16 << 10
	// historyMax bounds the packed history, historyTight where other headers need the room.
	historyMax   = 64 << 10
	historyTight = 4 << 10
	// headersMax bounds all headers of a message: they must fit into one frame, which has 128 KiB by default.
	headersMax = 120 << 10
	packed     = "gzip:"
)

// brokerMade reports whether the broker has set (or acts upon) the header; such ones do not belong to the producer.
// A copy with the sender-selected routes of CC would go to those queues once more.
func brokerMade(key string) bool {
	switch key {
	case "x-death", deliveryCount, acquiredCount, "x-delivery-limit", "x-stream-offset", "CC", "BCC":
		return true
	}
	return strings.HasPrefix(key, "x-first-death-") || strings.HasPrefix(key, "x-last-death-")
}

// encodeHistory renders a history as a header of at most limit bytes.
func encodeHistory(h []queue.Past, limit int) string {
	text, _ := json.Marshal(h) // plain fields: cannot fail
	if len(text) <= min(historyPlain, limit) {
		return string(text)
	}
	if s := pack(text); len(s) <= limit {
		return s
	}
	short := make([]queue.Past, len(h))
	copy(short, h)
	for i := range short {
		short[i].Message = ""
	}
	text, _ = json.Marshal(short)
	for s := pack(text); ; s = pack(text) {
		if len(s) <= limit {
			return s
		}
		// The number of attempts counts by the last entry; the oldest ones are the least telling.
		short = short[(len(short)+1)/2:]
		text, _ = json.Marshal(short)
	}
}

func pack(text []byte) string {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = z.Write(text) // a buffer does not fail
	_ = z.Close()
	return packed + base64.StdEncoding.EncodeToString(b.Bytes())
}

const (
	// historyText bounds the text of a history and historyLongest its entries, that a forged header does not fill the memory. A true one has
	// a hundred tries and some that were not counted, with a short message each.
	historyText    = 1 << 20
	historyLongest = 1000
	// attemptMost is the highest number of an attempt that may be meant.
	attemptMost = 1 << 20
)

// decodeHistory reads a history; nil where there is none or it is not ours.
func decodeHistory(v any) []queue.Past {
	s, _ := v.(string)
	var text io.Reader = strings.NewReader(s)
	if rest, ok := strings.CutPrefix(s, packed); ok {
		z, err := gzip.NewReader(base64.NewDecoder(base64.StdEncoding, strings.NewReader(rest)))
		if err != nil {
			return nil
		}
		text = z
	}
	d := json.NewDecoder(io.LimitReader(text, historyText))
	if start, err := d.Token(); err != nil || start != json.Delim('[') {
		return nil
	}
	var h []queue.Past
	for d.More() {
		var p queue.Past
		if d.Decode(&p) != nil || p.Attempt < 1 || p.Attempt > attemptMost || len(h) == historyLongest {
			return nil
		}
		h = append(h, p)
	}
	if _, err := d.Token(); err != nil || d.More() {
		return nil
	}
	return h
}

// queuedAt is when a message was queued, as the first of those says who does. It is the producer's word: where that cannot be, nobody knows (dated is false), and it is now.
func queuedAt(said ...time.Time) (at time.Time, dated bool) {
	now := time.Now()
	for _, t := range said {
		// A time that is very far away is before all others to After, which overflows.
		if !t.IsZero() && t.Unix() >= 0 && t.Unix() <= now.Unix() && !t.After(now) {
			return t, true
		}
	}
	return now, false
}

// skew is how far two clocks may be apart that are in order.
const skew = 5 * time.Second

// slightlyAhead reports whether a timestamp is that of a clock that goes before ours, as clocks do; not one that is wrong, or milliseconds where seconds are due.
func slightlyAhead(at time.Time) bool {
	lead := time.Until(at)
	return lead > 0 && lead <= skew
}

// fit makes the headers fit into a frame: a message that cannot be sent would end the connection again and again. It
// shortens the history, then drops the largest headers, and returns their names.
func fit(h amqp.Table) (dropped []string) {
	if size(h) <= headersMax {
		return nil
	}
	if _, ok := h[headerAttempts]; ok {
		h[headerAttempts] = encodeHistory(decodeHistory(h[headerAttempts]), historyTight)
	}
	// The largest first; those that we write last: they are short, unless somebody has made them up.
	keys := slices.SortedFunc(maps.Keys(h), func(a, b string) int {
		switch {
		case ours[a] == ours[b]:
			return cmp.Compare(size(h[b]), size(h[a]))
		case ours[a]:
			return 1
		}
		return -1
	})
	total := size(h)
	for _, k := range keys {
		if total <= headersMax || k == headerAttempts {
			continue
		}
		total -= sizeOf(k, h[k])
		dropped = append(dropped, k)
		delete(h, k)
	}
	return dropped
}

// size estimates from above the bytes that a header value takes on the wire.
func size(v any) int {
	const scalar = 16
	switch v := v.(type) {
	case string:
		return scalar + len(v)
	case []byte:
		return scalar + len(v)
	case []any:
		n := scalar
		for _, e := range v {
			n += size(e)
		}
		return n
	case amqp.Table:
		n := scalar
		for k, e := range v {
			n += sizeOf(k, e)
		}
		return n
	default:
		return scalar
	}
}

func sizeOf(key string, value any) int { return len(key) + 2 + size(value) }

func text(h amqp.Table, key string) string {
	s, _ := h[key].(string)
	return s
}

func timestamp(h amqp.Table, key string) time.Time {
	t, _ := time.Parse(time.RFC3339Nano, text(h, key))
	return t
}

// number reads an integer header of any width.
func number(h amqp.Table, key string) int64 {
	switch n := h[key].(type) {
	case int64:
		return n
	case int32:
		return int64(n)
	case int16:
		return int64(n)
	case int8:
		return int64(n)
	case uint8:
		return int64(n)
	default:
		return 0
	}
}

// handedBack reports whether a queue by which a host is handed tasks has given the message back to its pool: what its host has begun may run there.
func handedBack(h amqp.Table) bool {
	deaths, _ := h["x-death"].([]any)
	return slices.ContainsFunc(deaths, func(d any) bool {
		death, _ := d.(amqp.Table)
		return strings.HasPrefix(text(death, "queue"), hostPrefix)
	})
}
