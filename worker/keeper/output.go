package keeper

import (
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/mayfly/mayfly/isolation"
)

// pump copies the output of all workers from their pipes to their files: one thread that waits for all pipes at once, so
// that a running worker costs no goroutine. Bytes go from pipe to file within the kernel.
type pump struct {
	epoll int
	null  *os.File

	mu      sync.Mutex
	streams map[int32]*stream // by the pipe's descriptor
}

// stream is one pipe and its file, which is made when something comes.
type stream struct {
	mu      sync.Mutex // held while bytes are moved
	pipe    int
	path    string
	file    *os.File
	max     int64
	kept    int64
	dropped int64
	fault   error // why the file takes no more
	ended   bool  // the pipe is closed
}

func newPump() (*pump, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("cannot make an epoll descriptor: %w", err)
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	p := &pump{epoll: epoll, null: null, streams: map[int32]*stream{}}
	go p.run() // for as long as the process lives
	return p, nil
}

// watch returns the end of a pipe of which what is written there comes into a file, at most max bytes of it. The caller closes that end once the worker
// has it.
func (p *pump) watch(path string, max int64) (*stream, int, error) {
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_CLOEXEC); err != nil {
		return nil, -1, fmt.Errorf("cannot make a pipe: %w", err)
	}
	s := &stream{pipe: ends[0], path: path, max: max}
	fail := func(err error) (*stream, int, error) {
		unix.Close(ends[1])
		s.close(p.epoll)
		return nil, -1, fmt.Errorf("cannot watch a pipe: %w", err)
	}
	if _, err := unix.FcntlInt(uintptr(s.pipe), unix.F_SETFL, unix.O_NONBLOCK); err != nil { // our end only
		return fail(err)
	}
	p.mu.Lock()
	p.streams[int32(s.pipe)] = s
	p.mu.Unlock()
	if err := unix.EpollCtl(p.epoll, unix.EPOLL_CTL_ADD, s.pipe, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(s.pipe)}); err != nil {
		p.forget(s)
		return fail(err)
	}
	return s, ends[1], nil
}

func (p *pump) run() {
	events := make([]unix.EpollEvent, 64)
	for {
		n, err := unix.EpollWait(p.epoll, events, -1)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			panic(fmt.Sprintf("cannot wait for output: %v", err)) // a broken descriptor: nothing would ever be copied again
		}
		for _, e := range events[:n] {
			p.mu.Lock()
			s := p.streams[e.Fd]
			p.mu.Unlock()
			if s == nil {
				continue
			}
			s.mu.Lock()
			if !s.ended && s.move(p.null, movesAtOnce) {
				p.forget(s)
				s.close(p.epoll)
			}
			s.mu.Unlock()
		}
	}
}

const (
	// moveSize is the most that one call moves: the usual size of a pipe.
	moveSize = 64 << 10
	// movesAtOnce keeps one flooding worker from holding up the others.
	movesAtOnce = 16
)

// move moves what is in the pipe, at most n pieces of it, and reports whether the pipe has come to its end.
func (s *stream) move(null *os.File, n int) (end bool) {
	if s.file == nil && s.max > 0 {
		if more, end := s.begin(); !more {
			return end
		}
	}
	for range n {
		to, size := s.file, min(moveSize, s.max-s.kept)
		if size <= 0 {
			to, size = null, moveSize
		}
		moved, err := unix.Splice(s.pipe, nil, int(to.Fd()), nil, int(size), unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK)
		switch {
		case err == unix.EAGAIN:
			return false
		case err == unix.EINTR:
		case err != nil && to == s.file:
			// The disk is full, or the file system does not take it: keep no more, but go on reading, for a worker must not
			// hang for it. What is not kept is counted.
			s.max, s.fault = s.kept, err
		case err != nil, moved == 0:
			return true
		case to == s.file:
			s.kept += moved
		default:
			s.dropped += moved
		}
	}
	return false
}

// begin makes the file of the first bytes. It reports whether there may be more of them; if not, whether the pipe has come to its end.
func (s *stream) begin() (more, end bool) {
	b := make([]byte, min(512, s.max))
	n, err := unix.Read(s.pipe, b)
	for err == unix.EINTR {
		n, err = unix.Read(s.pipe, b)
	}
	if n <= 0 {
		return false, err != unix.EAGAIN
	}
	if s.file, err = isolation.Create(s.path, os.O_TRUNC|unix.O_NOFOLLOW); err == nil {
		kept := 0
		kept, err = s.file.Write(b[:n])
		s.kept = int64(kept)
	}
	if err != nil {
		s.max, s.dropped, s.fault = s.kept, int64(n)-s.kept, err // as in move
	}
	return true, false
}

// finish takes what the ended worker left in the pipe, closes it, and returns the number of bytes that were dropped, with a
// notice of it at the end of the file, and whether that was for a fault. Whoever still holds the other end gets SIGPIPE.
func (p *pump) finish(s *stream) (dropped int64, fault error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.ended {
		// As much as a pipe can hold (1 MiB unless the administrator allows more), and no more: nobody may feed us for ever.
		s.move(p.null, 2*(1<<20)/4096)
		p.forget(s)
		s.close(p.epoll)
	}
	if s.file == nil {
		return s.dropped, s.fault
	}
	if s.dropped > 0 {
		fmt.Fprintf(s.file, isolation.Notice, s.kept, s.dropped)
	}
	s.file.Close()
	return s.dropped, s.fault
}

// forget stops watching the pipe. It comes before the descriptor is closed, which may then be used anew.
func (p *pump) forget(s *stream) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.streams, int32(s.pipe))
}

func (s *stream) close(epoll int) {
	s.ended = true
	// To close it is not enough: a child that is being born holds a copy, which would be ready all the while.
	_ = unix.EpollCtl(epoll, unix.EPOLL_CTL_DEL, s.pipe, nil) // where it is not in the set yet, it need not be taken from it
	unix.Close(s.pipe)
}
