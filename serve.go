package main

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"sync"

	"github.com/mayfly/mayfly/api"
	"github.com/mayfly/mayfly/manager"
	"github.com/mayfly/mayfly/worker"
)

// serve has the API answer on the socket, and on a port where one is wanted, until stop is called, which says what went wrong. A manager
// that nobody can speak to is better started anew: it drains.
func serve(c *config, m *manager.Manager, metrics http.Handler, stir func(), log *slog.Logger) (stop func() error, err error) {
	socket, err := api.Listen(c.Socket)
	if err != nil {
		return nil, err
	}
	door, err := c.remote().Open(log)
	if err != nil {
		socket.Close()
		return nil, err
	}
	names := append(slices.Clone(c.ListenNames), c.Host)
	if name, err := os.Hostname(); err == nil {
		names = append(names, name)
	}
	if door != nil {
		names = append(names, door.Names...)
		log.Info("API opened by TCP", "listen", door.Addr().String())
	}
	server := api.New(api.Config{Backend: m, Metrics: metrics, Names: names, Stir: stir, Log: log})
	ctx, end := context.WithCancel(context.Background())
	var group sync.WaitGroup
	var mu sync.Mutex
	var failed error
	answer := func(serve func() error) {
		group.Go(func() {
			if err := serve(); err != nil {
				mu.Lock()
				failed = errors.Join(failed, err)
				mu.Unlock()
				m.Leave()
			}
		})
	}
	group.Go(func() { server.Watch(ctx) })
	answer(func() error { return api.Serve(ctx, socket, server) })
	if door != nil {
		answer(func() error { return door.Serve(ctx, server) })
	}
	return func() error {
		end()
		group.Wait()
		return failed
	}, nil
}

// kept is how many bytes are kept of an attempt's output.
func kept(files *worker.Files) func(attemptID string) int64 {
	return func(attemptID string) (n int64) {
		stdout, stderr := files.Output(attemptID)
		for _, path := range []string{stdout, stderr} {
			if info, err := os.Lstat(path); err == nil {
				n += info.Size()
			}
		}
		return n
	}
}
