package container_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"

	dockertypes "github.com/docker/docker/api/types/container"
	"github.com/docker/docker/client"

	"github.com/mayfly/mayfly/integration/docker"
	"github.com/mayfly/mayfly/isolation"
	"github.com/mayfly/mayfly/isolation/container"
	"github.com/mayfly/mayfly/isolation/process"
)

// BenchmarkContainer compares a container of ours, all settings on, with `docker run --rm` and with the engine's API called plainly, four at a time: compare within one run.
//
//	go test -run '^$' -bench Container -benchtime 60x ./isolation/container
func BenchmarkContainer(b *testing.B) {
	d := docker.Start(b)
	parallel := func(b *testing.B, one func() error) {
		b.SetParallelism(2)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if err := one(); err != nil {
					b.Error(err)
				}
			}
		})
	}
	b.Run("docker-run", func(b *testing.B) {
		parallel(b, func() error {
			return exec.Command("docker", "-H", d.Host, "run", "--rm", "--network", "host", "--memory", "64m", "--init", docker.Image, "/bin/true").Run()
		})
	})
	b.Run("api", func(b *testing.B) {
		c, err := client.NewClientWithOpts(client.WithHost(d.Host), client.WithAPIVersionNegotiation())
		if err != nil {
			b.Fatal(err)
		}
		defer c.Close()
		parallel(b, func() error { return plainly(context.Background(), c) })
	})
	b.Run("engine", func(b *testing.B) {
		dir := b.TempDir()
		e, err := container.New(container.Config{Host: d.Host, Owner: "bench", Dir: dir, Pull: container.PullMissing, Network: "host",
			User: func(n int) (uid, gid uint32) { return 70000 + uint32(n), 70000 + uint32(n) }, NewMemory: process.NewMemory, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			b.Fatal(err)
		}
		defer e.Close()
		var next atomic.Int64
		parallel(b, func() error {
			id := fmt.Sprint("b", next.Add(1))
			own := filepath.Join(dir, id, "work")
			x, err := e.Run(context.Background(), &isolation.Spec{ID: id, Image: docker.Image, Args: []string{"/bin/true"}, Private: own, Dirs: []string{"scratch"}, OutputMax: 1 << 20,
				Stdout: filepath.Join(dir, id, "out"), Stderr: filepath.Join(dir, id, "err"), Limits: isolation.Limits{MilliCPU: 1000, Memory: 64 << 20, PIDs: 100}}, nil)
			e.Release(id)
			if err == nil && (x.Code != 0 || x.StartError != "") {
				err = fmt.Errorf("%+v", x)
			}
			return err
		})
	})
}

// plainly runs a container by the calls that it takes at least.
func plainly(ctx context.Context, c *client.Client) error {
	enabled := true
	created, err := c.ContainerCreate(ctx, &dockertypes.Config{Image: docker.Image, Cmd: []string{"/bin/true"}},
		&dockertypes.HostConfig{NetworkMode: "host", Init: &enabled, Resources: dockertypes.Resources{Memory: 64 << 20}}, nil, nil, "")
	if err != nil {
		return err
	}
	ended, failed := c.ContainerWait(ctx, created.ID, dockertypes.WaitConditionNextExit)
	if err := c.ContainerStart(ctx, created.ID, dockertypes.StartOptions{}); err != nil {
		return err
	}
	select {
	case err = <-failed:
	case end := <-ended:
		if end.StatusCode != 0 {
			err = fmt.Errorf("exit code %d", end.StatusCode)
		}
	}
	return errors.Join(err, c.ContainerRemove(ctx, created.ID, dockertypes.RemoveOptions{}))
}
