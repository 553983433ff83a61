package rabbit

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/mayfly/mayfly/queue"
)

func history(n int, message string) []queue.Past {
	h := make([]queue.Past, n)
	for i := range h {
		at := time.Unix(rand.Int64N(1e9), rand.Int64N(1e9)).UTC()
		h[i] = queue.Past{Attempt: i + 1, Host: fmt.Sprint("host", rand.Int()), Cause: queue.CauseExit, Message: message,
			StartedAt: at, FinishedAt: at}
	}
	return h
}

func TestHistoryHeader(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 1, 20, 300} {
		h := history(n, "it failed")
		s := encodeHistory(h, historyMax)
		if got := decodeHistory(s); len(got) != n || n > 0 && !reflect.DeepEqual(got, h) {
			t.Errorf("%d attempts come back as %d", n, len(got))
		}
		if n == 1 && !strings.HasPrefix(s, "[") {
			t.Errorf("a short history is not plain JSON: %s", s)
		}
	}
	for _, limit := range []int{historyMax, historyTight} {
		s := encodeHistory(history(queue.MaxAttempts, strings.Repeat("long ", 100)), limit)
		got := decodeHistory(s)
		if len(s) > limit || len(got) == 0 || got[len(got)-1].Attempt != queue.MaxAttempts {
			t.Errorf("the longest history takes %d bytes of %d and ends with %+v", len(s), limit, got[len(got)-1:])
		}
	}
	for _, bad := range []any{nil, 7, "", "{", "gzip:", "gzip:AAAA", "gzip:!"} {
		if got := decodeHistory(bad); got != nil {
			t.Errorf("decodeHistory(%v) = %v", bad, got)
		}
	}
}

func TestHeadersFitIntoAFrame(t *testing.T) {
	t.Parallel()
	h := amqp.Table{"own": "x", "huge": strings.Repeat("y", 100<<10), "big": amqp.Table{"list": []any{strings.Repeat("z", 30<<10)}},
		headerAttempts: encodeHistory(history(300, ""), historyMax), headerQueuedAt: "now"}
	if dropped := fit(h); len(dropped) != 1 || dropped[0] != "huge" {
		t.Errorf("dropped %v", dropped)
	}
	if size(h) > headersMax || h["own"] != "x" || len(decodeHistory(h[headerAttempts])) == 0 {
		t.Errorf("the headers have %d bytes, or lost what fits", size(h))
	}
	if dropped := fit(amqp.Table{"own": "x"}); dropped != nil {
		t.Errorf("dropped %v", dropped)
	}
}

// Only a copy that the broker knows to be ours may say who the producer was.
func TestUserID(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		property string
		header   any
		want     string
	}{
		{"", nil, ""},
		{"alice", nil, "alice"},
		{"", "root", ""},
		{"alice", "root", "alice"},
		{"mayfly", "alice", "alice"},
		{"mayfly", "", ""},
		{"mayfly", nil, "mayfly"},
	} {
		d := amqp.Delivery{UserId: c.property, Headers: amqp.Table{}}
		if c.header != nil {
			d.Headers[headerUserID] = c.header
		}
		if got := decode(d, "p", queue.Normal, "mayfly").UserID; got != c.want {
			t.Errorf("user_id %q and header %v give %q, want %q", c.property, c.header, got, c.want)
		}
	}
}

func TestTable(t *testing.T) {
	t.Parallel()
	got, err := table(map[string]any{"i": 1 << 40, "u": uint16(7), "m": map[string]any{"l": []any{1, "a", nil}}, "s": []string{"x"}, "b": true})
	want := amqp.Table{"i": int64(1 << 40), "u": int64(7), "m": amqp.Table{"l": []any{int64(1), "a", nil}}, "s": []any{"x"}, "b": true}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("table = %v, %v", got, err)
	}
	if _, err := table(map[string]any{"c": make(chan int)}); err == nil {
		t.Error("a channel passes for a header")
	}
}

// TestGuessed has messages copied whose producer says when they were queued, does not say it, and says what cannot be: a copy says whether that is known.
func TestGuessed(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		said    time.Time
		guessed bool
		undated bool
	}{"said": {time.Unix(1e9, 0), false, false}, "not said": {time.Time{}, true, true}, "ahead": {time.Now().Add(time.Hour), true, true}, "milliseconds": {time.Unix(time.Now().UnixMilli(), 0), true, true},
		"hardly ahead": {time.Now().Add(skew / 2), true, false}} {
		m := decode(amqp.Delivery{Timestamp: c.said}, "p", queue.Normal, "me")
		if m.Guessed != c.guessed || m.Undated != c.undated {
			t.Errorf("%s: guessed %t, undated %t", name, m.Guessed, m.Undated)
		}
		for range 2 {
			copied := again(amqp.Delivery{Timestamp: c.said}, m, "me")
			seen := decode(amqp.Delivery{Timestamp: copied.Timestamp, Headers: copied.Headers, UserId: "me"}, "p", queue.Normal, "me")
			if !seen.QueuedAt.Equal(m.QueuedAt) || seen.Guessed != c.guessed || seen.Undated {
				t.Errorf("%s: a copy is of %s (guessed %t, undated %t), want %s", name, seen.QueuedAt, seen.Guessed, seen.Undated, m.QueuedAt)
			}
			m = seen
		}
	}
}
