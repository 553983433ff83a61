package main

import (
	"context"
	"log/slog"
	"os/exec"
	"strings"
	"time"

	"github.com/mayfly/mayfly/internal/logkey"
)

// idleCommandTime is how long the command may take: systemd and others give a program that ends about as long.
const idleCommandTime = time.Minute

// runIdleCommand runs what the operator wants done when this host has left for want of work: switch it off, tell a cloud.
func runIdleCommand(command string, log *slog.Logger) {
	if command == "" {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), idleCommandTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", command)
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	const most = 4 << 10
	said := strings.TrimSpace(string(out[max(0, len(out)-most):]))
	if err != nil {
		log.Error("could not run MAYFLY_IDLE_COMMAND", "command", command, "said", said, logkey.Err, err)
		return
	}
	log.Info("ran MAYFLY_IDLE_COMMAND", "command", command, "said", said)
}
