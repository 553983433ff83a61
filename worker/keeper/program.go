package keeper

import (
	"cmp"
	"errors"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mayfly/mayfly/internal/logkey"
	"github.com/mayfly/mayfly/isolation"
	"github.com/mayfly/mayfly/isolation/cgroup"
	"github.com/mayfly/mayfly/isolation/process"
)

// program is one worker in the keeper's hands. The server's lock guards it.
type program struct {
	id      string
	note    []byte
	timeout time.Duration
	grace   time.Duration
	started isolation.Started
	pid     int
	// place is a small number that no other program has now, or below 0 before it has one. It chooses the user.
	place int
	group *cgroup.Group // nil where there are none
	// private is what it has of the file system to itself; nil where it sees the host's. own and carry are Private and
	// Carry of its spec.
	private    *process.Private
	own, carry string
	carryMax   int64
	out        *stream
	err        *stream     // the same as out where both go to one file
	timer      *time.Timer // for what is next to be waited for: its birth, its timeout, its grace
	stopped    isolation.Stop
	killed     bool
	// ending says that the leader was reaped; exit is set when nothing of it is left.
	ending bool
	exit   *isolation.Exit
	// left says that processes of it do not die; released, that its exit was, and that it is held for them alone.
	left, released bool
	// cancelled says that it is to be stopped as soon as it has a process; kill, without grace.
	cancelled, kill bool
	// born is its process while it is not the program yet; 0 where there is none.
	born atomic.Int32
	// aborted says that it was killed in that: it took too long, or was cancelled.
	aborted bool
}

// emptyLimit is how long the processes of an ended program may take to die. Only one that is stuck in the kernel takes
// longer than milliseconds.
const emptyLimit = 5 * time.Second

// vacate gives back what a program had that has no process any more.
func (s *server) vacate(p *program) {
	p.private.Close() // first, for its files are charged to the group
	if p.group != nil {
		if err := p.group.Return(); err != nil {
			s.log.Error("control group left", "program", p.id, logkey.Err, err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p.private, p.group = nil, nil
	s.places.Return(p.place)
}

// stop begins to stop a program: SIGTERM for all of its processes, its grace, SIGKILL.
func (s *server) stop(p *program, why isolation.Stop, kill bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.ending {
		return
	}
	if p.pid == 0 { // not forked yet
		if p.kill = p.kill || kill; !p.cancelled {
			if p.cancelled = true; p.timer != nil {
				p.timer.Reset(abortPause)
			}
		}
		return
	}
	if p.stopped == isolation.NotStopped {
		if exited(p.pid) {
			return // by itself, and not yet reaped: nobody stopped it
		}
		p.stopped = why
	} else if !kill {
		return // it is being stopped
	}
	if p.timer != nil {
		p.timer.Stop()
	}
	if kill || p.grace == 0 {
		s.kill(p)
		return
	}
	s.signal(p, syscall.SIGTERM)
	s.signal(p, syscall.SIGCONT) // a stopped process takes no SIGTERM
	p.timer = time.AfterFunc(p.grace, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if !p.ending {
			s.kill(p)
		}
	})
}

// exited reports whether a child has ended and waits to be reaped.
func exited(pid int) bool {
	var info unix.Siginfo
	err := unix.Waitid(unix.P_PID, pid, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
	return err == nil && info.Signo != 0
}

func (s *server) kill(p *program) {
	p.killed = true
	if p.group != nil {
		p.group.Kill()
		return
	}
	s.signal(p, syscall.SIGKILL)
}

// signal reaches all processes of a program that has not been reaped, so that its PID is still its own.
func (s *server) signal(p *program, sig syscall.Signal) {
	if p.group != nil {
		p.group.Signal(sig)
		return
	}
	_ = syscall.Kill(-p.pid, sig)
	for _, pid := range s.marked(p.id) {
		_ = syscall.Kill(pid, sig)
	}
}

// status is how a child ended.
type status struct {
	wait  syscall.WaitStatus
	usage syscall.Rusage
	at    time.Time
}

// reaped takes a leader's status; the rest of its program is ended next to it. The lock is held.
func (s *server) reaped(p *program, st status) {
	p.ending = true
	delete(s.byPID, p.pid)
	if p.timer != nil {
		p.timer.Stop()
	}
	exit := &isolation.Exit{Stopped: p.stopped, Killed: p.killed, StartedAt: p.started.At, FinishedAt: st.at,
		CPU:        time.Duration(st.usage.Utime.Nano() + st.usage.Stime.Nano()),
		MemoryPeak: st.usage.Maxrss * 1024} // getrusage(2): in KiB
	if p.aborted && !p.cancelled {
		exit.StartError = fmt.Sprintf(lateWords, s.birthLimit)
	}
	if st.wait.Signaled() {
		exit.Signal = int(st.wait.Signal())
	} else {
		exit.Code = st.wait.ExitStatus()
	}
	go s.finish(p, exit)
}

// finish ends all that the leader left, takes the output and the account, and tells the exit.
func (s *server) finish(p *program, exit *isolation.Exit) {
	var stuck error
	if p.group != nil {
		stuck = p.group.WaitEmpty(emptyLimit)
		account := p.group.Account()
		exit.OOMKills, exit.HostOOM = account.OOMKills, account.Starved
		if account.CPU > 0 {
			exit.CPU = account.CPU
		}
		if account.MemoryPeak > 0 {
			exit.MemoryPeak = account.MemoryPeak
		}
	} else {
		stuck = s.killMarked(p)
	}
	var fault, faultToo error
	exit.StdoutDropped, fault = s.pump.finish(p.out)
	if p.err != p.out {
		exit.StderrDropped, faultToo = s.pump.finish(p.err)
	}
	if fault = cmp.Or(fault, faultToo); fault != nil {
		exit.OutputError = fault.Error()
	}
	if p.private != nil {
		exit.DiskFull = p.private.Full()
		exit.CarryError = carry(p)
	}
	if stuck == nil {
		s.vacate(p)
	} else {
		s.log.Error("processes left", "program", p.id, logkey.Err, stuck)
		exit.Left = stuck.Error()
		go s.await(p)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p.out, p.err, p.timer = nil, nil, nil
	p.exit, p.left = exit, stuck != nil
	s.send(&frame{Op: opEnded, ID: p.id, Exit: exit})
}

// await tries on to end what is left of a program, for as long as it takes. Till then the program keeps its group and its
// user, and is held even when it is released.
func (s *server) await(p *program) {
	for stuck := errLeft; stuck != nil; {
		select {
		case <-s.done:
			return
		default:
		}
		if p.group != nil {
			stuck = p.group.WaitEmpty(emptyLimit)
		} else {
			stuck = s.killMarked(p)
		}
	}
	s.log.Info("nothing left any more", "program", p.id)
	s.vacate(p)
	s.mu.Lock()
	defer s.mu.Unlock()
	p.left = false
	if p.released {
		delete(s.programs, p.id)
	}
	s.send(&frame{Op: opFreed, ID: p.id})
	s.lookIdle()
}

var errLeft = errors.New("processes are left")

// carry brings the file that the caller wants of the program's private directory to where the caller looks for it, and
// returns why not.
func carry(p *program) string {
	rel, err := filepath.Rel(p.own, p.carry)
	if p.carry == "" || err != nil {
		return ""
	}
	from, err := p.private.Open(rel)
	return isolation.Carry(from, err, p.carry, p.carryMax)
}
