package history

import (
	"fmt"
	"maps"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/mayfly/mayfly/manager"
	"github.com/mayfly/mayfly/queue"
)

// fill puts records of t0, t1, ... from many goroutines, so that they share commits, but each hundred in its turn.
func fill(tb testing.TB, s *Store, n int, change func(i int, r *manager.Record)) {
	tb.Helper()
	for from := 0; from < n; from += 100 {
		var wg sync.WaitGroup
		for i := from; i < min(n, from+100); i++ {
			wg.Go(func() {
				r := record(fmt.Sprint("t", i), 1, queue.Succeeded)
				change(i, &r)
				if err := s.Put(r); err != nil {
					tb.Error(err)
				}
			})
		}
		wg.Wait()
	}
}

// all reads all pages.
func all(t *testing.T, s *Store, f manager.Filter, limit int) (ids []string, pages int) {
	t.Helper()
	for before := uint64(0); ; pages++ {
		page, next, err := s.Page(f, before, limit)
		if err != nil {
			t.Fatal(err)
		}
		if len(page) > limit || next != 0 && before != 0 && next >= before {
			t.Fatalf("a page of %d, the next before %d after %d", len(page), next, before)
		}
		for _, r := range page {
			ids = append(ids, r.Result.ID)
		}
		if next == 0 {
			return ids, pages + 1
		}
		before = next
	}
}

// TestNothingEnded counts in a store to which nothing was ever put: the API shows the map, and no page expects a null.
func TestNothingEnded(t *testing.T) {
	t.Parallel()
	if ended := openTest(t, filepath.Join(t.TempDir(), "db"), Options{MaxTasks: 1}).Ended(); ended == nil || len(ended) > 0 {
		t.Errorf("%#v", ended)
	}
}

