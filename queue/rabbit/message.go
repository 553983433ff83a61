package rabbit

import (
	"fmt"
	"maps"
	"math"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/mayfly/mayfly/queue"
)

const jsonType = "application/json"

// shortMax is the longest short string of AMQP 0-9-1 in bytes.
const shortMax = 255

// decode reads a delivery. self is the user by which we publish: the broker has checked it on our own copies, and only
// those may say who the producer was.
func decode(d amqp.Delivery, pool string, band queue.Band, self string) queue.Message {
	m := queue.Message{
		Body:          d.Body,
		MessageID:     d.MessageId,
		CorrelationID: d.CorrelationId,
		ReplyTo:       d.ReplyTo,
		UserID:        d.UserId,
		Pool:          pool,
		Band:          band,
		History:       decodeHistory(d.Headers[headerAttempts]),
		Turns:         turns(d.Headers),
	}
	copied := timestamp(d.Headers, headerQueuedAt)
	at, dated := queuedAt(copied, d.Timestamp)
	m.Undated = copied.IsZero() && !dated && !slightlyAhead(d.Timestamp)
	_, guessed := d.Headers[headerGuessed]
	m.QueuedAt, m.Guessed = at, guessed || !dated
	m.Redelivered = d.Redelivered || len(m.Turns) != 1
	if _, doubtful := d.Headers[headerDoubtful]; doubtful || handedBack(d.Headers) {
		m.Redelivered, m.Turns = true, nil // what was before, another queue has counted
	}
	if _, m.Copied = d.Headers[headerTurn]; m.Redelivered && !m.Copied && m.MessageID == "" && queue.GivenID(m) == "" {
		m.Turns = nil // any other message of that body has the same ones
	}
	if _, copied := d.Headers[headerUserID]; copied && self != "" && d.UserId == self {
		m.UserID = text(d.Headers, headerUserID)
	}
	for k, v := range d.Headers {
		if brokerMade(k) || strings.HasPrefix(k, headerPrefix) {
			continue
		}
		if m.Headers == nil {
			m.Headers = map[string]any{}
		}
		m.Headers[k] = v
	}
	return m
}

// again makes a publishing of a delivery: whole, but for what the broker has added and for what would act twice (an
// expiry, a user whom the broker would not take from us).
func again(d amqp.Delivery, m queue.Message, self string) amqp.Publishing {
	h := amqp.Table{}
	for k, v := range d.Headers {
		if !brokerMade(k) && (ours[k] || !strings.HasPrefix(k, headerPrefix)) {
			h[k] = v
		}
	}
	delete(h, headerPublish)
	delete(h, headerDoubtful)
	delete(h, headerTurns)
	h[headerTurn] = firstTurn()
	h[headerQueuedAt] = m.QueuedAt.Format(time.RFC3339Nano)
	if delete(h, headerGuessed); m.Guessed {
		h[headerGuessed] = true
	}
	h[headerUserID] = m.UserID
	kind := d.ContentType
	if kind == "" {
		kind = jsonType
	}
	return amqp.Publishing{
		Headers:         h,
		ContentType:     kind,
		ContentEncoding: d.ContentEncoding,
		DeliveryMode:    amqp.Persistent,
		Priority:        d.Priority,
		CorrelationId:   d.CorrelationId,
		ReplyTo:         d.ReplyTo,
		MessageId:       d.MessageId,
		Timestamp:       d.Timestamp,
		Type:            d.Type,
		UserId:          self,
		AppId:           d.AppId,
		Body:            d.Body,
	}
}

// encode makes a publishing of a message that does not come from the broker.
func encode(m queue.Message, self string) (amqp.Publishing, error) {
	for name, s := range map[string]string{"message id": m.MessageID, "correlation id": m.CorrelationID, "reply-to": m.ReplyTo} {
		if len(s) > shortMax {
			return amqp.Publishing{}, fmt.Errorf("cannot publish a message with a %s of %d bytes: at most %d fit", name, len(s), shortMax)
		}
	}
	if len(m.Body) > queue.MaxBody {
		return amqp.Publishing{}, fmt.Errorf("cannot publish a body of %d bytes: at most %d are accepted", len(m.Body), queue.MaxBody)
	}
	headers, err := table(m.Headers)
	if err != nil {
		return amqp.Publishing{}, err
	}
	maps.DeleteFunc(headers, func(k string, _ any) bool { return brokerMade(k) || strings.HasPrefix(k, headerPrefix) })
	if m.QueuedAt.IsZero() {
		m.QueuedAt = time.Now()
	}
	headers[headerQueuedAt] = m.QueuedAt.Format(time.RFC3339Nano)
	if m.UserID != "" {
		headers[headerUserID] = m.UserID
	}
	if len(m.History) > 0 {
		headers[headerAttempts] = encodeHistory(m.History, historyMax)
	}
	return amqp.Publishing{
		Headers:       headers,
		ContentType:   jsonType,
		DeliveryMode:  amqp.Persistent,
		CorrelationId: m.CorrelationID,
		ReplyTo:       m.ReplyTo,
		MessageId:     m.MessageID,
		Timestamp:     m.QueuedAt,
		UserId:        self,
		Body:          m.Body,
	}, nil
}

// table turns plain Go values (as from JSON) into what AMQP can carry.
func table(m map[string]any) (amqp.Table, error) {
	t := make(amqp.Table, len(m)+4)
	for k, v := range m {
		if len(k) > shortMax {
			return nil, fmt.Errorf("cannot publish a header whose name has %d bytes: at most %d fit", len(k), shortMax)
		}
		f, err := field(v)
		if err != nil {
			return nil, fmt.Errorf("cannot publish the header %q: %w", k, err)
		}
		t[k] = f
	}
	return t, nil
}

func field(v any) (any, error) {
	switch v := v.(type) {
	case int: // the library would send 32 bits
		return int64(v), nil
	case uint:
		return whole(uint64(v))
	case uint64:
		return whole(v)
	case uint32:
		return int64(v), nil
	case uint16:
		return int64(v), nil
	case map[string]any:
		return table(v)
	case amqp.Table:
		return table(v)
	case []string:
		list := make([]any, len(v))
		for i := range v {
			list[i] = v[i]
		}
		return list, nil
	case []any:
		list := make([]any, len(v))
		for i := range v {
			var err error
			if list[i], err = field(v[i]); err != nil {
				return nil, err
			}
		}
		return list, nil
	default:
		if err := (amqp.Table{"": v}).Validate(); err != nil {
			return nil, fmt.Errorf("a value of type %T cannot be sent", v)
		}
		return v, nil
	}
}

func whole(n uint64) (any, error) {
	if n > math.MaxInt64 {
		return nil, fmt.Errorf("the number %d is too large", n)
	}
	return int64(n), nil
}
