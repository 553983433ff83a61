package container

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/containerd/errdefs"
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

// output says what of the program's output was not kept.
type output struct{ stdoutDropped, stderrDropped int64 }

// again is the pause before a log is read anew.
const again = 100 * time.Millisecond

// takeOutput copies what the container says to the files, from its beginning to its end; or, once following is over, to where it is.
func (r *run) takeOutput(ctx, following context.Context) output {
	stdout, err := newCapped(r.spec.Stdout, r.spec.OutputMax)
	if err != nil {
		r.engine.config.Log.Error("output not kept", "program", r.spec.ID, logkey.Err, err)
		return output{}
	}
	defer stdout.finish()
	stderr := stdout
	if r.spec.Stderr != r.spec.Stdout {
		if stderr, err = newCapped(r.spec.Stderr, r.spec.OutputMax); err != nil {
			r.engine.config.Log.Error("output not kept", "program", r.spec.ID, logkey.Err, err)
			return output{}
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
	for {
		err := read(following, true)
		if following.Err() != nil {
			_ = read(ctx, false)
			break
		}
		c, look := r.engine.docker.ContainerInspect(ctx, r.id)
		if errdefs.IsNotFound(look) {
			break
		}
		// The engine also ends the stream in good order when it goes down itself.
		if err == nil && look == nil && !c.State.Running {
			// Who follows the log of a container that ends soon is told too early that it is over, now and then.
			if stdout.kept+stdout.dropped+stderr.kept+stderr.dropped < readAgain {
				_ = read(ctx, false)
			}
			break
		}
		select {
		case <-time.After(again): // what failed at once fails at once again
		case <-following.Done():
		}
		if err := r.engine.comeBack(following, r.spec.ID); err != nil && ctx.Err() != nil {
			break
		}
	}
	out := output{stdoutDropped: stdout.dropped}
	if stderr != stdout {
		out.stderrDropped = stderr.dropped
	}
	return out
}

// capped is a file that takes a number of bytes and counts the others.
type capped struct {
	file          *os.File
	max           int64
	kept, dropped int64
}

func newCapped(path string, most int64) (*capped, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY|unix.O_NOFOLLOW, 0o600)
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
			c.max = c.kept
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
