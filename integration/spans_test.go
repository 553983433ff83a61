package integration

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/mayfly/mayfly/integration/broker"
)

// TestSpans has a collector take the spans of attempts: in the trace of the message, and the parents of what the worker does.
func TestSpans(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	taken := ""
	collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		taken += r.URL.Path + " " + string(body)
	}))
	defer collector.Close()
	url := broker.Shared(t, broker.V43).Vhost(t)
	h := newHost(t, "MAYFLY_AMQP_URL="+url, "OTEL_EXPORTER_OTLP_ENDPOINT="+collector.URL)
	h.start()
	p := newProducer(t, url)
	const trace, span = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
	p.publishWith("default", amqp.Publishing{Headers: amqp.Table{"traceparent": "00-" + trace + "-" + span + "-01"},
		Body: []byte(`{"id": "traced", "max_attempts": 2, "backoff": "1ms", "environment": {"SECRET": "s3cret"}, "shell": "echo $TRACEPARENT; test $MAYFLY_ATTEMPT = 2"}`)})
	said := strings.Split(strings.TrimSpace(p.wait("traced").StdoutTail), "-")
	if len(said) != 4 || said[1] != trace || said[2] == span {
		t.Fatalf("the worker's context is %v", said)
	}
	h.stop() // sends what waits
	mu.Lock()
	defer mu.Unlock()
	if n := strings.Count(taken, `"parentSpanId":"`+span+`"`); n != 2 || !strings.HasPrefix(taken, "/v1/traces ") || !strings.Contains(taken, `"spanId":"`+said[2]+`"`) ||
		!strings.Contains(taken, `{"key":"mayfly.cause","value":{"stringValue":"exit"}}`) || strings.Contains(taken, "s3cret") {
		t.Errorf("%d spans are children of the producer's: %s", n, taken)
	}
}