func TestPages(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "db")
	s := openTest(t, path, Options{MaxTasks: 1000})
	for i := range 250 { // one after the other: the order is looked at
		r := record(fmt.Sprint("t", i), 1, queue.Succeeded)
		r.Result.Pool, r.Result.Cause, r.Command = "default", queue.CauseNone, "run --step "+fmt.Sprint(i)
		r.Labels = map[string]string{"Batch": fmt.Sprint(i / 100), "even": fmt.Sprint(i%2 == 0)}
		switch i % 10 {
		case 3:
			r.Result.State, r.Result.Cause, r.Result.Pool = queue.Failed, queue.CauseExit, "render"
		case 7:
			r.Result.State, r.Result.Cause = queue.Cancelled, queue.CauseCancelled
		}
		if i == 42 {
			r.Result.Name = "Über <b>Name</b>\x00"
			r.Labels["long"] = strings.Repeat("x", textMost) + "end"
		}
		if err := s.Put(r); err != nil {
			t.Fatal(err)
		}
	}
	// Neither an attempt that is tried again nor one that a later one followed is shown.
	for _, r := range []manager.Record{record("again", 1, ""), record("t0", 2, queue.Failed), record("t1", 2, "")} {
		if err := s.Put(r); err != nil {
			t.Fatal(err)
		}
	}
	look := func() {
		t.Helper()
		ids, pages := all(t, s, manager.Filter{}, 100)
		if len(ids) != 249 || pages != 3 || ids[0] != "t0" || ids[1] != "t249" || ids[248] != "t2" {
			t.Errorf("%d pages with %d: %.9q", pages, len(ids), ids)
		}
		want := map[queue.State]int{queue.Succeeded: 249 - 51, queue.Failed: 26, queue.Cancelled: 25}
		if got := s.Ended(); !maps.Equal(got, want) {
			t.Errorf("Ended = %v, want %v", got, want)
		}
		for name, tt := range map[string]struct {
			filter manager.Filter
			want   int
			first  string
		}{
			"states":         {manager.Filter{States: []queue.State{queue.Failed, queue.Cancelled}}, 51, "t0"},
			"causes":         {manager.Filter{Causes: []queue.Cause{queue.CauseExit}}, 25, "t243"},
			"pool":           {manager.Filter{Pool: "render"}, 25, "t243"},
			"label":          {manager.Filter{Label: "Batch", Value: "2", WithValue: true}, 50, "t249"},
			"label's name":   {manager.Filter{Label: "even"}, 248, "t249"},
			"label's case":   {manager.Filter{Label: "batch"}, 0, ""},
			"label's prefix": {manager.Filter{Label: "Batch", Value: "", WithValue: true}, 0, ""},
			"a long label":   {manager.Filter{Label: "long", Value: strings.Repeat("x", textMost) + "end", WithValue: true}, 1, "t42"},
			"another":        {manager.Filter{Label: "long", Value: "x", WithValue: true}, 0, ""},
			"text of id":     {manager.Filter{Text: "T12"}, 11, "t129"},
			"command":        {manager.Filter{Text: "--STEP 24"}, 11, "t249"},
			"name":           {manager.Filter{Text: "über <B>"}, 1, "t42"},
			"zero byte":      {manager.Filter{Text: "name</b> "}, 1, "t42"},
			"text of label":  {manager.Filter{Text: "batch=1"}, 100, "t199"},
			"nothing":        {manager.Filter{Text: "nowhere"}, 0, ""},
			"all together":   {manager.Filter{States: []queue.State{queue.Failed}, Pool: "render", Text: "step", Label: "even", Value: "false", WithValue: true}, 25, "t243"},
		} {
			ids, _ := all(t, s, tt.filter, 10)
			if len(ids) != tt.want || tt.want > 0 && ids[0] != tt.first {
				t.Errorf("%s: %d, %q, want %d, first %s", name, len(ids), ids, tt.want, tt.first)
			}
			unique := slices.Compact(slices.Sorted(slices.Values(ids)))
			if len(unique) != len(ids) {
				t.Errorf("%s: shown twice: %q", name, ids)
			}
		}
	}
	look()
	counts, whole := s.Rate(time.Now().Add(-time.Hour), time.Hour, 2)
	if !whole || counts[0][queue.Succeeded]+counts[1][queue.Succeeded] != 198 || counts[0][queue.Failed]+counts[1][queue.Failed] != 26 {
		t.Errorf("Rate = %v, %t", counts, whole)
	}
	if counts, _ := s.Rate(time.Now().Add(time.Hour), time.Hour, 1); counts[0] != nil {
		t.Errorf("Rate of the future = %v", counts)
	}
	s.Close()

	// The index is made anew where an earlier version has kept none, or not for all.
	for _, spoil := range []func(tx *bolt.Tx) error{
		func(tx *bolt.Tx) error { return tx.DeleteBucket(indexBucket) },
		func(tx *bolt.Tx) error {
			k, _ := tx.Bucket(indexBucket).Cursor().Last()
			return tx.Bucket(indexBucket).Delete(k)
		},
		func(tx *bolt.Tx) error { return tx.Bucket(indexBucket).Put([]byte("nonsense"), []byte("x")) },
	} {
		db, err := bolt.Open(path, 0o600, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := db.Update(spoil); err != nil {
			t.Fatal(err)
		}
		db.Close()
		s = openTest(t, path, Options{MaxTasks: 1000})
		look()
		s.Close()
	}
}

