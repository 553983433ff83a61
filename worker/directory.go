package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/mayfly/mayfly/gpu"
	"github.com/mayfly/mayfly/internal/logkey"
	"github.com/mayfly/mayfly/isolation"
	"github.com/mayfly/mayfly/queue"
)

// maxResult is the largest accepted result file in bytes; the task format sets it.
const maxResult = 1 << 20

// Config is what a runner needs to know of the host.
type Config struct {
	// Dir is where attempts have their directories.
	Dir string
	// OutputMax is the most bytes kept of each output stream of an attempt.
	OutputMax int64
	// Tail is how many bytes of the end of each stream a result carries.
	Tail int64
	// User is what workers find as their user's name.
	User string
	// Devices, if not nil, says which device files the holder of GPUs may open, and which ones nobody but others may.
	Devices func([]gpu.Grant) (open, closed []isolation.Device)
	// Spans says that attempts have spans of their own in the traces that their tasks belong to.
	Spans bool
	Log   *slog.Logger
}

// Files runs attempts in a sandbox, each with a directory of its own under Config.Dir that outlives it.
type Files struct {
	next   Runner
	config Config
}

// New returns the runner of a host: attempts run in sandbox, each in a directory of its own.
func New(sandbox isolation.Sandbox, c Config) *Files {
	r := &Files{config: c}
	r.next = &base{sandbox: sandbox, place: r.place, config: &r.config}
	return r
}

func (r *Files) place(attemptID string) files { return files{filepath.Join(r.config.Dir, attemptID)} }

// Output returns the paths of the attempt's standard output and standard error.
func (r *Files) Output(attemptID string) (stdout, stderr string) {
	f := r.place(attemptID)
	return f.stdout(), f.stderr()
}

// Remove removes all that is kept of an ended attempt.
func (r *Files) Remove(attemptID string) error {
	if attemptID == "" || attemptID == "." || attemptID == ".." || strings.Contains(attemptID, "/") {
		return fmt.Errorf("cannot remove the files of %q: it is no attempt's id", attemptID)
	}
	return os.RemoveAll(r.place(attemptID).dir)
}

// Sweep removes what is kept of all attempts that keep does not know. It must not run beside Run.
func (r *Files) Sweep(keep func(attemptID string) bool) {
	entries, err := os.ReadDir(r.config.Dir)
	if err != nil {
		r.config.Log.Error("attempts not looked through", logkey.Err, err)
		return
	}
	for _, e := range entries {
		if keep(e.Name()) {
			continue
		}
		if err := r.Remove(e.Name()); err != nil {
			r.config.Log.Error("leftover of an attempt not removed", logkey.Attempt, e.Name(), logkey.Err, err)
		}
	}
}

// Run prepares the attempt's directory, runs it, and takes from the directory what belongs to the outcome.
func (r *Files) Run(ctx context.Context, a *Attempt, started func(int, time.Time)) (*Outcome, error) {
	if o := r.before(a); o != nil {
		return o, nil
	}
	o, err := r.next.Run(ctx, a, started) // for long: see base.Run
	if err == nil {
		r.after(a, o)
	}
	return o, err
}

// before makes what the attempt needs; where that fails, it returns the outcome.
func (r *Files) before(a *Attempt) *Outcome {
	if err := r.lay(r.place(a.ID()), a); err != nil {
		return hostLost(err, time.Now())
	}
	return nil
}

// after takes what belongs to the outcome, and removes the rest.
func (r *Files) after(a *Attempt, o *Outcome) {
	f := r.place(a.ID())
	if _, err := os.Lstat(f.dir); errors.Is(err, os.ErrNotExist) {
		return // it has written nothing
	}
	r.collect(f, o)
	if err := r.clear(f); err != nil {
		r.config.Log.Error("scratch directory not removed", logkey.Attempt, a.ID(), logkey.Err, err)
	}
}

