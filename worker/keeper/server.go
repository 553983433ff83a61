package keeper

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mayfly/mayfly/internal/logkey"
	"github.com/mayfly/mayfly/internal/rest"
	"github.com/mayfly/mayfly/internal/slots"
	"github.com/mayfly/mayfly/isolation"
	"github.com/mayfly/mayfly/isolation/cgroup"
	"github.com/mayfly/mayfly/isolation/process"
	"github.com/mayfly/mayfly/isolation/systemd"
)

const (
	// spawners is the number of threads that fork. Two keep two cores busy; a fork blocks its thread for half a millisecond.
	spawners = 4
	// firstClient is how long a new keeper waits for the client that started it.
	firstClient = 10 * time.Second
	// acceptPause is the time between two tries to accept a client.
	acceptPause = 100 * time.Millisecond
	// restAfter is how long nothing must have happened for memory to be given back, spareHeap how much garbage there may be, in bytes.
	restAfter = 5 * time.Second
	spareHeap = 4 << 20
	// lockLimit is how long a keeper that is about to end may still hold the lock.
	lockLimit = 5 * time.Second
)

// server is the keeper.
type server struct {
	dir        string
	mark       string
	log        *slog.Logger
	groups     *cgroup.Root // nil where there are none
	spawner    *process.Spawner
	pump       *pump
	quiet      *rest.Rest
	births     chan struct{} // a place for each program that is prepared
	kept       int           // of how many places namespaces and groups are kept for the next program: of the first ones
	birthLimit time.Duration
	done       chan struct{} // closed when the keeper is to end

	mu       sync.Mutex
	programs map[string]*program
	byPID    map[int]*program
	spawning int
	places   slots.Slots
	commands map[int]chan status // of the host, by PID
	early    map[int]status      // of children whose fork has not been noted yet
	client   *peer               // nil while there is none
	ending   bool
}

// noCgroups, in the keeper's environment, has it do without control groups: for tests of hosts that have none.
const noCgroups = "MAYFLY_TEST_NO_CGROUPS"

// birthLimitOf, in the keeper's environment, is a birthLimit for tests.
const birthLimitOf = "MAYFLY_TEST_BIRTH_LIMIT"

// Main is the keeper's whole life: `mayfly keeper DIR`. It serves until it holds nothing and has no client or is told to
// quit. Descriptor 3 is where it tells the client that started it how that went: nothing when all is well.
func Main(args []string) error {
	rest.Leeway(spareHeap)
	ready := os.NewFile(3, "ready")
	s, listener, err := open(args)
	if err != nil {
		fmt.Fprint(ready, err)
		return err
	}
	ready.Close()
	return s.serve(listener)
}

