package keeper

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mayfly/mayfly/isolation"
)

// stranger connects to a keeper's socket and says what it hears.
func stranger(path string) {
	conn, err := net.Dial("unix", path)
	if err != nil {
		fmt.Println(err)
		return
	}
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	heard, err := io.ReadAll(conn)
	fmt.Printf("heard %q, %v", heard, err)
}

// TestSocketOfOthers has another user come to the socket: the file keeps them out, and where somebody opened it, the keeper does.
func TestSocketOfOthers(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("it takes root to be another user")
	}
	b := newBench(t)
	if e := b.run(b.spec("a", "exit 3")); e.Code != 3 {
		t.Fatalf("exit %+v", e)
	}
	ended := make(chan isolation.Exit, 1)
	began := make(chan struct{})
	go func() {
		e, err := b.Run(context.Background(), b.spec("runs", "while ! test -e $DIR/go; do sleep 0.01; done; exit 4"), func(isolation.Started) { close(began) })
		if err != nil {
			t.Error(err)
		}
		ended <- e
	}()
	<-began
	program := filepath.Join(t.TempDir(), "stranger")
	text, err := os.ReadFile("/proc/self/exe")
	if err == nil {
		err = os.WriteFile(program, text, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{filepath.Dir(program), filepath.Dir(filepath.Dir(program)), b.dir, filepath.Dir(b.dir)} {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	socket := filepath.Join(b.dir, socketName)
	come := func() string {
		cmd := exec.CommandContext(t.Context(), program, socket)
		cmd.Env = []string{"KEEPER_TEST_ROLE=stranger"}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("%v: %s", err, out)
		}
		return string(out)
	}
	if said := come(); !strings.Contains(said, "permission denied") {
		t.Errorf("the socket as it is: %s", said)
	}
	if err := os.Chmod(socket, 0o777); err != nil {
		t.Fatal(err)
	}
	if said := come(); !strings.HasPrefix(said, `heard ""`) {
		t.Errorf("the socket opened: %s", said)
	}
	if err := os.WriteFile(filepath.Join(b.dir, "go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if e := <-ended; e.Code != 4 {
		t.Errorf("the program that ran: %+v", e)
	}
	b.Release("runs")
}

// TestGarbage has the keeper's own user say nonsense: no program is lost, and the next client finds all that is held.
func TestGarbage(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	began := make(chan struct{})
	lost := make(chan error, 1)
	go func() {
		_, err := b.Run(context.Background(), b.spec("runs", "while ! test -e $DIR/go; do sleep 0.01; done; exit 4"), func(isolation.Started) { close(began) })
		lost <- err
	}()
	<-began
	frameOf := func(text string) []byte {
		return append(binary.BigEndian.AppendUint32(nil, uint32(len(text))), text...)
	}
	for _, said := range [][]byte{nil, []byte("GET / HTTP/1.1\r\n\r\n"), {0xff, 0xff, 0xff, 0xff}, {0x0f, 0xff, 0xff, 0xff, '{'}, bytes.Repeat([]byte{0}, 1<<16), frameOf("null"), frameOf(`{"op":"run"}`),
		frameOf(`{"op":"run","spec":{"id":"x","args":[]}}`), frameOf(`{"op":"stop","id":"none"}`), frameOf(`{"op":"release","id":"runs"}`), frameOf(strings.Repeat("[", 1<<20))} {
		for range 20 {
			conn, err := b.dial()
			if err != nil {
				t.Fatalf("after %.20q: %v", said, err)
			}
			_, _ = conn.Write(said)
			conn.Close()
		}
	}
	if err := <-lost; err != isolation.ErrDetached {
		t.Errorf("the client that was pushed away: %v", err)
	}
	if err := os.WriteFile(filepath.Join(b.dir, "go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	b.Close()
	b.Client = b.client()
	held, err := b.Held(context.Background())
	if err != nil || len(held) != 1 || string(held[0].Note) != "note of runs" {
		t.Fatalf("held %+v, %v", held, err)
	}
	if e := b.run(b.spec("runs", "")); e.Code != 4 {
		t.Errorf("the program that ran: %+v", e)
	}
}