// lay clears the place of the attempt and puts its standard input there, unless the attempt is one that an earlier life began: then everything is in use.
// The rest is made by the sandbox, when it is needed: most workers need nothing, and a directory takes longer than a fork.
func (r *Files) lay(f files, a *Attempt) error {
	if a.joined {
		return nil
	}
	if err := r.room(); err != nil {
		return fmt.Errorf("cannot make the attempt's directory: %w", err)
	}
	// A task id that came before may have left a directory of this name.
	if _, err := os.Lstat(f.dir); !errors.Is(err, os.ErrNotExist) {
		if err := os.RemoveAll(f.dir); err != nil {
			return fmt.Errorf("cannot clear the attempt's directory: %w", err)
		}
	}
	in := input(&a.Task)
	if len(in) == 0 {
		return nil
	}
	file, err := isolation.Create(f.stdin(), os.O_EXCL)
	if err == nil {
		_, err = file.Write(in)
		err = errors.Join(err, file.Close())
	}
	if err != nil {
		return fmt.Errorf("cannot write the worker's standard input: %w", err)
	}
	return nil
}

// room says why nothing could be kept of an attempt: a host that is like that is not to run any.
func (r *Files) room() error {
	if err := unix.Access(r.config.Dir, unix.W_OK); err != nil {
		return &os.PathError{Op: "access", Path: r.config.Dir, Err: err}
	}
	var st unix.Statfs_t
	if err := unix.Statfs(r.config.Dir, &st); err == nil && (st.Bfree == 0 || st.Files > 0 && st.Ffree == 0) {
		return &os.PathError{Op: "statfs", Path: r.config.Dir, Err: unix.ENOSPC}
	}
	return nil
}

// clear removes what the worker had, but for its result: a manager that comes back before the attempt is settled reads it again.
func (r *Files) clear(f files) error {
	os.Remove(f.stdin())
	entries, err := os.ReadDir(f.own())
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if path := filepath.Join(f.own(), e.Name()); path != f.result() {
			err = errors.Join(err, os.RemoveAll(path))
		}
	}
	return err
}

// collect reads the result and the ends of the output.
func (r *Files) collect(f files, o *Outcome) {
	result, err := readResult(f.result())
	if err != nil {
		o.note(err.Error())
	}
	o.Result = result
	o.StdoutTail = r.tail(f.stdout())
	o.StderrTail = r.tail(f.stderr())
}

// open opens a file that a worker may have put there: never through a link, never waiting for a pipe's other end.
func open(path string) (*os.File, os.FileInfo, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("it is no regular file")
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, info, nil
}

func readResult(path string) (json.RawMessage, error) {
	f, info, err := open(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, nil
	case errors.Is(err, syscall.ELOOP):
		return nil, errors.New(ignored + "it is a symbolic link")
	case err != nil:
		return nil, fmt.Errorf(ignored+"%w", err)
	}
	defer f.Close()
	if linked(path, info) {
		return nil, errors.New(ignored + "it is another name of another user's file")
	}
	if info.Size() > maxResult {
		return nil, fmt.Errorf(ignored+"it has %d bytes, and at most %d are taken", info.Size(), maxResult)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxResult+1))
	if err != nil {
		return nil, fmt.Errorf(ignored+"%w", err)
	}
	if len(b) == 0 {
		return nil, nil
	}
	if !json.Valid(b) || !utf8.Valid(b) {
		return nil, errors.New(ignored + "it does not hold one JSON value in UTF-8")
	}
	if queue.TooDeep(b) {
		return nil, fmt.Errorf(ignored+"its arrays and objects are nested deeper than %d", queue.MaxDepth)
	}
	return b, nil
}

// linked reports whether a file is a hard link to one that is not the worker's, whose directory it lies in: where workers have no file
// system of their own, that could be a file that only we may read.
func linked(path string, info os.FileInfo) bool {
	dir, err := os.Lstat(filepath.Dir(path))
	if err != nil {
		return true
	}
	file, ok := info.Sys().(*syscall.Stat_t)
	own, ok2 := dir.Sys().(*syscall.Stat_t)
	return !ok || !ok2 || file.Nlink > 1 && file.Uid != own.Uid
}

func (r *Files) tail(path string) string {
	f, info, err := open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	from := max(0, info.Size()-r.config.Tail)
	b := make([]byte, info.Size()-from)
	n, _ := f.ReadAt(b, from)
	return strings.ToValidUTF8(string(b[:n]), "\uFFFD")
}

// Held lists what an earlier life began.
func (r *Files) Held(ctx context.Context) ([]Held, error) {
	held, err := r.next.Held(ctx)
	for i := range held {
		held[i].Attempt.joined = true
	}
	return held, err
}

// Release forgets an ended attempt. Its output stays until Remove.
func (r *Files) Release(attemptID string) { r.next.Release(attemptID) }
