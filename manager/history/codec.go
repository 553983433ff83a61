package history

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"time"

	"github.com/mayfly/mayfly/manager"
)

// encode puts the time of acknowledgement before the JSON, so that it can be changed without reading the rest.
func encode(r manager.Record) ([]byte, error) {
	text, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	return append(encodeTime(r.AckedAt), text...), nil
}

func decode(b []byte) (r manager.Record, err error) {
	if len(b) < timeSize {
		return r, errors.New("the record is cut off")
	}
	err = json.Unmarshal(b[timeSize:], &r)
	r.AckedAt = decodeTime(b[:timeSize])
	return r, err
}

// encodeTime writes a time as nanoseconds, and the zero time as 0.
func encodeTime(t time.Time) []byte {
	if t.IsZero() {
		return make([]byte, timeSize)
	}
	return binary.BigEndian.AppendUint64(nil, uint64(t.UnixNano()))
}

func decodeTime(b []byte) time.Time {
	n := binary.BigEndian.Uint64(b)
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, int64(n))
}
