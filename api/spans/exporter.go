package spans

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"sync"
	"time"

	"github.com/mayfly/mayfly/internal/logkey"
	"github.com/mayfly/mayfly/manager"
)

const (
	// gather is how long spans wait for others; batchMost is how many go together, waitingMost how many wait at most.
	gather      = time.Second
	batchMost   = 256
	waitingMost = 4096
	// tries of a batch, with pauses between them that grow, and the time that each may take.
	tries     = 4
	pauseMin  = 500 * time.Millisecond
	tryLimit  = 10 * time.Second
	closeWait = 3 * time.Second
)

// Exporter sends spans.
type Exporter struct {
	config Config
	client *http.Client
	log    *slog.Logger

	mu      sync.Mutex
	waiting []span
	dropped int
	sending bool // a goroutine does, until nothing waits
	idle    *sync.Cond
	closed  context.Context
	close   context.CancelFunc
}

// New returns an exporter, nil where no spans are wanted. It does nothing until there is one.
func New(c Config, log *slog.Logger) *Exporter {
	if c.URL == "" {
		return nil
	}
	x := &Exporter{config: c, log: log, client: &http.Client{Timeout: tryLimit, Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, IdleConnTimeout: 2 * gather},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}} // the headers are for nobody else
	x.idle = sync.NewCond(&x.mu)
	x.closed, x.close = context.WithCancel(context.Background())
	return x
}

// Ended takes an ended attempt in. It returns at once.
func (x *Exporter) Ended(e manager.End) {
	s, ok := spanOf(&e)
	if !ok {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if len(x.waiting) >= waitingMost {
		x.dropped++
		return
	}
	x.waiting = append(x.waiting, s)
	if !x.sending {
		x.sending = true
		go x.run()
	}
}

// run sends what waits, until nothing does.
func (x *Exporter) run() {
	for {
		select {
		case <-time.After(gather):
		case <-x.closed.Done():
		}
		x.mu.Lock()
		if len(x.waiting) == 0 {
			x.sending = false
			x.idle.Broadcast()
			x.mu.Unlock()
			return
		}
		batch := x.waiting[:min(len(x.waiting), batchMost)]
		x.waiting = append([]span{}, x.waiting[len(batch):]...)
		dropped := x.dropped
		x.dropped = 0
		x.mu.Unlock()
		if dropped > 0 {
			x.log.Warn("spans dropped: too many waited", logkey.Count, dropped)
		}
		if err := x.send(batch); err != nil {
			x.log.Warn("spans dropped", logkey.Count, len(batch), logkey.Err, err)
		}
	}
}

// send sends a batch, several times where that may help.
func (x *Exporter) send(batch []span) error {
	body, err := json.Marshal(map[string]any{"resourceSpans": []any{map[string]any{
		"resource":   map[string]any{"attributes": []attribute{text("service.name", x.config.Service), text("service.version", x.config.Version), text("host.name", x.config.Host)}},
		"scopeSpans": []any{map[string]any{"scope": map[string]string{"name": "github.com/mayfly/mayfly", "version": x.config.Version}, "spans": batch}},
	}}})
	if err != nil {
		return fmt.Errorf("cannot encode spans: %w", err)
	}
	pause := pauseMin
	for n := 1; ; n++ {
		again, err := x.post(body)
		if err == nil || !again || n == tries {
			return err
		}
		select {
		case <-time.After(pause):
			pause *= 2
		case <-x.closed.Done():
			return err
		}
	}
}

// post sends a request; again says that another one may succeed.
func (x *Exporter) post(body []byte) (again bool, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), tryLimit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, x.config.URL, bytes.NewReader(body))
	if err != nil {
		return false, fmt.Errorf("cannot ask the collector: %w", err)
	}
	maps.Copy(req.Header, x.config.Headers)
	req.Header.Set("Content-Type", "application/json")
	resp, err := x.client.Do(req)
	if err != nil {
		return true, fmt.Errorf("cannot reach the collector: %w", err) // a URL in it is shown without its password
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10)) // so that the connection serves again
	if resp.StatusCode/100 == 2 {
		return false, nil
	}
	// The answers upon which the protocol has one try again.
	again = resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode == http.StatusBadGateway || resp.StatusCode == http.StatusServiceUnavailable || resp.StatusCode == http.StatusGatewayTimeout
	return again, fmt.Errorf("cannot have the collector take spans: it answered %s", resp.Status)
}

// Close sends what waits, for a few seconds at most.
func (x *Exporter) Close() {
	x.close()
	late := time.AfterFunc(closeWait, func() {
		x.mu.Lock()
		defer x.mu.Unlock()
		x.sending = false
		x.idle.Broadcast()
	})
	defer late.Stop()
	x.mu.Lock()
	defer x.mu.Unlock()
	for x.sending {
		x.idle.Wait()
	}
	x.client.CloseIdleConnections()
}
