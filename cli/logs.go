package cli

import (
	"context"
	"errors"
	"io"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/mayfly/mayfly/api"
)

func (c *command) logs() *cobra.Command {
	var o api.LogOptions
	var onlyOut, onlyErr, raw bool
	cmd := &cobra.Command{
		Use: "logs ID", Short: "Print a task's output", Args: cobra.ExactArgs(1),
		Long: `Print what a task has written: its standard output to standard output, its standard error to standard error. On a
terminal, what the terminal would obey instead of showing it is replaced, unless --raw is given; elsewhere all is as it was written.`,
		Example: "  mayfly logs job_456\n  mayfly logs -f job_456\n  mayfly logs --attempt 1 --stderr job_456",
		RunE: func(cmd *cobra.Command, args []string) error {
			if onlyOut && onlyErr {
				return usage("--stdout and --stderr exclude each other; without either, both are printed")
			}
			for flag, n := range map[string]int{"tail": o.Tail, "attempt": o.Attempt} {
				if cmd.Flags().Changed(flag) && n < 0 {
					return usage("--%s is %d: it must not be negative", flag, n)
				}
			}
			client := c.client()
			defer client.Close()
			ctx, stop := interruptible(cmd.Context())
			defer stop()
			err := copyOutput(ctx, client, args[0], o, cmd, !onlyErr, !onlyOut, raw)
			if errors.Is(err, context.Canceled) {
				return nil
			}
			return err
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&o.Follow, "follow", "f", false, "go on until the attempt has ended; wait for one that has not begun")
	f.IntVar(&o.Attempt, "attempt", 0, "the attempt's `NUMBER` (default the latest)")
	f.IntVar(&o.Tail, "tail", -1, "only the last `BYTES`")
	f.BoolVar(&onlyOut, "stdout", false, "only standard output")
	f.BoolVar(&onlyErr, "stderr", false, "only standard error")
	rawFlag(f, &raw)
	return cmd
}

// rawFlag adds --raw.
func rawFlag(f *pflag.FlagSet, raw *bool) {
	f.BoolVar(raw, "raw", false, "on a terminal, too, print the output as it is: colours, and whatever else it makes the terminal do")
}

// copyOutput copies one or both streams of an attempt.
func copyOutput(ctx context.Context, client *api.Client, id string, o api.LogOptions, cmd *cobra.Command, out, errs, raw bool) error {
	failed := make(chan error, 2)
	n := 0
	for _, s := range []struct {
		wanted bool
		name   string
		w      io.Writer
	}{{out, "stdout", cmd.OutOrStdout()}, {errs, "stderr", cmd.ErrOrStderr()}} {
		if !s.wanted {
			continue
		}
		n++
		o := o
		o.Stream = s.name
		go func() {
			to, flush := output(s.w, raw)
			err := client.Logs(ctx, id, o, to)
			flush()
			failed <- err
		}()
	}
	var first error
	for range n {
		if err := <-failed; err != nil && first == nil {
			first = err
		}
	}
	return first
}
