package keeper

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mayfly/mayfly/isolation/cgroup"
)

// maxLog is the size in bytes beyond which a new keeper begins its log anew.
const maxLog = 1 << 20

// start starts a keeper and returns when it answers. The keeper is in a session of its own and has nothing of ours: no
// descriptor, no environment, no terminal.
func (c *Client) start(ctx context.Context) error {
	flags := os.O_CREATE | os.O_WRONLY | os.O_APPEND
	logPath := filepath.Join(c.config.Dir, logName)
	if info, err := os.Stat(logPath); err == nil && info.Size() > maxLog {
		flags |= os.O_TRUNC
	}
	log, err := os.OpenFile(logPath, flags, 0o600)
	if err != nil {
		return fmt.Errorf("cannot open the keeper's log: %w", err)
	}
	defer log.Close()
	ready, say, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("cannot make a pipe: %w", err)
	}
	defer ready.Close()
	// Not bound to ctx: the keeper outlives whoever asked for it.
	cmd := exec.Command(c.config.Argv[0], append(c.config.Argv[1:len(c.config.Argv):len(c.config.Argv)], c.config.Dir)...)
	cmd.Args[0] = "mayfly"
	policy, err := json.Marshal(c.config.Policy)
	if err != nil {
		return fmt.Errorf("cannot tell the keeper its policy: %w", err)
	}
	cmd.Env = append([]string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", policyName + "=" + string(policy)}, c.config.Env...)
	cmd.Dir = "/"
	cmd.Stderr = log
	cmd.ExtraFiles = []*os.File{say}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	say.Close()
	if err != nil {
		return fmt.Errorf("cannot start the keeper: %w", err)
	}
	go func() { _ = cmd.Wait() }() // a child of ours as long as we live
	stop := context.AfterFunc(ctx, func() { ready.Close() })
	defer stop()
	said, err := io.ReadAll(ready)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return fmt.Errorf("cannot hear from the keeper: %w", err)
	case len(said) > 0:
		return fmt.Errorf("cannot start the keeper: %s", said)
	}
	return nil
}

// aliveLimit is how long a keeper that was killed may seem alive: a child between fork and exec holds its lock with it.
const aliveLimit = time.Second

// alive reports whether a keeper lives: whoever serves the directory has its lock.
func (c *Client) alive() bool {
	fd, err := unix.Open(filepath.Join(c.config.Dir, lockName), unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	for end := time.Now().Add(aliveLimit); time.Now().Before(end); <-time.After(5 * time.Millisecond) {
		if unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) == nil {
			return false
		}
	}
	return true
}

// sweep kills what a keeper that died has left: its workers got SIGKILL by their parent-death signal, but not what they had
// started. It is found by control group, and by mark.
func (c *Client) sweep() error {
	var failures []error
	place := filepath.Join(c.config.Dir, placeName)
	if text, err := os.ReadFile(place); err == nil {
		if err := cgroup.Sweep(string(text), emptyLimit); err != nil {
			failures = append(failures, err)
		} else {
			os.Remove(place)
		}
	}
	if _, err := os.Lstat(filepath.Join(c.config.Dir, socketName)); err == nil {
		mark := markOf(c.config.Dir)
		failures = append(failures, killAll(emptyLimit, func() []int { return markedProcesses(mark, false) }))
		os.Remove(filepath.Join(c.config.Dir, socketName))
	}
	return errors.Join(failures...)
}
