package keeper

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"github.com/mayfly/mayfly/isolation"
)

// frame is one message between client and keeper: four bytes of length, big endian, then this as JSON.
type frame struct {
	Op      op                 `json:"op"`
	ID      string             `json:"id,omitempty"`
	Spec    *isolation.Spec    `json:"spec,omitempty"`
	Kill    bool               `json:"kill,omitempty"`
	Started *isolation.Started `json:"started,omitempty"`
	Exit    *isolation.Exit    `json:"exit,omitempty"`
	Error   string             `json:"error,omitempty"`
	Held    []held             `json:"held,omitempty"`
	More    bool               `json:"more,omitempty"`
}

type op string

// What a client asks.
const (
	opRun     op = "run"     // Spec
	opStop    op = "stop"    // ID, Kill: without grace
	opRelease op = "release" // ID
	opQuit    op = "quit"    // answered by opBusy, or by the end of the connection
)

// What a keeper says.
const (
	opHello   op = "hello"   // Held; the first frame of a connection, and the next one after each that says More
	opStarted op = "started" // ID, Started
	opEnded   op = "ended"   // ID, Exit
	opFailed  op = "failed"  // ID, Error: the keeper could not run it
	opFreed   op = "freed"   // ID: what was left of a released program is gone
	opBusy    op = "busy"
	opBye     op = "bye" // the keeper quits and holds nothing
)

// held is a program as a keeper tells a new client of it.
type held struct {
	ID      string            `json:"id"`
	Note    []byte            `json:"note"`
	Started isolation.Started `json:"started"`
	Exit    *isolation.Exit   `json:"exit,omitempty"`
	// Released says that it is held only for what is left of it.
	Released bool `json:"released,omitempty"`
	// fault is why it could not be begun, where its keeper has said so to a client that had not joined it yet.
	fault error
}

// maxFrame bounds a frame in bytes: arguments and environment of a 16 MiB task, escaped, with room to spare.
const maxFrame = 256 << 20

// helloMost is of how many bytes the notes in one hello are at most, if they are several: together they may be more than a frame takes.
const helloMost = 32 << 20

// hellos are the first frames of a connection.
func hellos(list []held, most int) []*frame {
	last := &frame{Op: opHello}
	all, size := []*frame{last}, 0
	for _, h := range list {
		if size += len(h.Note); size > most && len(last.Held) > 0 {
			last.More, last, size = true, &frame{Op: opHello}, len(h.Note)
			all = append(all, last)
		}
		last.Held = append(last.Held, h)
	}
	return all
}

func writeFrame(w io.Writer, f *frame) error {
	body, err := json.Marshal(f)
	if err != nil {
		return fmt.Errorf("cannot encode a frame: %w", err)
	}
	_, err = w.Write(append(binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(body)), uint32(len(body))), body...))
	return err
}

func readFrame(r *bufio.Reader) (*frame, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > maxFrame {
		return nil, fmt.Errorf("cannot read a frame of %d bytes", n)
	}
	body, err := readBody(r, int(n))
	if err != nil {
		return nil, err
	}
	f := new(frame)
	if err := json.Unmarshal(body, f); err != nil {
		return nil, fmt.Errorf("cannot decode a frame: %w", err)
	}
	return f, f.check()
}

// readBody reads n bytes. Of a long body no more memory is taken than has come: the other end may have made the length up.
func readBody(r io.Reader, n int) ([]byte, error) {
	const shortBody = 64 << 10
	if n <= shortBody {
		body := make([]byte, n)
		_, err := io.ReadFull(r, body)
		return body, err
	}
	body, err := io.ReadAll(io.LimitReader(r, int64(n)))
	if err == nil && len(body) < n {
		err = io.ErrUnexpectedEOF
	}
	return body, err
}

// check reports what a frame lacks. What it says of programs is believed.
func (f *frame) check() error {
	ok := true
	switch f.Op {
	case opRun:
		ok = f.Spec != nil && f.Spec.ID != "" && len(f.Spec.Args) > 0
	case opStarted:
		ok = f.Started != nil
	case opEnded:
		ok = f.Exit != nil
	}
	if !ok {
		return fmt.Errorf("cannot use a frame %q: a part of it is missing", f.Op)
	}
	return nil
}

// The files of a keeper in its directory.
const (
	socketName = "keeper.sock"
	lockName   = "keeper.lock"
	logName    = "keeper.log"
	placeName  = "keeper.cgroup" // names the root of the control groups, while there is a keeper
)

// throughDir calls use with a path for a file in dir that is short enough for a socket's address (107 bytes, unix(7)),
// however long the path of dir is.
func throughDir(dir, name string, use func(path string) error) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return use(filepath.Join("/proc/self/fd", strconv.Itoa(int(d.Fd())), name))
}
