package keeper

import (
	"bufio"
	"net"
	"sync"
)

// peer is one end of a connection between client and keeper. What is sent is queued and written by a goroutine, so that a
// peer that is slow or stopped holds nobody up.
type peer struct {
	conn net.Conn

	mu     sync.Mutex
	queue  []*frame
	wake   *sync.Cond
	closed bool
	idle   bool // the writer has written all
}

func newPeer(conn net.Conn) *peer {
	p := &peer{conn: conn, idle: true}
	p.wake = sync.NewCond(&p.mu)
	go p.write()
	return p
}

// send queues a frame. After the end of the connection it does nothing.
func (p *peer) send(f *frame) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		p.queue = append(p.queue, f)
		p.idle = false
		p.wake.Broadcast()
	}
}

func (p *peer) write() {
	w := bufio.NewWriter(p.conn)
	for {
		p.mu.Lock()
		for len(p.queue) == 0 && !p.closed {
			p.idle = true
			p.wake.Broadcast()
			p.wake.Wait()
		}
		frames := p.queue
		p.queue = nil
		closed := p.closed
		p.mu.Unlock()
		if closed {
			return
		}
		for _, f := range frames {
			if err := writeFrame(w, f); err != nil {
				p.close()
				return
			}
		}
		if err := w.Flush(); err != nil {
			p.close()
			return
		}
	}
}

// drain returns when all is written that was sent, or the connection has ended.
func (p *peer) drain() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for !p.idle && !p.closed {
		p.wake.Wait()
	}
}

// close ends the connection. It may be called more than once.
func (p *peer) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		p.closed = true
		p.conn.Close()
		p.wake.Broadcast()
	}
}
