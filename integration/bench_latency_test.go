package integration

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mayfly/mayfly/integration/broker"
)

// The benchmarks of how soon: from the publishing of a task to what its program does first.

// latencies starts tasks one after the other, each of which tells when its program begins: by opening a named pipe.
type latencies struct {
	host *host
	p    *producer
	pipe string
	ran  int
	all  []time.Duration
}

func newLatencies(b *testing.B, env ...string) *latencies {
	b.Helper()
	url := broker.Shared(b, broker.V40).Vhost(b)
	l := &latencies{host: newHost(b, append([]string{"MAYFLY_AMQP_URL=" + url, "MAYFLY_LOG_LEVEL=warn"}, env...)...)}
	l.host.start()
	l.host.connected()
	l.p = newProducer(b, url)
	l.pipe = filepath.Join(l.host.marks(), "pipe")
	if err := syscall.Mkfifo(l.pipe, 0o666); err != nil {
		b.Fatal(err)
	}
	if err := os.Chmod(l.pipe, 0o666); err != nil {
		b.Fatal(err)
	}
	l.one() // what is made once
	l.all = nil
	return l
}

// one runs a task and takes its time.
func (l *latencies) one() {
	id := fmt.Sprint("t", l.ran)
	l.ran++
	opened := make(chan time.Time)
	go func() {
		f, err := os.Open(l.pipe) // returns when the worker has opened it
		at := time.Now()
		if err == nil {
			f.Close()
		}
		opened <- at
	}()
	begin := time.Now()
	l.p.publish("default", fmt.Sprintf(`{"id": %q, "command": ["/bin/busybox", "cp", "/dev/null", %q], "resources": {"cpu": 0.5, "memory": "16MiB"}}`, id, l.pipe))
	l.all = append(l.all, (<-opened).Sub(begin))
	l.p.wait(id)
}

func (l *latencies) report(b *testing.B) {
	slices.Sort(l.all)
	at := func(share float64) float64 {
		return float64(l.all[min(len(l.all)-1, int(share*float64(len(l.all))))].Microseconds()) / 1000
	}
	b.ReportMetric(at(0.5), "p50-ms")
	b.ReportMetric(at(0.99), "p99-ms")
	b.ReportMetric(at(0.999), "p99.9-ms")
}

// BenchmarkLatency measures on a host that is idle between the tasks, and on one whose processors are kept busy by as many other tasks.
func BenchmarkLatency(b *testing.B) {
	b.Run("idle", func(b *testing.B) {
		l := newLatencies(b)
		for b.Loop() {
			l.one()
		}
		l.report(b)
	})
	b.Run("loaded", func(b *testing.B) {
		cores := runtime.NumCPU()
		l := newLatencies(b, fmt.Sprintf("MAYFLY_CPUS=%d", 2*cores))
		for i := range cores {
			l.p.publish("default", fmt.Sprintf(`{"id": "busy%d", "shell": "while :; do :; done", "labels": {"kind": "busy"}, "resources": {"cpu": 1.5, "memory": "16MiB"}}`, i))
		}
		l.host.until("all are busy", func() bool { return l.host.running() == cores })
		for b.Loop() {
			l.one()
		}
		l.report(b)
		l.host.expect(0, "", "", "cancel", "--label", "kind=busy")
		l.p.waitFor("the ends of the busy ones", func() bool { return l.p.total == l.ran+cores })
	})
}

// BenchmarkZero measures how long a host that has nothing more to do still holds something beside its manager, and how soon the next task begins after that.
func BenchmarkZero(b *testing.B) {
	l := newLatencies(b)
	var emptied time.Duration
	for b.Loop() {
		since := time.Now()
		l.host.keeperEnds()
		emptied += time.Since(since)
		l.one()
	}
	b.ReportMetric(emptied.Seconds()/float64(b.N), "to-zero-s")
	l.report(b)
	b.ReportMetric(0, "ns/op")
}

// keeperEnds waits until the keeper is no more, if there is one.
func (h *host) keeperEnds() {
	h.tb.Helper()
	pid := h.keeperPID()
	if pid == 0 {
		return
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return
	}
	if err != nil {
		h.tb.Fatal(err)
	}
	defer unix.Close(fd)
	limit := time.Now().Add(patienceLimit)
	for {
		// Readable when the process has ended: pidfd_open(2). The runtime's signals interrupt it.
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(max(0, time.Until(limit).Milliseconds())))
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			h.tb.Fatal(err)
		case n == 0:
			h.tb.Fatal("the keeper stays")
		default:
			return
		}
	}
}
