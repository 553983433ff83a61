package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/mayfly/mayfly/gpu"
	"github.com/mayfly/mayfly/manager"
)

const (
	// eventPause is the least time between two events: what changes in between shows in the next. hostPause is that of a stream without
	// the topic tasks.
	eventPause = 100 * time.Millisecond
	hostPause  = 400 * time.Millisecond
	// lookPause is how often a stream looks at what changes without a word: the broker's queues, the GPUs. It also finds out about clients
	// that have left.
	lookPause = 2 * time.Second
)

// The topics of a stream of events.
const (
	topicTasks = "tasks"
	topicHost  = "host"
	topicGPUs  = "gpus"
)

var topics = []string{topicTasks, topicHost, topicGPUs}

// Glance is what an event "host" tells.
type Glance struct {
	Info   manager.Info   `json:"info"`
	Counts manager.Counts `json:"counts"`
	// Now goes on from the samples of a series.
	Now Sample `json:"now"`
}

// events sends what it is asked for at each change.
func (s *Server) events(w http.ResponseWriter, r *http.Request) error {
	wanted, err := words(r.URL.Query(), "topics", topics)
	if err != nil {
		return err
	}
	if len(wanted) == 0 {
		wanted = []string{topicTasks}
	}
	pause := eventPause
	if !slices.Contains(wanted, topicTasks) {
		pause = hostPause
	}
	stream := newStream(w)
	for {
		changed := s.backend.Changed()
		for _, topic := range wanted {
			body, err := s.event(r.Context(), topic)
			if err != nil {
				return err
			}
			if !stream.send(topic, "", body) {
				return nil
			}
		}
		if !stream.flush() || !s.untilNews(r.Context(), stream, changed, wanted) {
			return nil
		}
		select {
		case <-time.After(pause):
		case <-r.Context().Done():
			return nil
		}
	}
}

// untilNews waits for a change, or until it is time to look; it reports whether the stream goes on.
func (s *Server) untilNews(ctx context.Context, stream *stream, changed <-chan struct{}, wanted []string) bool {
	look := time.NewTimer(lookPause)
	defer look.Stop()
	for {
		select {
		case <-changed:
			return true
		case <-ctx.Done():
			return false
		case <-look.C:
			if len(wanted) > 1 || wanted[0] != topicTasks {
				return true
			}
			if !stream.comment() {
				return false
			}
			look.Reset(10 * lookPause)
		}
	}
}

// event makes what a topic tells.
func (s *Server) event(ctx context.Context, topic string) (any, error) {
	switch topic {
	case topicHost:
		info, err := s.backend.Info(ctx)
		waiting, running := s.backend.Load(ctx)
		return Glance{info, s.backend.Counts(ctx), Sample{time.Now().UTC(), waiting, running}}, err
	case topicGPUs:
		return s.gpus.overview(ctx, s.backend)
	}
	views, err := s.backend.List(ctx, 0)
	if views == nil {
		views = []manager.View{}
	}
	return views, err
}

// gpuLook lets those who look at the GPUs at the same time share a look.
type gpuLook struct {
	mu   sync.Mutex
	at   time.Time
	last gpu.Overview
}

// overview shows the GPUs without what does not change.
func (l *gpuLook) overview(ctx context.Context, b manager.Backend) (gpu.Overview, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if time.Since(l.at) < lookPause/2 {
		return l.last, nil
	}
	o, err := b.GPUs(ctx)
	if err != nil {
		return o, err
	}
	for i := range o.GPUs {
		o.GPUs[i].Links, o.GPUs[i].Files, o.GPUs[i].State.Processes = nil, nil, nil
	}
	l.last, l.at = o, time.Now()
	return o, nil
}

// stream writes server-sent events.
type stream struct {
	w       http.ResponseWriter
	flusher *http.ResponseController
}

func newStream(w http.ResponseWriter) *stream {
	w.Header().Set("Content-Type", "text/event-stream")
	return &stream{w, http.NewResponseController(w)}
}

// send writes an event and reports whether somebody may still listen.
func (s *stream) send(event, id string, body any) bool {
	text, err := json.Marshal(body)
	if err != nil {
		return false
	}
	if id != "" {
		id = "id: " + strings.ReplaceAll(id, "\n", "") + "\n"
	}
	_, err = fmt.Fprintf(s.w, "event: %s\n%sdata: %s\n\n", event, id, text)
	return err == nil
}

func (s *stream) flush() bool { return s.flusher.Flush() == nil }

// comment writes what no client minds, and finds out whether there still is one.
func (s *stream) comment() bool {
	_, err := fmt.Fprint(s.w, ":\n\n")
	return err == nil && s.flush()
}
