package keeper

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
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
	program string // the first of its arguments
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
	err        *stream // the same as out where both go to one file
	timer      *time.Timer
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
	// late says that it was too long in that; aborted, that it was killed in it; aborting, that it is tried.
	late, aborted, aborting bool
}

// emptyLimit is how long the processes of an ended program may take to die. Only one that is stuck in the kernel takes
// longer than milliseconds.
const emptyLimit = 5 * time.Second

const (
	// birthLimit is how long a process may take to be the program. It takes a millisecond, unless a file system does not answer, or somebody holds the program's file.
	birthLimit = 30 * time.Second
	// abortPause is how long a process that is to be stopped may still take for it, and between two tries to end it.
	abortPause = 50 * time.Millisecond
)

// lateWords say of a program that birthLimit was exceeded.
const lateWords = "cannot start %s: it had not begun after %s; the file system of its file or of its working directory does not answer, or somebody keeps the file from being opened"

// begin takes a spec in and starts its program on a goroutine of its own, for that waits for a fork.
func (s *server) begin(spec *isolation.Spec) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.programs[spec.ID] != nil {
		s.send(&frame{Op: opFailed, ID: spec.ID, Error: "cannot run it: the keeper holds another program with this id"})
		return
	}
	p := &program{id: spec.ID, note: spec.Note, program: spec.Args[0], timeout: spec.Timeout, grace: spec.Grace, place: -1,
		own: spec.Private, carry: spec.Carry, carryMax: spec.CarryMax}
	s.programs[p.id] = p
	s.spawning++
	go s.run(p, spec)
}

func (s *server) run(p *program, spec *isolation.Spec) {
	s.births <- struct{}{}
	pid, begun, err := s.fork(p, spec)
	<-s.births

	s.mu.Lock()
	defer s.mu.Unlock()
	s.spawning--
	var fault *process.StartError
	switch {
	case errors.As(err, &fault):
		p.ending = true
		p.exit = &isolation.Exit{StartError: fault.Error(), StartedAt: begun, FinishedAt: time.Now()}
		s.send(&frame{Op: opEnded, ID: p.id, Exit: p.exit})
	case err != nil:
		delete(s.programs, p.id)
		s.send(&frame{Op: opFailed, ID: p.id, Error: err.Error()})
		s.lookIdle()
	case p.aborted: // its end is told when it is reaped
		p.pid, p.started, p.killed = pid, isolation.Started{PID: pid, At: begun}, true
		s.byPID[pid] = p
		if p.cancelled {
			p.stopped, p.late = isolation.Asked, false
		}
		if early, ok := s.takeEarly(pid); ok {
			s.reaped(p, early)
		}
	default:
		p.late = false // not as late as that
		p.pid, p.started = pid, isolation.Started{PID: pid, At: begun}
		s.byPID[pid] = p
		s.send(&frame{Op: opStarted, ID: p.id, Started: &p.started})
		if p.timeout > 0 {
			p.timer = time.AfterFunc(p.timeout, func() { s.stop(p, isolation.TimedOut, false) })
		}
		if p.cancelled {
			kill := p.kill
			go s.stop(p, isolation.Asked, kill)
		}
		if early, ok := s.takeEarly(pid); ok {
			s.reaped(p, early)
		}
	}
	if s.spawning == 0 {
		clear(s.early) // orphans that nobody waits for
	}
}

