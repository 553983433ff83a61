package api

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/mayfly/mayfly/queue"
)

const (
	// samplePause is the least time between two samples. While nothing changes none is taken.
	samplePause = time.Second
	// sampleAge is how long they are kept.
	sampleAge = 24 * time.Hour
	// seriesSteps is into how many steps a span is divided.
	seriesSteps = 60
)

// sampleGap is how far apart samples of an age are at least: what is shown of long ago is small.
func sampleGap(age time.Duration) time.Duration {
	switch {
	case age < 10*time.Minute:
		return 0
	case age < time.Hour:
		return 10 * time.Second
	}
	return 2 * time.Minute
}

// spans are what can be looked at.
var spans = map[string]time.Duration{"15m": 15 * time.Minute, "1h": time.Hour, "6h": 6 * time.Hour, "24h": 24 * time.Hour}

// Sample is how much was there at a moment, and is until the next one.
type Sample struct {
	At time.Time `json:"at"`
	// Waiting counts tasks that wait on this host, with those in its embedded queue.
	Waiting int `json:"waiting"`
	Running int `json:"running"`
}

// Step counts the tasks that ended within a step of time.
type Step struct {
	At    time.Time           `json:"at"`
	Ended map[queue.State]int `json:"ended"`
}

// Series is what happened over time.
type Series struct {
	From        time.Time `json:"from"`
	To          time.Time `json:"to"`
	StepSeconds float64   `json:"step_seconds"`
	Steps       []Step    `json:"steps"`
	// Whole is false where more ended than can be counted: the first steps then lack some.
	Whole bool `json:"whole"`
	// Samples begin with the manager.
	Samples []Sample `json:"samples"`
}

// samples are what Watch has seen, oldest first.
type samples struct {
	mu   sync.Mutex
	list []Sample
}

// Watch takes a sample at each change until ctx ends. While nothing changes it sleeps.
func (s *Server) Watch(ctx context.Context) {
	for {
		changed := s.backend.Changed()
		waiting, running := s.backend.Load(ctx)
		s.samples.add(Sample{time.Now(), waiting, running})
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
		// What a change brought shows at once, what follows it a little later.
		waiting, running = s.backend.Load(ctx)
		s.samples.add(Sample{time.Now(), waiting, running})
		select {
		case <-time.After(samplePause):
		case <-ctx.Done():
			return
		}
	}
}

// add adds a sample, and now and then thins out the old ones.
func (l *samples) add(sample Sample) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := len(l.list); n > 0 && l.list[n-1].Waiting == sample.Waiting && l.list[n-1].Running == sample.Running {
		return // it holds until the next one
	}
	l.list = append(l.list, sample)
	if len(l.list) < cap(l.list) || len(l.list) < 64 {
		return
	}
	thin := l.list[:0]
	for i, old := range l.list {
		age, last := sample.At.Sub(old.At), time.Time{}
		if n := len(thin); n > 0 {
			last = thin[n-1].At
		}
		// The last one that is too old says how much was there when the oldest ones begin.
		followed := i+1 < len(l.list) && sample.At.Sub(l.list[i+1].At) >= sampleAge
		if age >= sampleAge && followed || !last.IsZero() && old.At.Sub(last) < sampleGap(age) {
			continue
		}
		thin = append(thin, old)
	}
	l.list = thin
}

// since returns the samples since a time, and the one that held then.
func (l *samples) since(from time.Time) []Sample {
	l.mu.Lock()
	defer l.mu.Unlock()
	first := 0
	for i, sample := range l.list {
		if !sample.At.After(from) {
			first = i
		}
	}
	return append([]Sample{}, l.list[first:]...)
}

// series tells what happened over time.
func (s *Server) series(w http.ResponseWriter, r *http.Request) error {
	name := r.URL.Query().Get("span")
	if name == "" {
		name = "1h"
	}
	span, ok := spans[name]
	if !ok {
		return &badRequest{fmt.Sprintf("cannot use span=%q: it is 15m, 1h, 6h or 24h", name)}
	}
	// Steps begin at round times, so that each is the same however often it is asked for.
	step := span / seriesSteps
	to := time.Now()
	from := to.Add(-span).Truncate(step).Add(step)
	n := int(to.Sub(from)/step) + 1
	counts, whole := s.backend.Rate(from, step, n)
	answered := Series{From: from.UTC(), To: to.UTC(), StepSeconds: step.Seconds(), Whole: whole, Samples: s.samples.since(from)}
	for i, ended := range counts {
		if ended == nil {
			ended = map[queue.State]int{}
		}
		answered.Steps = append(answered.Steps, Step{from.Add(time.Duration(i) * step).UTC(), ended})
	}
	answer(w, http.StatusOK, answered)
	return nil
}
