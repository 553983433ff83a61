package main

import (
	"context"
	"fmt"
	"log/slog"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/mayfly/mayfly/internal/logkey"
	"github.com/mayfly/mayfly/internal/secret"
	"github.com/mayfly/mayfly/isolation/container"
	"github.com/mayfly/mayfly/isolation/process"
	"github.com/mayfly/mayfly/manager"
	"github.com/mayfly/mayfly/worker/keeper"
)

// dockerPatience is how long Docker may take to answer at the start.
const dockerPatience = 5 * time.Second

// openContainers returns the engine that runs images, or why there is none, in words that follow "this host ".
func openContainers(ctx context.Context, c *config, p process.Policy, cannot manager.Cannot, log *slog.Logger,
	progress func(id, words string)) (engine *container.Engine, why string, err error) {
	if c.Containers == "off" {
		return nil, "runs no containers (MAYFLY_CONTAINERS=off)", nil
	}
	settings := container.Config{Host: c.Docker, Owner: keeper.Name(c.StateDir), Dir: filepath.Join(c.StateDir, "attempts"), Pull: container.Pull(c.Pull),
		Auth: c.RegAuth, Network: c.ContainerNW, Progress: progress, Log: log,
		// From the other end of the range than processes are.
		User: func(n int) (uid, gid uint32) { return p.Users.Of(int(p.Users.Count) - 1 - n%int(p.Users.Count)) }}
	if cannot.Mounts == "" {
		settings.NewMemory = process.NewMemory
	}
	if cannot.Disk == "" {
		settings.NewDisk = process.Images{Dir: c.StateDir, Run: runCommand}.New
	}
	if engine, err = container.New(settings); err != nil {
		return nil, "", fmt.Errorf("cannot use MAYFLY_DOCKER=%s: %w", c.Docker, err)
	}
	answer, cancel := context.WithTimeout(ctx, dockerPatience)
	defer cancel()
	version, err := engine.Ping(answer)
	if err == nil {
		if err := readable(c.RegAuth); err != nil {
			_ = engine.Close()
			return nil, "", err
		}
		log.Info("images are run by Docker", "version", version)
		return engine, "", nil
	}
	_ = engine.Close()
	if c.Containers == "on" {
		return nil, "", fmt.Errorf("%w; start it, or set MAYFLY_CONTAINERS=auto", err)
	}
	log.Info("images are not run", logkey.Reason, err.Error())
	return nil, "runs no containers: " + err.Error(), nil
}

// readable refuses registries' credentials that no pull would get, before there is a task that wants one.
func readable(credentials string) error {
	if credentials == "" {
		return nil
	}
	_, err := secret.Read("MAYFLY_REGISTRY_AUTH", credentials)
	return err
}

// runCommand runs a command of the host.
func runCommand(args ...string) error {
	cmd := exec.CommandContext(context.Background(), args[0], args[1:]...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	if path, err := exec.LookPath("/usr/sbin/" + args[0]); err == nil {
		cmd.Path, cmd.Err = path, nil
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("cannot run %s: %w: %s", args[0], err, out)
	}
	return nil
}
