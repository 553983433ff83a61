package container

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/registry"
	"github.com/docker/docker/pkg/stdcopy"
	"golang.org/x/sys/unix"

	"github.com/mayfly/mayfly/internal/logkey"
	"github.com/mayfly/mayfly/isolation"
)

// unfold reads user and password from where the docker command writes both.
func unfold(auth *registry.AuthConfig) error {
	if auth.Auth == "" {
		return nil
	}
	pair, err := base64.StdEncoding.DecodeString(auth.Auth)
	if err != nil {
		return err
	}
	user, password, ok := strings.Cut(string(pair), ":")
	if !ok {
		return errors.New("auth is not user:password")
	}
	auth.Username, auth.Password, auth.Auth = user, password, ""
	return nil
}

// logSize is how large the engine may let its log of a container become, in bytes: the log is JSON, which takes several bytes for one
// of some kinds, and holds both streams.
func logSize(output int64) int64 { return 4*output + 1<<20 }

// readAgain is how much a container may have said, in bytes, to be read again at its end.
const readAgain = 1 << 20

// output says what of the program's output was not kept, and of what is within bounds, why.
type output struct {
	stdoutDropped, stderrDropped int64
	fault                        error
}

// again is the pause before a log is read anew.
const again = 100 * time.Millisecond

// lookLimit is how old a container must be for its output to be followed. The output of one that ends sooner is read then.
const lookLimit = 300 * time.Millisecond

// takeOutput copies what the container says to the files, from its beginning to its end; or, once it is to give up, to where it is.
func (r *run) takeOutput(ctx, giveUp context.Context, ended <-chan struct{}) output {
	stdout, err := newCapped(r.spec.Stdout, r.spec.OutputMax)
	if err != nil {
		r.engine.config.Log.Error("output not kept", "program", r.spec.ID, logkey.Err, err)
		return output{fault: err}
	}
	defer stdout.finish()
	stderr := stdout
	if r.spec.Stderr != r.spec.Stdout {
		if stderr, err = newCapped(r.spec.Stderr, r.spec.OutputMax); err != nil {
			r.engine.config.Log.Error("output not kept", "program", r.spec.ID, logkey.Err, err)
			return output{fault: err}
		}
		defer stderr.finish()
	}
	read := func(ctx context.Context, follow bool) error {
		stdout.rewind()
		stderr.rewind()
		logs, err := r.engine.docker.ContainerLogs(ctx, r.id, container.LogsOptions{ShowStdout: true, ShowStderr: true, Follow: follow})
		if err == nil {
			_, err = stdcopy.StdCopy(stdout, stderr, logs)
			logs.Close()
		}
		return err
	}
	select {
	case <-ended: // one look is enough
		_ = read(ctx, false)
	case <-time.After(lookLimit):
		r.follow(ctx, giveUp, ended, read)
		// Who follows the log of a container is told too early that it is over, now and then.
		if stdout.kept+stdout.dropped+stderr.kept+stderr.dropped < readAgain {
			_ = read(ctx, false)
		}
	}
	out := output{stdoutDropped: stdout.dropped, fault: cmp.Or(stdout.fault, stderr.fault)}
	if stderr != stdout {
		out.stderrDropped = stderr.dropped
	}
	return out
}

// follow reads the log until the container has ended, and anew when the engine was away.
func (r *run) follow(ctx, giveUp context.Context, ended <-chan struct{}, read func(ctx context.Context, follow bool) error) {
	for {
		err := read(giveUp, true)
		select {
		case <-giveUp.Done():
			_ = read(ctx, false)
			return
		case <-ended:
			if err == nil {
				return
			}
		case <-time.After(again): // the stream also ends when the engine does, and what failed at once fails at once again
		}
		_ = r.engine.comeBack(giveUp, r.spec.ID)
	}
}

// capped is a file that takes a number of bytes and counts the others.
type capped struct {
	file          *os.File
	max           int64
	kept, dropped int64
	fault         error // why the file takes no more
}

func newCapped(path string, most int64) (*capped, error) {
	f, err := isolation.Create(path, os.O_TRUNC|unix.O_NOFOLLOW)
	if err != nil {
		return nil, fmt.Errorf("cannot make the output file: %w", err)
	}
	return &capped{file: f, max: most}, nil
}

// Write implements io.Writer. It never fails: a full disk must not stop the reading.
func (c *capped) Write(p []byte) (int, error) {
	take := min(int64(len(p)), c.max-c.kept)
	if take > 0 {
		n, err := c.file.Write(p[:take])
		c.kept += int64(n)
		if err != nil {
			c.max, c.fault = c.kept, err
		}
		take = int64(n)
	}
	c.dropped += int64(len(p)) - max(0, take)
	return len(p), nil
}

// rewind begins anew.
func (c *capped) rewind() {
	_, _ = c.file.Seek(0, io.SeekStart)
	_ = c.file.Truncate(0)
	c.kept, c.dropped = 0, 0
}

// finish notes in the file how much is missing.
func (c *capped) finish() {
	if c.dropped > 0 {
		fmt.Fprintf(c.file, isolation.Notice, c.kept, c.dropped)
	}
	c.file.Close()
}
