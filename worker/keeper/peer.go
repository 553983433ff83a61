package keeper

import (
	"bufio"
	"net"
	"sync"
	"time"
)

// peer is one end of a connection between client and keeper. What is sent is queued and written by a goroutine, so that a
// peer that is slow or stopped holds nobody up.
type peer struct {
	conn net.Conn
	// heard is closed when all that the other end has said was dealt with. Only the keeper's peers use it.
	heard chan struct{}

	mu     sync.Mutex
	queue  []*frame
	wake   *sync.Cond
	mute   bool // nothing can be written any more; there may still be something to read
	closed bool
	idle   bool // the writer has written all
}

func newPeer(conn net.Conn) *peer {
	p := &peer{conn: conn, heard: make(chan struct{}), idle: true}
	p.wake = sync.NewCond(&p.mu)
	go p.write()
	return p
}

// send queues a frame. After the end of the connection it does nothing.
func (p *peer) send(f *frame) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.mute {
		p.queue = append(p.queue, f)
		p.idle = false
		p.wake.Broadcast()
	}
}

func (p *peer) write() {
	w := bufio.NewWriter(p.conn)
	for {
		p.mu.Lock()
		for len(p.queue) == 0 && !p.mute {
			p.idle = true
			p.wake.Broadcast()
			p.wake.Wait()
		}
		frames := p.queue
		p.queue = nil
		mute := p.mute
		p.mu.Unlock()
		if mute {
			return
		}
		for _, f := range frames {
			_ = writeFrame(w, f) // Flush tells
		}
		if err := w.Flush(); err != nil {
			// The other end is gone, but what it said before may still be unread: the reader closes the connection.
			p.hush()
			return
		}
	}
}

// hush ends the writing.
func (p *peer) hush() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mute = true
	p.queue = nil
	p.wake.Broadcast()
}

// drain returns when all is written that was sent, or the connection has ended.
func (p *peer) drain() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for !p.idle && !p.mute {
		p.wake.Wait()
	}
}

// lastWords is how long it may take to hear what a client that is being replaced has said. On a slow machine that is long: of a client that
// is gone, hundreds of programs may still lie in the socket.
const lastWords = 5 * time.Second

// finish returns when all is heard of a client that is gone: what it had asked for before it died must be known before the
// next one is told what is held. One that lives is cut off.
func (p *peer) finish() {
	select {
	case <-p.heard:
	case <-time.After(lastWords):
		p.close()
		<-p.heard
	}
}

// close ends the connection. It may be called more than once.
func (p *peer) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		p.closed, p.mute, p.queue = true, true, nil
		p.conn.Close()
		p.wake.Broadcast()
	}
}
