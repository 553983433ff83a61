package keeper

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"runtime"
	"testing"
	"time"

	"github.com/mayfly/mayfly/isolation"
)

// encoded are frames as they are sent.
func encoded(frames ...*frame) []byte {
	var b bytes.Buffer
	for _, f := range frames {
		if err := writeFrame(&b, f); err != nil {
			panic(err)
		}
	}
	return b.Bytes()
}

// seeds are conversations in both directions, and what is none.
func seeds(f *testing.F) {
	started, exit := &isolation.Started{PID: 7, At: time.Unix(1, 0).UTC()}, &isolation.Exit{Code: 3, Left: "processes 7"}
	f.Add(encoded(&frame{Op: opRun, Spec: &isolation.Spec{ID: "a", Args: []string{"true"}}}, &frame{Op: opStop, ID: "a", Kill: true}, &frame{Op: opRelease, ID: "a"}, &frame{Op: opQuit}))
	f.Add(encoded(&frame{Op: opHello, Held: []held{{ID: "a", Note: []byte("n"), Started: *started, Exit: exit}}}, &frame{Op: opStarted, ID: "a", Started: started},
		&frame{Op: opStarted, ID: "a", Started: started}, &frame{Op: opEnded, ID: "a", Exit: exit}, &frame{Op: opFreed, ID: "a"}, &frame{Op: opBusy}, &frame{Op: opBye}))
	f.Add(encoded(&frame{Op: opFailed, ID: "a", Error: "no"}))
	for _, text := range []string{"", "{}", "null", "[]", `{"op":"run"}`, `{"op":"run","spec":{"id":"a","args":[]}}`, `{"op":"started","id":"a"}`, `{"op":"ended","id":"a"}`, `{"op":"x"}`} {
		f.Add(append([]byte{0, 0, 0, byte(len(text))}, text...))
	}
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 1})
	f.Add([]byte{0x0f, 0xff, 0xff, 0xff, 1})
}

// FuzzFrame holds that a frame that is read is whole, and the same when it is sent on.
func FuzzFrame(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		for r := bufio.NewReader(bytes.NewReader(b)); ; {
			got, err := readFrame(r)
			if err != nil {
				return
			}
			again, err := readFrame(bufio.NewReader(bytes.NewReader(encoded(got))))
			if err != nil {
				t.Fatal(err)
			}
			one, _ := json.Marshal(got)
			two, _ := json.Marshal(again)
			if !bytes.Equal(one, two) {
				t.Errorf("%s became %s", one, two)
			}
		}
	})
}

// FuzzClient has a keeper say anything to a client that runs a program.
func FuzzClient(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		c := New(Config{Idle: time.Hour, Log: slog.New(slog.DiscardHandler)})
		near, far := net.Pipe()
		far.Close()
		l := &link{peer: newPeer(near), gone: make(chan struct{})}
		c.link = l
		c.runs["a"] = &run{started: make(chan isolation.Started, 1), ended: make(chan struct{})}
		for r := bufio.NewReader(bytes.NewReader(b)); ; {
			got, err := readFrame(r)
			if err != nil {
				break
			}
			c.handle(l, got)
		}
		c.Detach()
		l.peer.close()
	})
}

// FuzzServer has a client say anything to a keeper, but for what would start a program.
func FuzzServer(f *testing.F) {
	seeds(f)
	f.Fuzz(func(_ *testing.T, b []byte) {
		s := &server{log: slog.New(slog.DiscardHandler), done: make(chan struct{}), programs: map[string]*program{"a": {id: "a", exit: &isolation.Exit{}}}, byPID: map[int]*program{}}
		for r := bufio.NewReader(bytes.NewReader(b)); ; {
			got, err := readFrame(r)
			if err != nil {
				break
			}
			if got.Op != opRun {
				s.handle(got)
			}
		}
		s.mu.Lock()
		s.end()
		s.mu.Unlock()
		<-s.done
	})
}

// TestMadeUpLength holds that a length alone takes no memory.
func TestMadeUpLength(t *testing.T) {
	t.Parallel()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := readFrame(bufio.NewReader(bytes.NewReader([]byte{0x0f, 0xff, 0xff, 0xff, 1})))
	runtime.ReadMemStats(&after)
	// Other tests take some, too; the length is 256 MiB.
	if n := after.TotalAlloc - before.TotalAlloc; err != io.ErrUnexpectedEOF || n > 128<<20 {
		t.Errorf("%d bytes are taken, %v", n, err)
	}
}