// fork prepares the program's files and group and forks it. begun is when it was forked.
func (s *server) fork(p *program, spec *isolation.Spec) (pid int, begun time.Time, err error) {
	var files [3]int
	var opened []int
	defer func() {
		for _, f := range opened {
			unix.Close(f)
		}
		if err != nil {
			s.discard(p)
		}
	}()
	// Opened anew for each, the null device, too: programs that share an open file share its flags.
	input := cmp.Or(spec.Stdin, os.DevNull)
	if files[0], err = unix.Open(input, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0); err != nil {
		return 0, begun, fmt.Errorf("cannot open the standard input: %w", &os.PathError{Op: "open", Path: input, Err: err})
	}
	opened = append(opened, files[0])
	if p.out, files[1], err = s.pump.watch(spec.Stdout, spec.OutputMax); err != nil {
		return 0, begun, err
	}
	opened = append(opened, files[1])
	if p.err, files[2] = p.out, files[1]; spec.Stderr != spec.Stdout {
		if p.err, files[2], err = s.pump.watch(spec.Stderr, spec.OutputMax); err != nil {
			return 0, begun, err
		}
		opened = append(opened, files[2])
	}
	p.place = s.places.Lend()
	var birth *os.File
	var join []*os.File
	if s.groups != nil {
		l := spec.Limits
		limits := cgroup.Limits{MilliCPU: l.MilliCPU, Cores: l.Cores, Memory: l.Memory, PIDs: l.PIDs}
		for _, d := range spec.Closed {
			limits.Closed = append(limits.Closed, cgroup.Device{Block: d.Block, Major: d.Major, Minor: d.Minor})
		}
		if p.group, err = s.groups.Lend(limits); err != nil {
			return 0, begun, err
		}
		birth, join = p.group.Birth(), p.group.Join()
	} else if len(spec.Closed) > 0 {
		return 0, begun, errors.New("cannot close devices to a program: there are no control groups here")
	}
	p.private, err = s.spawner.Private(spec, p.place, process.Images{Dir: s.dir, Run: s.command})
	if err == nil && p.private == nil {
		err = s.spawner.Own(spec, p.place)
	}
	if err != nil {
		return 0, begun, err
	}
	env := slices.Concat(spec.Env, []string{markName + "=" + s.mark + p.id})
	once := p.place >= s.kept
	begun = time.Now() // before the fork: a quick program has ended before we hear that it began
	watch := time.AfterFunc(s.birthLimit, func() { s.overdue(p) })
	pid, err = s.spawner.Start(&process.Program{Args: spec.Args, Env: env, Dir: spec.Dir, Files: files, Cgroup: birth, Join: join,
		Place: p.place, Private: p.private, NoNetwork: spec.NoNetwork, Once: once, Born: &p.born})
	watch.Stop()
	if err == nil && once && p.group != nil {
		p.group.Once()
	}
	return pid, begun, err
}

// discard undoes what was prepared for a program that did not start.
func (s *server) discard(p *program) {
	if p.out != nil {
		s.pump.finish(p.out)
	}
	if p.err != nil && p.err != p.out {
		s.pump.finish(p.err)
	}
	s.vacate(p)
	p.out, p.err = nil, nil
}

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
			p.cancelled, p.aborting = true, true
			s.abortLater(p)
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

// overdue ends a process that is not the program after so long.
func (s *server) overdue(p *program) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case p.pid != 0 || p.ending || s.programs[p.id] != p:
		return // it has begun, or failed, just now
	case p.born.Load() == 0: // it waits for others that are held up
		time.AfterFunc(s.birthLimit, func() { s.overdue(p) })
		return
	}
	p.late = true
	s.abort(p)
}

// abort ends the process that is about to be the program, or waits until it is. The lock is held.
func (s *server) abort(p *program) {
	if p.pid != 0 || s.programs[p.id] != p || p.ending || p.aborting {
		return
	}
	p.aborting = true
	if pid := int(p.born.Load()); pid != 0 && unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil) == nil { // still our child, then: reaping takes the lock
		p.aborted = unix.Kill(pid, unix.SIGKILL) == nil
	}
	s.abortLater(p)
}

// abortLater tries that after a while. The lock is held.
func (s *server) abortLater(p *program) {
	time.AfterFunc(abortPause, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		p.aborting = false
		s.abort(p)
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
	if p.late {
		exit.StartError = fmt.Sprintf(lateWords, p.program, s.birthLimit)
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
