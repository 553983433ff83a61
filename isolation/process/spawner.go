package process

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/mayfly/mayfly/internal/rest"
	"github.com/mayfly/mayfly/isolation"
)

// Program is what to fork.
type Program struct {
	// Args is the argument vector; Args[0] is looked up in the PATH of Env when it holds no slash.
	Args []string
	// Env is the whole environment.
	Env []string
	// Dir is the working directory.
	Dir string
	// Files are descriptors of ours that become its 0, 1 and 2.
	Files [3]int
	// Cgroup is the directory of the version 2 control group to be born in, or nil.
	Cgroup *os.File
	// Join are opened files to which the child writes that it joins, before it is the program: of version 1 control groups.
	Join []*os.File
	// Place is a small number that no program beside this one has. It chooses the user.
	Place int
	// Private is what Spawner.Private made for it, or nil.
	Private *Private
	// NoNetwork gives it a network of its own.
	NoNetwork bool
	// Born, if not nil, is set to the PID as soon as there is a process, while what makes it the program may still be held up, by a file system that does not
	// answer, say. Whoever ends it then has Start return, as if it had begun. Before Linux 5.5 it is never set.
	Born *atomic.Int32
	// Once says that what is private to it is not kept for the next program of its place. Then it takes fewer open files while it runs.
	Once bool
}

// Spawner forks programs.
type Spawner struct {
	policy Policy
	pid    int               // ours
	jobs   chan job          // for threads that fork
	making chan func() error // for one that makes namespaces
	made   chan error        // what comes of it
	wg     sync.WaitGroup

	desks []desk // one for each thread that forks, or none at all
	low   int    // above all of their descriptors
	blank int    // what lies there else

	files       unix.Rlimit
	filter      []syscall.SockFilter
	key         key
	ruleset     *os.File
	changesUser bool
	separates   bool  // namespaces can be made
	networks    bool  // their networks can be set up
	disks       bool  // file systems in files can be made
	home        *room // where the threads are
	missing     []Missing

	mu     sync.Mutex
	closed bool
	places map[int]*Private // for the next program, by place
	last   int              // the highest place that was ever used
}

type job struct {
	child *child
	reply chan<- result
}

type result struct {
	pid int
	err error
}

// NewSpawner starts n threads that fork, confined by the policy as far as the host allows: Effective and Missing tell. They
// must not end while a program lives that is to die with its parent: Close kills.
func NewSpawner(n int, p Policy) (*Spawner, error) {
	s := &Spawner{policy: p, pid: os.Getpid(), jobs: make(chan job), making: make(chan func() error), made: make(chan error), key: newKey(), places: map[int]*Private{}}
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &s.files); err != nil {
		return nil, fmt.Errorf("cannot read the limit of open files: %w", err)
	}
	if err := s.setDesks(n); err != nil {
		return nil, err
	}
	if !p.Off {
		s.look()
	}
	ready := make(chan error)
	threads := []func(chan<- error){s.make}
	for i := range n {
		threads = append(threads, func(ready chan<- error) { s.serve(ready, i) })
	}
	for len(threads) > 0 {
		s.wg.Go(func() { threads[0](ready) })
		err := <-ready
		switch {
		case err == nil:
			threads = threads[1:]
		case s.separates:
			s.separates, s.disks = false, false // and once more without, on another thread
			s.missing = append(s.missing, Missing{PartMounts, err})
		default:
			s.Close()
			return nil, err
		}
	}
	return s, nil
}

// serve forks on a thread of its own, the n-th one. Never unlocked: the thread ends with the goroutine, and with it all that it forked.
func (s *Spawner) serve(ready chan<- error, n int) {
	runtime.LockOSThread()
	// Programs inherit it, whatever we were started with.
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(rest.Slack), 0, 0, 0) // never fails
	err := s.confine()
	if err == nil && s.filter != nil {
		if failed := install(s.filter); failed != nil {
			s.filter = nil
			s.missing = append(s.missing, Missing{PartSeccomp, failed})
		}
	}
	ready <- err
	if err != nil {
		return // a thread in between is of no use
	}
	var d *desk
	if s.desks != nil {
		d = &s.desks[n]
	}
	for j := range s.jobs {
		pid, err := s.bear(j.child, d)
		j.reply <- result{pid, err}
	}
}

// make makes namespaces on a thread of its own, which is where the others are, but has no filter.
func (s *Spawner) make(ready chan<- error) {
	runtime.LockOSThread()
	err := s.confine()
	ready <- err
	if err != nil {
		return
	}
	for do := range s.making {
		s.made <- do()
	}
}

