package container

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/docker/docker/api/types/container"

	"github.com/mayfly/mayfly/internal/logkey"
	"github.com/mayfly/mayfly/isolation"
)

// The standard input of a container comes from us, through the engine. When either of us ends before all of it is said, the program finds its
// end too early, and may succeed with half of it. So it is noted when all is said, and a program for which that is not noted is lost.

// fedOf names the note, beside a program's directory.
func fedOf(private string) string { return private + ".fed" }

// wasFed reports whether all was said to a program.
func wasFed(private string) bool {
	_, err := os.Lstat(fedOf(private))
	return err == nil
}

// start attaches to its standard input, starts the container and feeds it.
func (r *run) start(ctx context.Context) error {
	if r.spec.Stdin == "" {
		r.fed.Store(true)
		return r.begin(ctx)
	}
	in, err := os.Open(r.spec.Stdin)
	if err != nil {
		return fmt.Errorf("cannot open the standard input: %w", err)
	}
	conn, err := r.engine.docker.ContainerAttach(ctx, r.id, container.AttachOptions{Stream: true, Stdin: true})
	if err != nil {
		in.Close()
		return fmt.Errorf("cannot attach to the container: %w", err)
	}
	context.AfterFunc(ctx, conn.Close)
	go func() {
		defer in.Close()
		defer conn.Close()
		if _, err := io.Copy(conn.Conn, in); err == nil { // a program that does not read its input is no fault
			r.noteFed()
		}
		_ = conn.CloseWrite()
		_, _ = io.Copy(io.Discard, conn.Reader) // until the container ends: the engine cuts the input off when we go
	}()
	return r.begin(ctx)
}

// noteFed notes that all is said.
func (r *run) noteFed() {
	r.fed.Store(true)
	if r.spec.Private == "" {
		return
	}
	if err := os.WriteFile(fedOf(r.spec.Private), nil, 0o600); err != nil {
		r.engine.config.Log.Error("end of a container's input not noted", "program", r.spec.ID, logkey.Err, err)
	}
}

// starved ends a container of an earlier life whose input was cut off with that.
func (r *run) starved(ctx context.Context) (*isolation.Exit, error) {
	r.engine.config.Log.Warn("container ended: its standard input was cut off with the manager before", "program", r.spec.ID)
	if r.parent != nil {
		r.parent.Close()
	}
	r.kill(ctx)
	exit, err := r.exit(ctx, true, 0)
	if err == nil {
		r.unmount()
	}
	return exit, err
}
