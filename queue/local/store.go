package local

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/mayfly/mayfly/queue"
)

// The buckets. Numbers are 8 bytes, big endian, so that their order is that of the keys.
var (
	messagesBucket = []byte("messages") // number -> envelope
	lanesBucket    = []byte("lanes")    // one bucket per lane: order -> number
	delayedBucket  = []byte("delayed")  // time, number -> name of the lane
	placesBucket   = []byte("places")   // number -> key in delayed, or order followed by the name of the lane
	idsBucket      = []byte("ids")      // message id, 0, number -> nothing
	deadBucket     = []byte("dead")     // number -> envelope
)

// envelope is how a message is stored: the length of a JSON head, the head, then the body byte for byte.
type envelope struct {
	MessageID     string         `json:"message_id,omitempty"`
	CorrelationID string         `json:"correlation_id,omitempty"`
	ReplyTo       string         `json:"reply_to,omitempty"`
	UserID        string         `json:"user_id,omitempty"`
	Pool          string         `json:"pool"`
	Band          queue.Band     `json:"band"`
	QueuedAt      time.Time      `json:"queued_at"`
	History       []queue.Past   `json:"history,omitempty"`
	Headers       map[string]any `json:"headers,omitempty"`
	// Dead is set on a dead letter.
	Dead *burial `json:"dead,omitempty"`
}

// burial is what a dead letter says of its end.
type burial struct {
	TaskID   string      `json:"task_id"`
	Host     string      `json:"host"`
	Cause    queue.Cause `json:"cause"`
	Reason   string      `json:"reason"`
	BuriedAt time.Time   `json:"buried_at"`
}

func seal(m queue.Message, dead *burial) ([]byte, error) {
	head, err := json.Marshal(envelope{MessageID: m.MessageID, CorrelationID: m.CorrelationID, ReplyTo: m.ReplyTo, UserID: m.UserID,
		Pool: m.Pool, Band: m.Band, QueuedAt: m.QueuedAt, History: m.History, Headers: m.Headers, Dead: dead})
	if err != nil {
		return nil, fmt.Errorf("cannot encode a message: %w", err)
	}
	b := make([]byte, 0, 4+len(head)+len(m.Body))
	b = binary.BigEndian.AppendUint32(b, uint32(len(head)))
	return append(append(b, head...), m.Body...), nil
}

// unseal reads an envelope. The message has a body of its own: b belongs to the database.
func unseal(b []byte) (m queue.Message, dead *burial, err error) {
	e, body, err := split(b)
	if err != nil {
		return m, nil, err
	}
	m = queue.Message{Body: append([]byte{}, body...), MessageID: e.MessageID, CorrelationID: e.CorrelationID, ReplyTo: e.ReplyTo,
		UserID: e.UserID, Pool: e.Pool, Band: e.Band, QueuedAt: e.QueuedAt, History: e.History, Headers: e.Headers}
	return m, e.Dead, nil
}

// split reads an envelope without a copy of the body, which belongs to the database as b does.
func split(b []byte) (e envelope, body []byte, err error) {
	if len(b) < 4 || len(b)-4 < int(binary.BigEndian.Uint32(b)) {
		return e, nil, errors.New("cannot read a stored message: it is cut off")
	}
	end := 4 + int(binary.BigEndian.Uint32(b))
	if err := json.Unmarshal(b[4:end], &e); err != nil {
		return e, nil, fmt.Errorf("cannot read a stored message: %w", err)
	}
	return e, b[end:], nil
}

func number(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

func parse(key []byte) uint64 { return binary.BigEndian.Uint64(key) }

// idKey is the index entry of a message.
func idKey(id string, n uint64) []byte { return append(append([]byte(id), 0), number(n)...) }

// store puts a message into the database: into its lane, or, where it has to wait, among the delayed ones. It returns the
// message's number.
func store(tx *bolt.Tx, m queue.Message, ready time.Time) (uint64, error) {
	messages := tx.Bucket(messagesBucket)
	n, err := messages.NextSequence()
	if err != nil {
		return 0, err
	}
	value, err := seal(m, nil)
	if err != nil {
		return 0, err
	}
	if err := messages.Put(number(n), value); err != nil {
		return 0, err
	}
	if m.MessageID != "" {
		if err := tx.Bucket(idsBucket).Put(idKey(m.MessageID, n), nil); err != nil {
			return 0, err
		}
	}
	lane := laneName(m.Pool, m.Band)
	if ready.IsZero() {
		return n, enqueue(tx, lane, n)
	}
	key := append(number(uint64(ready.UnixNano())), number(n)...)
	if err := tx.Bucket(delayedBucket).Put(key, []byte(lane)); err != nil {
		return 0, err
	}
	return n, tx.Bucket(placesBucket).Put(number(n), key)
}

// enqueue appends a stored message to a lane.
func enqueue(tx *bolt.Tx, lane string, n uint64) error {
	b, err := tx.Bucket(lanesBucket).CreateBucketIfNotExists([]byte(lane))
	if err != nil {
		return err
	}
	order, err := b.NextSequence()
	if err != nil {
		return err
	}
	if err := b.Put(number(order), number(n)); err != nil {
		return err
	}
	return tx.Bucket(placesBucket).Put(number(n), append(number(order), lane...))
}

// place is where a stored message is.
type place struct {
	lane    string
	order   uint64
	delayed []byte // the key among the delayed, or nil
}

// delayedKey is the length of a key among the delayed ones: no lane's name is as short as to make a place of that length
// ambiguous, for it holds a pool, a dot and a band.
const delayedKey = 16

func placeOf(tx *bolt.Tx, n uint64) (place, bool) {
	v := tx.Bucket(placesBucket).Get(number(n))
	if v == nil {
		return place{}, false
	}
	if tx.Bucket(delayedBucket).Get(v) != nil && len(v) == delayedKey {
		return place{lane: string(tx.Bucket(delayedBucket).Get(v)), delayed: append([]byte{}, v...)}, true
	}
	return place{lane: string(v[8:]), order: parse(v[:8])}, true
}

// remove takes a message out of the database, wherever it is. It reports whether it was there.
func remove(tx *bolt.Tx, n uint64) (bool, error) {
	at, ok := placeOf(tx, n)
	if !ok {
		return false, nil
	}
	messages := tx.Bucket(messagesBucket)
	m, _, err := unseal(messages.Get(number(n)))
	if err != nil {
		return false, err
	}
	if at.delayed != nil {
		err = tx.Bucket(delayedBucket).Delete(at.delayed)
	} else {
		err = tx.Bucket(lanesBucket).Bucket([]byte(at.lane)).Delete(number(at.order))
	}
	if err != nil {
		return false, err
	}
	if m.MessageID != "" {
		if err := tx.Bucket(idsBucket).Delete(idKey(m.MessageID, n)); err != nil {
			return false, err
		}
	}
	if err := tx.Bucket(placesBucket).Delete(number(n)); err != nil {
		return false, err
	}
	return true, messages.Delete(number(n))
}

func laneName(pool string, band queue.Band) string { return pool + "." + string(band) }
