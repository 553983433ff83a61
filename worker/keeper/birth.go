package keeper

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mayfly/mayfly/isolation"
	"github.com/mayfly/mayfly/isolation/cgroup"
	"github.com/mayfly/mayfly/isolation/process"
)

const (
	// birthLimit is how long a process may take to be the program. It takes a millisecond, unless a file system does not answer, or somebody holds the program's file.
	birthLimit = 30 * time.Second
	// abortPause is how long a process that is to be stopped may still take for it, and between two tries to end it.
	abortPause = 50 * time.Millisecond
)

// lateWords say of a program that birthLimit was exceeded.
const lateWords = "cannot start it: it had not begun after %s; the file system of its file or of its working directory does not answer, or somebody keeps the file from being opened"

// begin takes a spec in and starts its program on a goroutine of its own, for that waits for a fork.
func (s *server) begin(spec *isolation.Spec) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.programs[spec.ID] != nil {
		s.send(&frame{Op: opFailed, ID: spec.ID, Error: "cannot run it: the keeper holds another program with this id"})
		return
	}
	p := &program{id: spec.ID, note: spec.Note, timeout: spec.Timeout, grace: spec.Grace, place: -1,
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
	if p.timer != nil {
		p.timer.Stop()
		p.timer = nil
	}
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
	default:
		p.pid, p.started = pid, isolation.Started{PID: pid, At: begun}
		s.byPID[pid] = p
		if p.aborted { // all that is told is its end, when it is reaped
			if p.killed = true; p.cancelled {
				p.stopped = isolation.Asked
			}
		} else {
			s.begun(p)
		}
		if early, ok := s.takeEarly(pid); ok {
			s.reaped(p, early)
		}
	}
	if s.spawning == 0 {
		clear(s.early) // orphans that nobody waits for
	}
}

// begun tells of a program that runs, and begins to wait for its end. The lock is held.
func (s *server) begun(p *program) {
	s.send(&frame{Op: opStarted, ID: p.id, Started: &p.started})
	if p.timeout > 0 {
		p.timer = time.AfterFunc(p.timeout, func() { s.stop(p, isolation.TimedOut, false) })
	}
	if p.cancelled {
		kill := p.kill
		go s.stop(p, isolation.Asked, kill)
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
	s.watchBirth(p)
	pid, err = s.spawner.Start(&process.Program{Args: spec.Args, Env: env, Dir: spec.Dir, Files: files, Cgroup: birth, Join: join,
		Place: p.place, Private: p.private, NoNetwork: spec.NoNetwork, Once: once, Born: &p.born})
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

// watchBirth has a process that is not the program soon be ended.
func (s *server) watchBirth(p *program) {
	s.mu.Lock()
	defer s.mu.Unlock()
	limit := s.birthLimit
	if p.cancelled {
		limit = abortPause
	}
	p.timer = time.AfterFunc(limit, func() { s.abort(p) })
}

// abort ends a process that is not the program yet, though it was to be by now, or is to be stopped.
func (s *server) abort(p *program) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.pid != 0 || p.ending || s.programs[p.id] != p {
		return // it has begun, or failed, just now
	}
	pid := int(p.born.Load())
	if pid == 0 && !p.cancelled { // it waits for others that are held up
		p.timer.Reset(s.birthLimit)
		return
	}
	// Our child as long as that can be waited for: reaping takes the lock.
	if pid != 0 && unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil) == nil && unix.Kill(pid, unix.SIGKILL) == nil {
		p.aborted = true
	}
	p.timer.Reset(abortPause)
}
