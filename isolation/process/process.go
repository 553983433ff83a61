// Package process forks programs.
//
// # Theory of operation
//
// A worker's parent-death signal fires when the *thread* that forked it ends, not the process. So programs are forked from
// a few threads that live for as long as their Spawner, each locked to a goroutine. Such a thread is also the place where a
// sandbox can be prepared once and inherited by every fork: most of what confines a process belongs to a thread.
package process

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Program is what to fork.
type Program struct {
	// Args is the argument vector; Args[0] is looked up in the PATH of Env when it holds no slash.
	Args []string
	// Env is the whole environment.
	Env []string
	// Dir is the working directory.
	Dir string
	// Files become the descriptors 0, 1 and 2.
	Files [3]*os.File
	// Cgroup is the directory of the control group to be born in, or nil.
	Cgroup *os.File
}

// Spawner forks programs.
type Spawner struct {
	jobs chan job
	wg   sync.WaitGroup
}

type job struct {
	program *Program
	reply   chan<- result
}

type result struct {
	pid int
	err error
}

// NewSpawner starts n threads. They must not end while a program lives that is to die with its parent: Close kills.
func NewSpawner(n int) *Spawner {
	s := &Spawner{jobs: make(chan job)}
	for range n {
		s.wg.Go(s.serve)
	}
	return s
}

func (s *Spawner) serve() {
	// Never unlocked: the thread ends with the goroutine, and with it all that it forked.
	runtime.LockOSThread()
	for j := range s.jobs {
		pid, err := fork(j.program)
		j.reply <- result{pid, err}
	}
}

// Close ends the threads, and with them every program that they forked and that still runs.
func (s *Spawner) Close() {
	close(s.jobs)
	s.wg.Wait()
}

// StartError says why a program could not be started: the program's fault, or its producer's.
type StartError struct{ reason string }

func (e *StartError) Error() string { return e.reason }

// Start forks the program in a session of its own, to be killed with its parent, and returns its PID once it runs. The
// caller reaps it. The error is a *StartError where the program cannot be started as it is described; any other one is
// the host's.
func (s *Spawner) Start(p *Program) (pid int, err error) {
	reply := make(chan result, 1)
	s.jobs <- job{p, reply}
	r := <-reply
	return r.pid, r.err
}

func fork(p *Program) (int, error) {
	if info, err := os.Stat(p.Dir); err != nil {
		return 0, &StartError{fmt.Sprintf("cannot start in the working directory %s: %v", p.Dir, reason(err))}
	} else if !info.IsDir() {
		return 0, &StartError{fmt.Sprintf("cannot start in the working directory %s: it is no directory", p.Dir)}
	}
	path, err := lookPath(p.Args[0], p.Env, p.Dir)
	if err != nil {
		return 0, err
	}
	attr := &syscall.ProcAttr{Dir: p.Dir, Env: p.Env,
		Files: []uintptr{p.Files[0].Fd(), p.Files[1].Fd(), p.Files[2].Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}}
	if p.Cgroup != nil {
		attr.Sys.UseCgroupFD, attr.Sys.CgroupFD = true, int(p.Cgroup.Fd())
	}
	pid, err := syscall.ForkExec(path, p.Args, attr)
	runtime.KeepAlive(p)
	if err == nil {
		return pid, nil
	}
	return 0, classify(p, path, err)
}

// classify tells what the program is to blame for from what the host is.
func classify(p *Program, path string, err error) error {
	name := p.Args[0]
	switch {
	case errors.Is(err, syscall.ENOENT):
		// The file is there: its interpreter is what lacks.
		return &StartError{fmt.Sprintf("cannot start %s: the interpreter that %s names does not exist", name, path)}
	case errors.Is(err, syscall.E2BIG):
		return &StartError{fmt.Sprintf("cannot start %s: its arguments and environment are longer than the kernel takes", name)}
	case errors.Is(err, syscall.ENOEXEC):
		return &StartError{fmt.Sprintf("cannot start %s: %s is neither a program for this machine nor a script with a #! line", name, path)}
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM), errors.Is(err, syscall.ELOOP), errors.Is(err, syscall.ENOTDIR),
		errors.Is(err, syscall.ETXTBSY), errors.Is(err, syscall.ENAMETOOLONG):
		return &StartError{fmt.Sprintf("cannot start %s: %v", name, err)}
	}
	return fmt.Errorf("cannot fork a process for %s: %w", name, err)
}

// lookPath finds a command as execvp does, in the program's own PATH and relative to its own directory.
func lookPath(name string, env []string, dir string) (string, error) {
	if strings.Contains(name, "/") {
		path := name
		if !filepath.IsAbs(path) {
			path = filepath.Join(dir, path)
		}
		if err := executable(path); err != nil {
			return "", &StartError{fmt.Sprintf("cannot start %s: %v", name, reason(err))}
		}
		return path, nil
	}
	search := ""
	for _, pair := range env {
		if value, ok := strings.CutPrefix(pair, "PATH="); ok {
			search = value // the last one counts, as for the shell
		}
	}
	var denied error
	for _, d := range filepath.SplitList(search) {
		if !filepath.IsAbs(d) {
			d = filepath.Join(dir, d)
		}
		path := filepath.Join(d, name)
		err := executable(path)
		if err == nil {
			return path, nil
		}
		if !errors.Is(err, os.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
			denied = err
		}
	}
	if denied != nil {
		return "", &StartError{fmt.Sprintf("cannot start %s: %v", name, denied)}
	}
	return "", &StartError{fmt.Sprintf("cannot start %s: there is no such command in PATH=%s", name, search)}
}

func executable(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if info.IsDir() {
		return fmt.Errorf("%s is a directory", path)
	}
	if unix.Access(path, unix.X_OK) != nil || info.Mode()&0o111 == 0 {
		return fmt.Errorf("%s is not executable", path)
	}
	return nil
}

// reason shortens the words of os for what everybody knows.
func reason(err error) error {
	switch {
	case errors.Is(err, os.ErrNotExist):
		return errors.New("it does not exist")
	case errors.Is(err, os.ErrPermission):
		return errors.New("permission denied")
	}
	return err
}
