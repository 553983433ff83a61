package main

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/mayfly/mayfly/api"
	"github.com/mayfly/mayfly/internal/secret"
	"github.com/mayfly/mayfly/isolation/process"
	"github.com/mayfly/mayfly/manager"
	"github.com/mayfly/mayfly/queue"
	"github.com/mayfly/mayfly/queue/rabbit"
)

// What the rooms are given of the configuration.

// policy is the part of the configuration that confines workers.
func (c *config) policy() (process.Policy, error) {
	users, err := process.ParseUsers(c.TaskUser)
	if err != nil {
		return process.Policy{}, fmt.Errorf("cannot use MAYFLY_TASK_USER: %w", err)
	}
	p := process.Policy{Off: c.Sandbox == "off", Users: users, Writable: c.TaskWrites,
		Hidden: slices.Concat([]string{c.StateDir, "/etc/mayfly"}, c.TaskHidden)}
	for _, secret := range []string{c.AMQPURLFile, c.AMQPKey, c.Socket, c.TokenFile, c.TLSKey, c.SigningKey, c.RegAuth, strings.TrimPrefix(c.Docker, "unix://"), "/var/lib/docker", "/var/lib/containerd", "/var/lib/rabbitmq"} {
		if filepath.IsAbs(secret) && !strings.HasPrefix(secret, "/run/") {
			p.Hidden = append(p.Hidden, secret)
		}
	}
	for name, list := range map[string][]string{"HIDDEN": c.TaskHidden, "WRITABLE": c.TaskWrites} {
		for _, path := range list {
			if !filepath.IsAbs(path) || filepath.Clean(path) != path || path == "/" {
				return p, fmt.Errorf("cannot use MAYFLY_TASK_%s=%q: %q is no absolute path without dots and doubled or final slashes", name, strings.Join(list, ","), path)
			}
		}
	}
	return p, nil
}

// signing reads the keys of tasks.
func (c *config) signing() (keys queue.Keys, signer *queue.Signer, err error) {
	if c.TaskKeys != "" {
		if keys, err = queue.ReadKeys(c.TaskKeys); err != nil {
			return nil, nil, fmt.Errorf("cannot use MAYFLY_TASK_KEYS: %w", err)
		}
	}
	if c.SigningKey != "" {
		f, err := secret.Open("MAYFLY_SIGNING_KEY", c.SigningKey)
		if err != nil {
			return nil, nil, err
		}
		f.Close()
		if signer, err = queue.ReadSigner(c.SigningKey); err != nil {
			return nil, nil, fmt.Errorf("cannot use MAYFLY_SIGNING_KEY: %w", err)
		}
	}
	return keys, signer, nil
}

// remote is the part of the configuration that the API is had by TCP by.
func (c *config) remote() *api.Remote {
	return &api.Remote{Listen: c.Listen, TokenFile: c.TokenFile, Cert: c.TLSCert, Key: c.TLSKey, ClientCA: c.TLSClientCA}
}

// manager is the part of the configuration that the manager decides by.
func (c *config) manager(capacity manager.Capacity, cannot manager.Cannot, keys queue.Keys, signer *queue.Signer) manager.Config {
	window := c.Window
	if window == 0 {
		window = max(8, 2*int(capacity.MilliCPU/1000))
	}
	fair, _ := manager.ParseFairBy(c.FairShare) // checked before
	return manager.Config{
		Keys: keys, Signer: signer,
		Fair: fair, IdleExit: time.Duration(c.IdleExit),
		Host: c.Host, Version: version, Pools: c.Pools, Capacity: capacity, Window: window,
		CutOff: rabbit.CutOff, DrainTimeout: time.Duration(c.Drain), OnStop: manager.OnStop(c.OnStop), Alone: c.AMQPURL == "", Cannot: cannot,
		Defaults: manager.Defaults{MilliCPU: max(1, int64(c.TaskCPUs*1000)), PIDs: c.TaskPIDs, Timeout: time.Duration(c.Timeout),
			Grace: time.Duration(c.Grace), MaxAttempts: c.MaxAttempts, Backoff: time.Duration(c.Backoff), OnLost: queue.OnLost(c.OnLost)},
	}
}