// TestBoundedLook holds that a page costs no more than it may, and that the next one goes on where it ended.
func TestBoundedLook(t *testing.T) {
	t.Parallel()
	s := openTest(t, filepath.Join(t.TempDir(), "db"), Options{MaxTasks: 10000})
	defer s.Close()
	fill(t, s, 2000, func(i int, r *manager.Record) {
		if i == 0 {
			r.Result.State = queue.Failed
		}
	})
	s.lookMost = 300
	page, next, err := s.Page(manager.Filter{States: []queue.State{queue.Failed}}, 0, 10)
	if err != nil || len(page) != 0 || next != 2000-300+1 {
		t.Errorf("looked down to %d: %v, %v", next, page, err)
	}
	ids, pages := all(t, s, manager.Filter{States: []queue.State{queue.Failed}}, 10)
	if len(ids) != 1 || pages != 7 {
		t.Errorf("%q in %d pages", ids, pages)
	}
	if _, whole := s.Rate(time.Now().Add(-time.Hour), time.Hour, 2); whole {
		t.Error("the rate is whole")
	}
	// Large records end a page early.
	fill(t, s, 12, func(i int, r *manager.Record) {
		r.ID, r.Result.ID = fmt.Sprintf("large%d.1", i), fmt.Sprint("large", i)
		r.Result.StdoutTail = strings.Repeat("x", 1<<20)
	})
	if page, next, err := s.Page(manager.Filter{}, 0, 100); err != nil || len(page) != 4 || next == 0 {
		t.Errorf("%d large ones, next %d, %v", len(page), next, err)
	}
	if ids, _ := all(t, s, manager.Filter{Text: "large"}, 100); len(ids) != 12 {
		t.Errorf("%q", ids)
	}
}

// TestRecentIsBounded holds that no more of the latest records is read than fits, however many are asked for.
func TestRecentIsBounded(t *testing.T) {
	t.Parallel()
	s := openTest(t, filepath.Join(t.TempDir(), "db"), Options{MaxTasks: 100})
	defer s.Close()
	fill(t, s, 12, func(_ int, r *manager.Record) { r.Result.StdoutTail = strings.Repeat("x", 2<<20) })
	if list := s.Recent(math.MaxInt); len(list) != 8 {
		t.Errorf("%d records of 2 MiB are read, want 8", len(list))
	}
}

func TestRetentionBySize(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "db")
	options := Options{MaxTasks: 1000, MaxBytes: 10_000, Kept: func(id string) int64 {
		if id == "t50.1" {
			return 8000
		}
		return 0
	}}
	var mu sync.Mutex
	dropped := 0
	options.OnDrop = func(manager.Record) { mu.Lock(); dropped++; mu.Unlock() }
	s := openTest(t, path, options)
	put := func(i int) {
		t.Helper()
		if err := s.Put(record(fmt.Sprint("t", i), 1, queue.Succeeded)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 50 {
		put(i)
	}
	before := s.held
	if before.bytes > 10_000 || before.bytes < 9_000 || before.count > 49 || before.count != len(s.Recent(100)) {
		t.Errorf("held: %+v", before)
	}
	put(50) // with its output it is as large as all but a few
	put(51)
	if s.held.bytes > 10_000 || s.held.count > 5 || s.Ended()[queue.Succeeded] != s.held.count {
		t.Errorf("held: %+v", s.held)
	}
	held := s.held
	s.Close()
	if dropped+held.count != 52 {
		t.Errorf("%d were dropped, %d are kept", dropped, held.count)
	}
	s = openTest(t, path, options)
	defer s.Close()
	if s.held.count != held.count || s.held.bytes != held.bytes {
		t.Errorf("held after opening again: %+v, before: %+v", s.held, held)
	}
}

// BenchmarkPage looks through 100,000 ended tasks.
func BenchmarkPage(b *testing.B) {
	s, err := Open(filepath.Join(b.TempDir(), "db"), Options{MaxTasks: 200_000})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	fill(b, s, 100_000, func(i int, r *manager.Record) {
		r.Command, r.Labels = fmt.Sprintf("python3 simulate.py --seed %d", i), map[string]string{"batch": fmt.Sprint(i / 1000)}
		r.Result.Pool, r.Result.StdoutTail = "default", strings.Repeat("a line of output\n", 20)
		if i == 0 {
			r.Result.State = queue.Failed
		}
	})
	for name, f := range map[string]manager.Filter{
		"newest": {}, "one state": {States: []queue.State{queue.Failed}}, "text": {Text: "--seed 0"}, "label": {Label: "batch", Value: "0", WithValue: true},
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, _, err := s.Page(f, 0, 50); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("rate", func(b *testing.B) {
		for b.Loop() {
			s.Rate(time.Now().Add(-time.Hour), time.Minute, 61)
		}
	})
}
