package rabbit

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"io"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/mayfly/mayfly/queue"
)

// Headers that Mayfly sets. Producers' own headers do not begin like that.
const (
	headerPrefix   = "mayfly-"
	headerAttempts = "mayfly-attempts"  // the history as JSON, or packed
	headerQueuedAt = "mayfly-queued-at" // RFC 3339 with nanoseconds
	headerUserID   = "mayfly-user-id"   // the producer's identity, which the broker had checked
	headerAttempt  = "mayfly-attempt"   // of a result: the number of the last attempt
	headerPublish  = "mayfly-publish"   // tells one publishing from another when the broker returns it
	headerDeadKey  = "mayfly-dead-key"
	headerReason   = "mayfly-reason"
	headerCause    = "mayfly-cause"
	headerPool     = "mayfly-pool"
	headerBand     = "mayfly-band"
	headerTaskID   = "mayfly-task-id"
	headerHost     = "mayfly-host"
	headerBuriedAt = "mayfly-buried-at"
)

// deliveryCount is the header by which a quorum queue tells how often it has delivered a message before.
const deliveryCount = "x-delivery-count"

const (
	// historyPlain is the longest history in bytes that travels as plain JSON; a longer one is packed.
	historyPlain = 16 << 10
	// historyMax bounds the packed history: all headers together must fit into one frame of 128 KiB.
	historyMax = 64 << 10
	packed     = "gzip:"
)

// brokerMade reports whether the broker has set (or acts upon) the header; such ones do not belong to the producer.
// A copy with the sender-selected routes of CC would go to those queues once more.
func brokerMade(key string) bool {
	switch key {
	case "x-death", deliveryCount, "x-acquired-count", "x-delivery-limit", "x-stream-offset", "CC", "BCC":
		return true
	}
	return strings.HasPrefix(key, "x-first-death-") || strings.HasPrefix(key, "x-last-death-")
}

// encodeHistory renders a history as a header.
func encodeHistory(h []queue.Past) string {
	text, _ := json.Marshal(h) // plain fields: cannot fail
	if len(text) <= historyPlain {
		return string(text)
	}
	if s := pack(text); len(s) <= historyMax {
		return s
	}
	short := make([]queue.Past, len(h))
	copy(short, h)
	for i := range short {
		short[i].Message = ""
	}
	text, _ = json.Marshal(short)
	for s := pack(text); ; s = pack(text) {
		if len(s) <= historyMax {
			return s
		}
		// The number of attempts counts by the last entry; the oldest ones are the least telling.
		short = short[len(short)/2:]
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

// decodeHistory reads a history; nil where there is none or it is not ours.
func decodeHistory(v any) []queue.Past {
	s, _ := v.(string)
	text := []byte(s)
	if rest, ok := strings.CutPrefix(s, packed); ok {
		z, err := gzip.NewReader(base64.NewDecoder(base64.StdEncoding, strings.NewReader(rest)))
		if err != nil {
			return nil
		}
		// The bound keeps a forged header from filling the memory.
		if text, err = io.ReadAll(io.LimitReader(z, 16<<20)); err != nil {
			return nil
		}
	}
	var h []queue.Past
	if len(text) == 0 || json.Unmarshal(text, &h) != nil {
		return nil
	}
	return h
}

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