// Close ends the threads, and with them every program that they forked and that still runs.
func (s *Spawner) Close() {
	close(s.jobs)
	close(s.making)
	s.wg.Wait()
	s.clearDesks()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for _, p := range s.places {
		p.drop()
	}
	s.home.close()
	if s.ruleset != nil {
		s.ruleset.Close()
	}
}

// Own makes the program's own directory on the host and gives it to its user. It is for hosts without private file systems.
func (s *Spawner) Own(spec *isolation.Spec, place int) error {
	if err := isolation.Lay(spec); err != nil || !s.changesUser || spec.Private == "" {
		return err
	}
	uid, gid := s.policy.Users.Of(place)
	err := os.Lchown(spec.Private, int(uid), int(gid))
	for _, name := range spec.Dirs {
		if err == nil {
			err = os.Lchown(filepath.Join(spec.Private, name), int(uid), int(gid))
		}
	}
	if err != nil {
		return fmt.Errorf("cannot give the program its directory: %w", err)
	}
	return nil
}

// StartError says why a program could not be started: the program's fault, or its producer's.
type StartError struct{ reason string }

func (e *StartError) Error() string { return e.reason }

// Start forks the program in a session of its own, to be killed with its parent, and returns its PID once it runs. The
// caller reaps it. The error is a *StartError where the program cannot be started as it is described; any other one is
// the host's.
func (s *Spawner) Start(p *Program) (pid int, err error) {
	path, err := lookPath(p.Args[0], p.Env, p.Dir, p.Private)
	if err != nil {
		return 0, err
	}
	if err := s.give(p); err != nil {
		return 0, err
	}
	c := &child{cgroup: -1, born: p.Born}
	if p.Cgroup != nil {
		c.cgroup = int(p.Cgroup.Fd())
	}
	s.prepare(c, p, path)
	reply := make(chan result, 1)
	s.jobs <- job{child: c, reply: reply}
	r := <-reply
	runtime.KeepAlive(p)
	if r.err == nil {
		p.Private.begun(p.Once)
		return r.pid, nil
	}
	return 0, classify(p, path, r.err)
}

// give lets the program's user open its standard files anew, by the names /dev/stdin, /dev/stdout and /dev/stderr: its pipes
// are its own, and the file that it reads its group's, so that it cannot write there.
func (s *Spawner) give(p *Program) error {
	if !s.changesUser {
		return nil
	}
	uid, gid := s.policy.Users.Of(p.Place)
	for _, f := range p.Files {
		var st unix.Stat_t
		if err := unix.Fstat(f, &st); err != nil {
			return fmt.Errorf("cannot look at a standard file: %w", err)
		}
		var err error
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFIFO:
			err = unix.Fchown(f, int(uid), int(gid))
		case unix.S_IFREG:
			if err = unix.Fchown(f, 0, int(gid)); err == nil {
				err = unix.Fchmod(f, 0o640)
			}
		}
		if err != nil {
			return fmt.Errorf("cannot give the program its standard files: %w", err)
		}
	}
	return nil
}

// classify tells what the program is to blame for from what the host is.
func classify(p *Program, path string, err error) error {
	name := p.Args[0]
	var failed *stepError
	if !errors.As(err, &failed) {
		return err
	}
	if failed.step == unix.SYS_CHDIR {
		return &StartError{fmt.Sprintf("cannot start in the working directory %s: %v", p.Dir, reason(failed.errno))}
	}
	if failed.step == unix.SYS_FACCESSAT {
		return &StartError{fmt.Sprintf("cannot start %s: %v", name, reason(failed.errno))}
	}
	if failed.step == unix.SYS_EXECVE {
		switch failed.errno {
		case syscall.ENOENT:
			if p.Private != nil && !p.Private.shows(path) {
				return &StartError{fmt.Sprintf("cannot start %s: %s is not to be seen from within the sandbox", name, path)}
			}
			// The file is there: its interpreter is what lacks.
			return &StartError{fmt.Sprintf("cannot start %s: the interpreter that %s names does not exist", name, path)}
		case syscall.E2BIG:
			return &StartError{fmt.Sprintf("cannot start %s: its arguments and environment are longer than the kernel takes", name)}
		case syscall.ENOEXEC:
			return &StartError{fmt.Sprintf("cannot start %s: %s is neither a program for this machine nor a script with a #! line", name, path)}
		case syscall.EACCES:
			return &StartError{fmt.Sprintf("cannot start %s: it is a directory, or nothing that the worker's user may execute", name)}
		}
		if slices.Contains([]syscall.Errno{syscall.EPERM, syscall.ELOOP, syscall.ENOTDIR, syscall.ETXTBSY, syscall.ENAMETOOLONG}, failed.errno) {
			return &StartError{fmt.Sprintf("cannot start %s: %v", name, failed.errno)}
		}
	}
	return fmt.Errorf("cannot start a process for %s: %w", name, err)
}