func open(args []string) (*server, net.Listener, error) {
	if len(args) != 1 {
		return nil, nil, errors.New("cannot start a keeper by hand: the manager does that")
	}
	dir := args[0]
	if err := lock(dir); err != nil {
		return nil, nil, err
	}
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return nil, nil, fmt.Errorf("cannot become the parent of orphans: %w", err)
	}
	syscall.Umask(0o022)
	for _, sig := range []os.Signal{syscall.SIGHUP, syscall.SIGINT} {
		if signal.Ignored(sig) { // by whoever started the manager, as nohup does: workers are not to inherit that, as they inherit no handler
			signal.Notify(make(chan os.Signal, 1), sig)
		}
	}
	// A worker's core dump is nobody's to read; limits are inherited.
	if err := syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{}); err != nil {
		return nil, nil, fmt.Errorf("cannot forbid core dumps: %w", err)
	}
	s := &server{dir: dir, mark: markOf(dir), log: slog.New(slog.NewTextHandler(os.Stderr, nil)), done: make(chan struct{}), birthLimit: birthLimit,
		quiet: rest.New(restAfter, rest.Trim, nil), programs: map[string]*program{}, byPID: map[int]*program{}, early: map[int]status{}, commands: map[int]chan status{}}
	if d, err := time.ParseDuration(os.Getenv(birthLimitOf)); err == nil {
		s.birthLimit = d
	}
	var err error
	if s.pump, err = newPump(); err != nil {
		return nil, nil, err
	}
	if os.Getenv(noCgroups) == "" {
		s.settleDown()
		s.groups, err = cgroup.Find(groupName(dir))
		if err != nil {
			s.log.Warn("doing without control groups", logkey.Err, err)
		} else if err := os.WriteFile(filepath.Join(dir, placeName), []byte(s.groups.Place()), 0o600); err != nil {
			return nil, nil, fmt.Errorf("cannot note the place of the control groups: %w", err)
		}
	}
	var listener net.Listener
	err = throughDir(dir, socketName, func(path string) error {
		_ = os.Remove(path) // we hold the lock: whoever bound it is gone
		var err error
		listener, err = net.Listen("unix", path)
		return err
	})
	if err != nil {
		return nil, nil, fmt.Errorf("cannot listen: %w", err)
	}
	policy, err := readPolicy()
	if err != nil {
		return nil, nil, err
	}
	if s.spawner, err = process.NewSpawner(spawners, policy); err != nil {
		return nil, nil, err
	}
	raiseFiles() // the spawner knows what the limit of programs is
	births, kept := places(filesMost())
	s.births, s.kept = make(chan struct{}, births), kept
	for _, m := range s.spawner.Missing() {
		s.log.Warn("doing without a part of the sandbox", "part", m.Part, logkey.Err, m.Err)
	}
	return s, listener, nil
}

// scopeLimit is how long systemd may take to make a scope.
const scopeLimit = 10 * time.Second

// settleDown goes to where control groups can be made that outlive the manager's service.
func (s *server) settleDown() {
	if !systemd.Booted() || os.Geteuid() != 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), scopeLimit)
	defer cancel()
	name := fmt.Sprintf("%s-%d.scope", groupName(s.dir), os.Getpid())
	if err := systemd.Scope(ctx, name, "Workers of Mayfly in "+s.dir); err != nil {
		s.log.Warn("staying in the manager's control group: workers may not outlive its service", logkey.Err, err)
	}
}

// lock makes sure that there is one keeper per directory. The lock goes with the process.
func lock(dir string) error {
	fd, err := unix.Open(filepath.Join(dir, lockName), unix.O_CREAT|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return fmt.Errorf("cannot open the keeper's lock: %w", err)
	}
	for end := time.Now().Add(lockLimit); ; <-time.After(5 * time.Millisecond) {
		err = unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
		if err == nil || !errors.Is(err, unix.EWOULDBLOCK) || time.Now().After(end) {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("cannot start: another keeper serves %s", dir)
	}
	return nil
}

func groupName(dir string) string { return "mayfly-" + markOf(dir)[:8] }

// serve answers clients and reaps children until the keeper is to end.
func (s *server) serve(l net.Listener) error {
	children := make(chan os.Signal, 1)
	signal.Notify(children, syscall.SIGCHLD)
	go s.accept(l)
	first := time.AfterFunc(firstClient, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.lookIdle()
	})
	defer first.Stop()
	for {
		select {
		case <-children:
			s.reap()
		case <-s.done:
			if s.groups != nil {
				s.groups.Close()
			}
			_ = killAll(emptyLimit, func() []int { return markedProcesses(s.mark, false) })
			for _, name := range []string{socketName, placeName} {
				os.Remove(filepath.Join(s.dir, name))
			}
			return nil
		}
	}
}

// reap takes the status of every child that has ended: leaders, and orphans that came to us as the subreaper. To wait for
// any child is right here and only here: this process has no other children.
func (s *server) reap() {
	for s.reapOne() {
	}
}

func (s *server) reapOne() (more bool) {
	s.mu.Lock() // so that what has been reaped is known to be
	defer s.mu.Unlock()
	var st status
	pid, err := syscall.Wait4(-1, &st.wait, syscall.WNOHANG, &st.usage)
	if err == syscall.EINTR {
		return true
	}
	if err != nil || pid <= 0 {
		return false
	}
	st.at = time.Now()
	if p := s.byPID[pid]; p != nil {
		s.reaped(p, st)
	} else if c := s.commands[pid]; c != nil {
		delete(s.commands, pid)
		c <- st
	} else if s.spawning > 0 {
		s.early[pid] = st
	}
	return true
}

