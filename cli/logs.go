package cli

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"sync"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/mayfly/mayfly/api"
	"github.com/mayfly/mayfly/internal/plain"
)

func (c *command) logs() *cobra.Command {
	var o api.LogOptions
	var onlyOut, onlyErr, raw bool
	cmd := &cobra.Command{
		Use: "logs ID", Short: "Print a task's output", Args: cobra.ExactArgs(1),
		Long: `Print what a task has written: its standard output to standard output, its standard error to standard error. On a
terminal, what the terminal would obey instead of showing it is replaced, unless --raw is given; elsewhere all is as it was written.

With --json, one object {"stdout": ..., "stderr": ...}; with -f, too, as it comes, a line {"stream": "stdout", "text": ...} for each
piece, which need not be a line. Bytes that are not UTF-8 are replaced there: JSON cannot carry them.`,
		Example: "  mayfly logs job_456\n  mayfly logs -f job_456\n  mayfly logs --attempt 1 --stderr job_456\n  mayfly logs --json job_456",
		RunE: func(cmd *cobra.Command, args []string) error {
			if onlyOut && onlyErr {
				return usage("--stdout and --stderr exclude each other; without either, both are printed")
			}
			if raw && c.json {
				return usage("--raw is for terminals: it does not go with --json")
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
			show := copyOutput
			if c.json {
				show = copyJSON
			}
			err := show(ctx, client, args[0], o, cmd, !onlyErr, !onlyOut, raw)
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
	c.jsonFlag(cmd)
	return cmd
}

// rawFlag adds --raw.
func rawFlag(f *pflag.FlagSet, raw *bool) {
	f.BoolVar(raw, "raw", false, "on a terminal, too, print the output as it is: colours, and whatever else it makes the terminal do")
}

// flow is one of an attempt's streams, and where it goes. flush is called at its end.
type flow struct {
	stream string
	to     io.Writer
	flush  func() error
}

// copyOutput copies one or both streams of an attempt.
func copyOutput(ctx context.Context, client *api.Client, id string, o api.LogOptions, cmd *cobra.Command, out, errs, raw bool) error {
	var flows []flow
	add := func(stream string, w io.Writer) {
		to, flush := output(w, raw)
		flows = append(flows, flow{stream, to, func() error { flush(); return nil }})
	}
	if out {
		add("stdout", cmd.OutOrStdout())
	}
	if errs {
		add("stderr", cmd.ErrOrStderr())
	}
	return copyFlows(ctx, client, id, o, flows)
}

// copyJSON prints one or both streams of an attempt as JSON: in one object, or while it goes on a line for each piece.
func copyJSON(ctx context.Context, client *api.Client, id string, o api.LogOptions, cmd *cobra.Command, out, errs, _ bool) error {
	var whole struct {
		Stdout *string `json:"stdout,omitempty"`
		Stderr *string `json:"stderr,omitempty"`
	}
	var flows []flow
	var mu sync.Mutex
	add := func(stream string, text **string) {
		if o.Follow {
			p := &pieces{mu: &mu, w: cmd.OutOrStdout(), stream: stream}
			flows = append(flows, flow{stream, p, p.flush})
			return
		}
		var all bytes.Buffer
		flows = append(flows, flow{stream, &all, func() error {
			s := all.String()
			*text = &s
			return nil
		}})
	}
	if out {
		add("stdout", &whole.Stdout)
	}
	if errs {
		add("stderr", &whole.Stderr)
	}
	if err := copyFlows(ctx, client, id, o, flows); err != nil || o.Follow {
		return err
	}
	return printJSON(cmd.OutOrStdout(), whole)
}

// pieces prints what is written to it as JSON, a line for each piece; other streams of the same attempt go to the same place.
type pieces struct {
	mu     *sync.Mutex
	w      io.Writer
	stream string
	// held is the beginning of a character of which the rest has not come.
	held []byte
}

// Write implements io.Writer.
func (p *pieces) Write(b []byte) (int, error) {
	text := slices.Concat(p.held, b)
	n := plain.Whole(text)
	p.held = text[n:]
	if err := p.print(text[:n]); err != nil {
		return 0, err
	}
	return len(b), nil
}

func (p *pieces) flush() error { return p.print(p.held) }

func (p *pieces) print(text []byte) error {
	if len(text) == 0 {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return printJSONLine(p.w, struct {
		Stream string `json:"stream"`
		Text   string `json:"text"`
	}{p.stream, string(text)})
}

// copyFlows copies streams of an attempt, all at once.
func copyFlows(ctx context.Context, client *api.Client, id string, o api.LogOptions, flows []flow) error {
	failed := make(chan error, len(flows))
	for _, f := range flows {
		o := o
		o.Stream = f.stream
		go func() {
			err := client.Logs(ctx, id, o, f.to)
			if flushed := f.flush(); err == nil {
				err = flushed
			}
			failed <- err
		}()
	}
	var first error
	for range flows {
		if err := <-failed; err != nil && first == nil {
			first = err
		}
	}
	return first
}
