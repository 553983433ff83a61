// Command example submits a task to Mayfly and waits for its result, then submits a long one and cancels it. It needs RabbitMQ's
// URL in AMQP_URL.
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	mayfly "github.com/mayfly/mayfly/clients/go"
)

func main() {
	if err := run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	client, err := mayfly.Dial(ctx, os.Getenv("AMQP_URL"))
	if err != nil {
		return err
	}
	defer client.Close()

	// Submit returns when the broker has stored the task.
	handle, err := client.Submit(ctx, mayfly.Task{
		Command:   []string{"sh", "-c", "echo hello from go"},
		Resources: mayfly.Resources{CPU: 1, Memory: 256e6},
		Timeout:   time.Minute,
	})
	if err != nil {
		return err
	}
	result, err := handle.Wait(ctx)
	if err != nil {
		return err // there is no result; a task that failed has one
	}
	if result.State != mayfly.Succeeded {
		return fmt.Errorf("task %s %s: %s", result.ID, result.State, result.Message)
	}
	fmt.Fprintln(os.Stdout, result.State, *result.ExitCode)
	fmt.Fprint(os.Stdout, result.StdoutTail)

	long, err := client.Submit(ctx, mayfly.Task{Command: []string{"sleep", "600"}})
	if err != nil {
		return err
	}
	if err := long.Cancel(ctx); err != nil {
		return err
	}
	if result, err = long.Wait(ctx); err != nil {
		return err
	}
	fmt.Fprintln(os.Stdout, result.State)
	return nil
}
