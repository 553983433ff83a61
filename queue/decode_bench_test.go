package queue

import (
	"runtime"
	"strconv"
	"strings"
	"testing"
)

func BenchmarkDecode(b *testing.B) {
	for _, c := range []struct{ name, body string }{
		{"simple", `{"id":"job_456","command":["python3","sim.py","--seed","7"],"resources":{"cpu":2,"memory":"8GB"},"timeout":"2h"}`},
		{"every field", everyField},
		{"nested params", `{"type":"t","params":` + nestedArrays(1<<20) + `}`},
	} {
		b.Run(c.name, func(b *testing.B) {
			m := Message{Body: []byte(c.body), MessageID: "m"}
			b.SetBytes(int64(len(c.body)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Decode(m); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// TestHostileBodiesCostLittle decodes bodies of 16 MiB that are made to be slow to read or to need much memory. It bounds
// the memory; a decoder whose time grew faster than the body would not come to an end here.
func TestHostileBodiesCostLittle(t *testing.T) {
	const size = MaxBody - 100
	for _, c := range []struct {
		name, body string
		refused    bool
	}{
		{"nested arrays", `{"type":"t","params":` + nestedArrays(size) + `}`, false},
		{"deep arrays", strings.Repeat("[", size), true},
		{"a million names", `{"type":"t","params":` + manyNames(size) + `}`, false},
		{"a million variables", `{"type":"t","environment":` + manyNames(size) + `}`, true},
		{"a million unknown fields", manyNames(size), true},
		{"a giant string", `{"type":"t","stdin":"` + strings.Repeat("x", size) + `"}`, false},
		{"a giant string of escapes", `{"type":"t","stdin":"` + strings.Repeat(`\u00e9`, size/6) + `"}`, false},
		{"a giant name", `{"` + strings.Repeat("x", size) + `":1}`, true},
		{"a giant number", `{"type":"t","resources":{"cpu":` + strings.Repeat("9", size) + `}}`, true},
		{"a giant size", `{"type":"t","resources":{"disk":"` + strings.Repeat("9", size) + `"}}`, true},
		{"a giant duration", `{"type":"t","timeout":"` + strings.Repeat("1h", size/2) + `"}`, true},
		{"nothing but space", strings.Repeat(" ", size), true},
		{"no end", `{"a":` + strings.Repeat(`{"a":`, size/5), true},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := Message{Body: []byte(c.body)}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := Decode(m)
			runtime.ReadMemStats(&after)
			if (err != nil) != c.refused {
				t.Errorf("error %v", err)
			}
			if factor := (after.TotalAlloc - before.TotalAlloc) / uint64(len(m.Body)); factor > 12 {
				t.Errorf("allocated %d times the body", factor)
			}
			PeekID(m)
		})
	}
}

func nestedArrays(size int) string {
	piece := strings.Repeat("[", MaxDepth-2) + strings.Repeat("]", MaxDepth-2)
	return "[" + piece + strings.Repeat(","+piece, size/(len(piece)+1)-1) + "]"
}

func manyNames(size int) string {
	var b strings.Builder
	b.WriteString("{")
	for i := 0; b.Len() < size-20; i++ {
		if i > 0 {
			b.WriteString(",")
		}
		b.WriteString(`"` + strconv.Itoa(i) + `":0`)
	}
	return b.String() + "}"
}