// takeEarly returns the status of a child that was reaped before its fork was noted. There may be one of an orphan that had the same PID
// before: a child that is still there to be waited for has none. The lock is held.
func (s *server) takeEarly(pid int) (st status, ok bool) {
	st, ok = s.early[pid]
	delete(s.early, pid)
	if ok && unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil) == nil {
		return status{}, false
	}
	return st, ok
}

// accept takes clients, one at a time: a new one takes over.
func (s *server) accept(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			s.log.Error("client not accepted", logkey.Err, err)
			select {
			case <-s.done:
				return
			case <-time.After(acceptPause): // no descriptor is free
			}
			continue
		}
		if !ours(conn) {
			s.log.Warn("client refused: it is another user's")
			conn.Close()
			continue
		}
		p := newPeer(conn)
		s.mu.Lock()
		old := s.client
		s.mu.Unlock()
		if old != nil {
			old.finish()
		}
		s.mu.Lock()
		if s.ending {
			s.mu.Unlock()
			p.close()
			continue
		}
		s.client = p
		var list []held
		for _, g := range s.programs {
			list = append(list, held{ID: g.id, Note: g.note, Started: g.started, Exit: g.exit, Released: g.released})
		}
		for _, hello := range hellos(list, helloMost) {
			p.send(hello)
		}
		s.mu.Unlock()
		go s.listen(p)
	}
}

// ours reports whether the other end belongs to our user or to root.
func ours(conn net.Conn) bool {
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return false
	}
	ok := false
	_ = raw.Control(func(fd uintptr) {
		cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
		ok = err == nil && (cred.Uid == 0 || int(cred.Uid) == os.Geteuid())
	})
	return ok
}

// listen does what a client asks until it is gone.
func (s *server) listen(p *peer) {
	r := bufio.NewReader(p.conn)
	for {
		f, err := readFrame(r)
		if err != nil {
			if !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
				s.log.Warn("client lost", logkey.Err, err)
			}
			break
		}
		s.handle(f)
	}
	p.close()
	close(p.heard)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.client == p {
		s.client = nil
		s.lookIdle()
	}
}

func (s *server) handle(f *frame) {
	switch f.Op {
	case opRun:
		s.begin(f.Spec)
	case opStop:
		s.mu.Lock()
		p := s.programs[f.ID]
		s.mu.Unlock()
		if p != nil {
			s.stop(p, isolation.Asked, f.Kill)
		}
	case opRelease:
		s.mu.Lock()
		defer s.mu.Unlock()
		if p := s.programs[f.ID]; p != nil && p.exit != nil {
			if p.released = true; !p.left {
				delete(s.programs, f.ID)
			}
		}
		s.lookIdle()
	case opQuit:
		s.mu.Lock()
		defer s.mu.Unlock()
		if len(s.programs) > 0 || s.spawning > 0 {
			s.send(&frame{Op: opBusy})
			return
		}
		s.send(&frame{Op: opBye})
		s.end()
	}
}

// lookIdle ends a keeper that holds nothing and has nobody to serve. The lock is held.
func (s *server) lookIdle() {
	if s.client == nil && len(s.programs) == 0 && s.spawning == 0 {
		s.end()
	}
}

// end lets serve return, once all that was said has been sent. The lock is held.
func (s *server) end() {
	if s.ending {
		return
	}
	s.ending = true
	p := s.client
	go func() {
		if p != nil {
			p.drain()
		}
		close(s.done)
	}()
}

// send tells the client, if there is one. A client that comes later learns it from what is held. The lock is held by most
// callers, so it must not block.
func (s *server) send(f *frame) {
	s.quiet.Stir()
	if p := s.client; p != nil {
		p.send(f)
	}
}
