package local

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/mayfly/mayfly/queue"
	"github.com/mayfly/mayfly/queue/queuetest"
)

// TestMain runs the test binary as a host that is killed, where it is told to.
func TestMain(m *testing.M) {
	if path := os.Getenv("LOCAL_TEST_HOST"); path != "" {
		host(path)
		return
	}
	goleak.VerifyTestMain(m)
}

// harness is a queue in a temporary directory.
type harness struct {
	*Queue
	mu      sync.Mutex
	results []queue.Result
}

func (h *harness) Open() queue.Source { return h.Source() }

func (h *harness) Results() []queue.Result {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]queue.Result{}, h.results...)
}

func (h *harness) Depth() int {
	depth, _ := h.Queue.Depth(context.Background())
	n := 0
	for _, d := range depth {
		n += d
	}
	return n
}

func open(t *testing.T, path string, o Options) *Queue {
	t.Helper()
	o.Pools = []string{queuetest.Pool}
	o.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	q, err := Open(path, o)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

// TestPools has a pool with a long queue beside another one: they take turns, whether the host is quick or not.
func TestPools(t *testing.T) {
	t.Parallel()
	for _, settles := range []bool{true, false} {
		q, err := Open(filepath.Join(t.TempDir(), "db"), Options{Pools: []string{"long", "other"}, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		defer q.Close()
		for i := range 24 {
			m := queue.Message{MessageID: fmt.Sprint(i), Pool: "long", Band: queue.Normal}
			if i >= 20 {
				m.Pool = "other"
			}
			if err := q.Publish(t.Context(), m); err != nil {
				t.Fatal(err)
			}
		}
		s := q.Source()
		s.Demand(8)
		of := map[string]int{}
		for range 8 {
			d, err := s.Receive(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			of[d.Message().Pool]++
			if settles {
				if err := d.Settle(t.Context(), queue.Verdict{Action: queue.Done}, nil); err != nil {
					t.Fatal(err)
				}
			}
		}
		if of["other"] != 4 {
			t.Errorf("where they are settled at once (%t), the pools got %v", settles, of)
		}
	}
}

func TestConformance(t *testing.T) {
	t.Parallel()
	queuetest.Run(t, func(t *testing.T) queuetest.Harness {
		h := &harness{}
		h.Queue = open(t, filepath.Join(t.TempDir(), "db"), Options{OnResult: func(_ queue.Message, r queue.Result) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.results = append(h.results, r)
		}})
		t.Cleanup(func() { h.Close() })
		return h
	})
}

func receive(t *testing.T, s queue.Source) queue.Delivery {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	d, err := s.Receive(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func publish(t *testing.T, q *Queue, id string) {
	t.Helper()
	if err := q.Publish(t.Context(), queue.Message{MessageID: id, Pool: queuetest.Pool, Band: queue.Normal, Body: []byte(id)}); err != nil {
		t.Fatal(err)
	}
}

// TestReopen has a file that was closed with messages in all states.
func TestReopen(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "db")
	q := open(t, path, Options{})
	for _, id := range []string{"out", "later", "waits"} {
		publish(t, q, id)
	}
	s := q.Source()
	s.Demand(2)
	receive(t, s)
	later := receive(t, s)
	if err := later.Settle(t.Context(), queue.Verdict{Action: queue.Retry, Delay: 300 * time.Millisecond}, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path, Options{}); err == nil || !strings.Contains(err.Error(), "another manager uses it") {
		t.Errorf("a second Open = %v", err)
	}
	q.Close()
	q = open(t, path, Options{})
	defer q.Close()
	s = q.Source()
	s.Demand(3)
	for _, want := range []string{"out", "waits", "later"} {
		m := receive(t, s).Message()
		if m.MessageID != want || want != "later" && !m.Redelivered {
			t.Errorf("message = %+v, want %s", m, want)
		}
	}
}

// waiting looks at what waits in these places.
func waiting(t *testing.T, q *Queue, from, to int) (list []queue.Message) {
	t.Helper()
	if err := q.Waiting(t.Context(), from, to, func(m queue.Message) bool { list = append(list, m); return true }); err != nil {
		t.Fatal(err)
	}
	return list
}

func TestPickAndLook(t *testing.T) {
	t.Parallel()
	q := open(t, filepath.Join(t.TempDir(), "db"), Options{})
	defer q.Close()
	for _, id := range []string{"a", "b", "c", "d"} {
		publish(t, q, id)
	}
	s := q.Source()
	s.Demand(1)
	a := receive(t, s)
	if err := a.Settle(t.Context(), queue.Verdict{Action: queue.Retry, Delay: time.Hour}, nil); err != nil {
		t.Fatal(err)
	}
	b := receive(t, s)
	for _, part := range []struct {
		from, to int
		want     string
	}{{0, 10, "[c d a]"}, {0, 1, "[c]"}, {1, 3, "[d a]"}, {2, 2, "[]"}, {3, 10, "[]"}, {math.MaxInt, math.MaxInt, "[]"}} {
		ids := []string{}
		for _, m := range waiting(t, q, part.from, part.to) {
			ids = append(ids, m.MessageID)
		}
		if fmt.Sprint(ids) != part.want {
			t.Errorf("from %d to %d there wait %v, want %s", part.from, part.to, ids, part.want)
		}
	}
	n := 0
	if err := q.Waiting(t.Context(), 0, 10, func(queue.Message) bool { n++; return n < 2 }); err != nil || n != 2 {
		t.Errorf("a look that is broken off sees %d, %v", n, err)
	}
	if m, ok := q.Find(t.Context(), "a"); !ok || m.MessageID != "a" {
		t.Errorf("Find(a) = %+v, %t", m, ok)
	}
	if _, ok := q.Find(t.Context(), "b"); ok {
		t.Error("found what was handed out")
	}
	for _, id := range []string{"a", "c"} { // delayed, and in its lane; the demand does not matter
		d, err := q.Pick(t.Context(), id)
		if err != nil || d.Message().MessageID != id {
			t.Fatalf("Pick(%s) = %v", id, err)
		}
		if err := d.Settle(t.Context(), queue.Verdict{Action: queue.Done}, nil); err != nil {
			t.Fatal(err)
		}
	}
	for _, id := range []string{"a", "b", "x"} {
		if _, err := q.Pick(t.Context(), id); !errors.Is(err, ErrNotFound) {
			t.Errorf("Pick(%s) = %v", id, err)
		}
	}
	if depth, _ := q.Depth(t.Context()); depth["test.normal"] != 1 || depth["test.high"] != 0 {
		t.Errorf("Depth = %v", depth)
	}
	if err := b.Settle(t.Context(), queue.Verdict{Action: queue.Done}, nil); err != nil {
		t.Fatal(err)
	}
	if d := receive(t, s); d.Message().MessageID != "d" {
		t.Errorf("message = %+v", d.Message())
	}
}

func TestSpoiltFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "db")
	if err := os.WriteFile(path, []byte(strings.Repeat("nonsense", 8192)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path, Options{}); err == nil || !strings.Contains(err.Error(), "cannot open the embedded queue "+path+", restore it or move it away") {
		t.Errorf("Open = %v", err)
	}
}

// host publishes and settles without end, and says each step once it is done.
func host(path string) {
	q, err := Open(path, Options{Pools: []string{queuetest.Pool}, Log: slog.Default()})
	if err != nil {
		panic(err)
	}
	var mu sync.Mutex
	say := func(word, id string) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Println(word, id)
	}
	s := q.Source()
	s.Demand(8)
	for w := range 4 {
		go func() {
			for i := 0; ; i++ {
				id := fmt.Sprintf("%d-%d-%d", os.Getpid(), w, i)
				if err := q.Publish(context.Background(), queue.Message{MessageID: id, Pool: queuetest.Pool, Band: queue.Normal, Body: []byte(id)}); err != nil {
					panic(err)
				}
				say("published", id)
			}
		}()
	}
	for {
		d, err := s.Receive(context.Background())
		if err != nil {
			panic(err)
		}
		go func() {
			m := d.Message()
			v := queue.Verdict{Action: queue.Done}
			if len(m.History) == 0 && len(m.MessageID)%2 == 0 {
				v = queue.Verdict{Action: queue.Retry, History: []queue.Past{{Attempt: 1}}, Delay: time.Millisecond}
			}
			if err := d.Settle(context.Background(), v, func() error {
				if v.Action == queue.Done {
					say("confirmed", m.MessageID)
				}
				return nil
			}); err != nil {
				panic(err)
			}
			if v.Action == queue.Done {
				say("settled", m.MessageID)
			}
		}()
	}
}

// TestKilled kills a host by SIGKILL again and again: what was published is there or was confirmed, what was settled is gone.
func TestKilled(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "db")
	published, confirmed, settled := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for round := range 8 {
		c := exec.CommandContext(t.Context(), os.Args[0])
		c.Env = append(os.Environ(), "LOCAL_TEST_HOST="+path)
		c.Stderr = os.Stderr
		out, err := c.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		said := bufio.NewScanner(out)
		for n := 0; said.Scan(); n++ {
			word, id, _ := strings.Cut(said.Text(), " ")
			map[string]map[string]bool{"published": published, "confirmed": confirmed, "settled": settled}[word][id] = true
			if n == 100+77*round {
				c.Process.Kill()
			}
		}
		c.Wait()
	}
	if len(settled) == 0 || len(settled) == len(published) {
		t.Fatalf("%d published, %d settled: the rounds prove nothing", len(published), len(settled))
	}
	q := open(t, path, Options{})
	defer q.Close()
	left := map[string]int{}
	for _, m := range waiting(t, q, 0, math.MaxInt) {
		left[m.MessageID]++
	}
	for id := range published {
		if left[id] == 0 && !confirmed[id] {
			t.Errorf("%s was published and is gone", id)
		}
	}
	for id, n := range left {
		if n > 1 || settled[id] {
			t.Errorf("%s is there %d times, settled %t", id, n, settled[id])
		}
	}
}

// TestBacklog drains a long queue: each message once, in order.
func TestBacklog(t *testing.T) {
	t.Parallel()
	q := open(t, filepath.Join(t.TempDir(), "db"), Options{})
	defer q.Close()
	const n = 20000
	var wg sync.WaitGroup
	for w := range 100 {
		wg.Go(func() {
			for i := range n / 100 {
				publish(t, q, fmt.Sprintf("%d-%d", w, i))
			}
		})
	}
	wg.Wait()
	s := q.Source()
	s.Demand(64)
	last := map[string]int{}
	slots := make(chan struct{}, 64)
	for range n {
		slots <- struct{}{}
		d := receive(t, s)
		var w string
		var i int
		if _, err := fmt.Sscanf(strings.Replace(d.Message().MessageID, "-", " ", 1), "%s %d", &w, &i); err != nil {
			t.Fatal(err)
		}
		if i > 0 && last[w] != i-1 {
			t.Fatalf("%s came after %d", d.Message().MessageID, last[w])
		}
		last[w] = i
		wg.Go(func() {
			if err := d.Settle(t.Context(), queue.Verdict{Action: queue.Done}, nil); err != nil {
				t.Error(err)
			}
			<-slots
		})
	}
	wg.Wait()
	if depth, _ := q.Depth(t.Context()); depth["test.normal"] != 0 {
		t.Errorf("Depth = %v", depth)
	}
}
