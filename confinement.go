package main

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/mayfly/mayfly/internal/logkey"
	"github.com/mayfly/mayfly/isolation/process"
	"github.com/mayfly/mayfly/manager"
)

// confinement finds out how far workers can be confined here, says it, and returns what this host cannot do for a task.
func confinement(p process.Policy, log *slog.Logger) (manager.Cannot, error) {
	cannot := manager.Cannot{}
	effective, missing, err := process.Probe(p)
	if err != nil {
		return cannot, err
	}
	if p.Off {
		log.Warn("workers are not confined", logkey.Reason, "MAYFLY_SANDBOX=off")
		cannot.NoNetwork = "confines no worker (MAYFLY_SANDBOX=off)"
		cannot.Disk = cannot.NoNetwork
		if os.Geteuid() != 0 {
			cannot.Mounts = "is not run by root"
		}
		return cannot, nil
	}
	log.Info("workers are confined", "parts", strings.Join(effective, ", "))
	why := map[string]error{}
	for _, m := range missing {
		log.Warn("a part of the confinement is missing", "part", m.Part, logkey.Err, m.Err)
		why[m.Part] = m.Err
	}
	if err := why[process.PartMounts]; err != nil {
		cannot.NoNetwork = "cannot switch a worker's network off: " + err.Error()
		cannot.Disk = "cannot bound a worker's disk: " + err.Error()
		cannot.Mounts = err.Error()
	}
	if err := why[process.PartNetwork]; err != nil {
		cannot.NoNetwork = "cannot switch a worker's network off: " + err.Error()
	}
	if err := why[process.PartDisk]; err != nil {
		cannot.Disk = "cannot bound a worker's disk: " + err.Error()
	}
	return cannot, nil
}

// passable reports which directory above the state directory keeps workers from what is theirs in it.
func passable(stateDir string, p process.Policy) error {
	if p.Off || os.Geteuid() != 0 {
		return nil
	}
	for _, own := range []string{"/tmp/", "/var/tmp/", "/dev/shm/"} {
		if strings.HasPrefix(stateDir, own) {
			return nil // workers have these to themselves, and what lies in them is laid out anew
		}
	}
	for dir := filepath.Dir(stateDir); dir != "/"; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue // to be made
		}
		if err != nil {
			return fmt.Errorf("cannot look at %s: %w", dir, err)
		}
		if info.Mode().Perm()&0o001 == 0 {
			return fmt.Errorf("cannot use MAYFLY_STATE_DIR=%s: workers have users of their own, who may not pass %s; choose another place, or chmod o+x %s", stateDir, dir, dir)
		}
	}
	return nil
}
