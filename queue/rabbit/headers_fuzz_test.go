package rabbit

import (
	"encoding/json"
	"math"
	"runtime"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/mayfly/mayfly/queue"
)

// FuzzHeaders holds decode and again to what others rely on, whatever a producer writes into the headers and properties of a message.
func FuzzHeaders(f *testing.F) {
	f.Add(`[{"attempt":1,"host":"h","cause":"exit"}]`, "2026-11-20T12:00:00Z", int64(0), "00-a-b-01", []byte("x"))
	f.Add(encodeHistory(history(queue.MaxAttempts, "it failed"), historyTight), "9999-12-31T23:59:59-23:59", int64(1)<<60, "", []byte{0})
	f.Add(pack([]byte("["+strings.Repeat("{},", 1000)+"{}]")), "0000-01-01T00:00:00Z", -int64(1)<<60, "\r\n", []byte("\xff"))
	f.Add("[]", "", int64(math.MaxInt64)-1, strings.Repeat("x", 1<<17), []byte(nil))
	f.Add(`[{"attempt":9223372036854775807}]`, "", int64(253402300800), "x", []byte(nil))
	f.Fuzz(func(t *testing.T, attempts, at string, seconds int64, other string, raw []byte) {
		d := amqp.Delivery{Timestamp: time.Unix(seconds, 0), UserId: other, ReplyTo: other, Body: raw, Headers: amqp.Table{headerAttempts: attempts, headerQueuedAt: at,
			headerUserID: other, deliveryCount: seconds, acquiredCount: seconds, headerTurns: []any{seconds, seconds}, headerPrefix + "made-up": other, headerReason: other, "own": raw, "deep": amqp.Table{"list": []any{other, seconds}}}}
		before := time.Now()
		m := decode(d, "default", queue.Normal, "mayfly")
		if m.QueuedAt.After(time.Now()) || m.QueuedAt.Unix() < 0 {
			t.Errorf("queued at %v, asked at %v", m.QueuedAt, before)
		}
		if len(m.History) > historyLongest {
			t.Errorf("%d attempts", len(m.History))
		}
		for _, p := range m.History {
			if p.Attempt < 1 || p.Attempt > attemptMost {
				t.Errorf("attempt %d", p.Attempt)
			}
		}
		// It becomes a result, which is JSON, and a copy, which must fit into a frame.
		if _, err := json.Marshal(queue.Result{QueuedAt: &m.QueuedAt, Attempts: m.History}); err != nil {
			t.Error(err)
		}
		copied := again(d, m, "mayfly")
		fit(copied.Headers)
		if n := size(copied.Headers); n > headersMax {
			t.Errorf("the headers of the copy have %d bytes", n)
		}
		if err := copied.Headers.Validate(); err != nil {
			t.Error(err)
		}
	})
}

// TestForgedHistory holds that a header that unpacks to much costs little.
func TestForgedHistory(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{"entries": "[" + strings.Repeat(`{"attempt":1},`, 1<<20) + `{"attempt":1}]`, "nesting": strings.Repeat("[", 8<<20),
		"one word": `[{"message":"` + strings.Repeat("x", 16<<20) + `"}]`, "blanks": "[" + strings.Repeat(" ", 16<<20) + "]"} {
		header := pack([]byte(text))
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		h := decodeHistory(header)
		runtime.ReadMemStats(&after)
		// Other tests take some, too; unpacked in full, each would take more.
		if n := (after.TotalAlloc - before.TotalAlloc) >> 20; h != nil || n > 64 {
			t.Errorf("%s: %d attempts, %d MiB are taken", name, len(h), n)
		}
	}
}
