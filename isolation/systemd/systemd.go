// Package systemd moves a process into a place of its own in systemd's tree of control groups.
//
// # Theory of operation
//
// systemd owns the control groups of a host that it booted; whoever makes groups needs a part of the tree that was delegated to
// it. A service's own group can be delegated, but then its processes are the service's: a restart kills them, and what of the
// groups lives on keeps the next start from happening. A transient scope lives as long as its processes do, whatever becomes of
// the service, and across systemd's reload and re-execution. It goes with its last process.
package systemd

import (
	"context"
	"fmt"
	"math"
	"os"
	"path"
	"strings"

	"github.com/coreos/go-systemd/v22/dbus"
	godbus "github.com/godbus/dbus/v5"
)

// Booted reports whether systemd is this host's init, as sd_booted(3) does.
func Booted() bool {
	info, err := os.Lstat("/run/systemd/system")
	return err == nil && info.IsDir()
}

// Scope moves the calling process, with all of its threads, into a new scope of that name, in which it may make control groups.
// Where the process was part of a service, the scope is stopped after that when the host goes down. It takes root.
func Scope(ctx context.Context, name, description string) error {
	conn, err := dbus.NewSystemdConnectionContext(ctx) // root's own way, which needs no message bus
	if err != nil {
		return fmt.Errorf("cannot reach systemd: %w", err)
	}
	defer conn.Close()
	properties := []dbus.Property{
		dbus.PropDescription(description),
		dbus.PropPids(uint32(os.Getpid())),
		{Name: "Delegate", Value: godbus.MakeVariant(true)},
		// Each program has a limit of its own. systemd's default is a part of what the host has, which a few programs could use up for all.
		{Name: "TasksMax", Value: godbus.MakeVariant(uint64(math.MaxUint64))},
		{Name: "CollectMode", Value: godbus.MakeVariant("inactive-or-failed")},
	}
	if unit := service(); unit != "" {
		properties = append(properties, dbus.PropBefore(unit))
	}
	done := make(chan string, 1)
	if _, err := conn.StartTransientUnitContext(ctx, name, "fail", properties, done); err != nil {
		return fmt.Errorf("cannot make the scope %s: %w", name, err)
	}
	select {
	case result := <-done:
		if result != "done" {
			return fmt.Errorf("cannot make the scope %s: systemd says %q", name, result)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("cannot make the scope %s: %w", name, ctx.Err())
	}
}

// service is the service that this process is part of, or empty.
func service() string {
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return ""
	}
	return serviceOf(string(text))
}

// serviceOf reads the service from the kernel's words: systemd's own hierarchy is the unified one or, on older hosts, one of its
// name.
func serviceOf(groups string) string {
	for line := range strings.Lines(groups) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) != 3 || f[1] != "" && f[1] != "name=systemd" {
			continue
		}
		for p := f[2]; p != "/" && p != "." && p != ""; p = path.Dir(p) {
			if strings.HasSuffix(p, ".service") {
				return path.Base(p)
			}
		}
	}
	return ""
}
