package main

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/mayfly/mayfly/internal/logkey"
	"github.com/mayfly/mayfly/internal/pause"
	"github.com/mayfly/mayfly/queue"
	"github.com/mayfly/mayfly/queue/rabbit"
)

const (
	// defaultAckTimeout is RabbitMQ's own (consumer_timeout), see its documentation of consumers.
	defaultAckTimeout = 30 * time.Minute
	// ackSpare is for what a task waits before it runs and after it has ended.
	ackSpare = 5 * time.Minute
	// ackPlenty is enough where nothing bounds tasks.
	ackPlenty = 24 * time.Hour
)

// ackTimeout compares how long tasks may take with how long the broker waits for their acknowledgement; m is what the broker's management
// shows, or nil. The finding has a remedy where tasks may take longer, or that is not known; known says that it is.
func ackTimeout(c *config, client *rabbit.Client, m *rabbit.Management) (f finding, known bool) {
	longest := time.Duration(c.Timeout)
	bound := fmt.Sprintf("tasks here are bounded to %s unless they say otherwise", longest)
	if longest == 0 {
		longest, bound = ackPlenty, "tasks here may take any time"
	}
	f = finding{What: "ack timeout", OK: true}
	if m != nil && m.AckTimeout > 0 {
		f.Detail = fmt.Sprintf("%s by policy; %s", m.AckTimeout, bound)
		if longest > m.AckTimeout-ackSpare && m.AckTimeout < ackPlenty {
			f.Remedy = client.TimeoutRemedy()
		}
		return f, true
	}
	f.Detail = "cannot be seen from here; RabbitMQ's own is 30 minutes, and " + bound
	if longest > defaultAckTimeout-ackSpare {
		f.Detail += ": raise it, if that is not done"
		f.Remedy = client.TimeoutRemedy()
	}
	return f, false
}

const (
	// declarePause is between two looks whether the queues of the pools are there, declareTries how many there are.
	declarePause = time.Second
	declareTries = 30
	// managementPatience is how long the management may take to answer.
	managementPatience = 10 * time.Second
)

// warnOfAckTimeout says, once the broker is reached, where tasks may outlast its acknowledgement timeout, and what is to be done about it: as a warning where the timeout is
// known, else as a notice.
func warnOfAckTimeout(ctx context.Context, c *config, client *rabbit.Client, log *slog.Logger) {
	for range declareTries { // a policy shows with the queues that it is for
		depth, err := client.Depth(ctx)
		if err == nil && len(depth) == len(c.Pools)*len(queue.Bands) {
			break
		}
		if pause.For(ctx, declarePause) != nil {
			return
		}
	}
	var m *rabbit.Management
	if c.Management != "" {
		ctx, cancel := context.WithTimeout(ctx, managementPatience)
		defer cancel()
		var err error
		if m, err = client.Management(ctx, c.Management, c.Host); err != nil && ctx.Err() == nil {
			log.Warn("broker's policies not looked at", logkey.Err, err)
		}
	}
	f, known := ackTimeout(c, client, m)
	if f.Remedy == "" || ctx.Err() != nil {
		return
	}
	level := slog.LevelInfo
	if known {
		level = slog.LevelWarn
	}
	log.Log(ctx, level, "tasks may outlast the broker's acknowledgement timeout, and are then delivered anew", logkey.Reason, f.Detail, "remedy", f.Remedy)
}
